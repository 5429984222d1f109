"""Untrimmed clips are encoded once, as they would be without a cache, and drawn as the paper's training sees them."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text, encode_video
from flexiact.media.image import fit_image
from flexiact.media.video import read_video
from flexiact.train_refadapter import clip_cache
from flexiact.train_refadapter.clip_cache import CachedClips, cache_clips, encode_clip
from flexiact.train_refadapter.clips import Clip, list_clips
from flexiact.train_refadapter.command import release_encoders
from flexiact.train_refadapter.configs import CacheConfig
from tests.support.backbones import HEIGHT, WIDTH, tiny_backbone
from tests.support.clips import CAPTIONS, write_clip, write_folder

SMALL = CacheConfig(windows=3, frames=4, seed=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "videos")


def cached(folder: Path, backbone: Backbone, data: Path, config: CacheConfig = SMALL) -> CachedClips:
    return cache_clips(folder, backbone, list_clips(data), config, Accelerator())


def fitted(path: Path) -> np.ndarray:
    return np.stack([fit_image(frame, HEIGHT, WIDTH) for frame in read_video(path).frames])


@pytest.mark.parametrize(("fps", "every"), [(8.0, 1), (6.0, 1), (16.0, 2), (25.0, 3)])
def test_a_clip_is_kept_as_it_would_be_encoded(backbone: Backbone, tmp_path: Path, fps: float, every: int):
    span = 8 * every + 1
    path = write_clip(tmp_path / "a.mkv", 0, span + 5, fps)
    kept = encode_clip(backbone, Clip(path, "a dog"), SMALL, torch.Generator().manual_seed(5))
    frames, generator = fitted(path), torch.Generator().manual_seed(5)
    starts = torch.randperm(6, generator=generator)[:3].tolist()
    moments = torch.randperm(span + 5, generator=generator)[:4].tolist()
    windows = [encode_video(backbone, frames[start : start + span : every], generator) for start in starts]
    images = [encode_image(backbone, frames[moment], generator)[:, :1] for moment in moments]
    assert kept["starts"].tolist() == starts and len(set(starts)) == 3
    assert kept["moments"].tolist() == moments and len(set(moments)) == 4
    assert torch.equal(kept["windows"], torch.cat(windows)) and torch.equal(kept["images"], torch.cat(images))
    assert torch.equal(kept["text"], encode_text(backbone, ["a dog"])[0])


def test_a_clip_as_short_as_the_backbone_s_has_one_window(backbone: Backbone, tmp_path: Path):
    path = write_clip(tmp_path / "a.mkv", 0, 9)
    kept = encode_clip(backbone, Clip(path, ""), SMALL, torch.Generator().manual_seed(0))
    assert kept["starts"].tolist() == [0] and kept["windows"].shape == (1, *backbone.latent_shape)


def test_a_second_start_encodes_nothing(backbone: Backbone, data: Path, tmp_path: Path):
    first = cached(tmp_path / "cache", backbone, data)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")}
    assert len(before) == 4 and set(first.files) < set(before)  # three clips and the empty caption
    release_encoders(backbone)  # an encoder without weights cannot encode
    again = cached(tmp_path / "cache", backbone, data)
    assert again.files == first.files and torch.equal(again.empty, first.empty) and again.digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")} == before


def test_unchanged_videos_are_not_read_again(backbone: Backbone, data: Path, tmp_path: Path, monkeypatch):
    first = cached(tmp_path / "cache", backbone, data)
    monkeypatch.setattr(clip_cache, "file_digest", lambda *_: pytest.fail("read again"))
    assert cached(tmp_path / "cache", backbone, data).files == first.files


def test_files_follow_content_and_settings_alone(backbone: Backbone, data: Path, tmp_path: Path):
    folder = tmp_path / "cache"
    first = cached(folder, backbone, data)
    shutil.copytree(data, tmp_path / "copy")
    assert cached(folder, backbone, tmp_path / "copy").files == first.files
    write_clip(data / "0.mkv", 10)
    (data / "1.txt").write_text("a blue bird")
    changed = cached(folder, backbone, data)
    assert [new == old for new, old in zip(changed.files, first.files, strict=True)] == [False, False, True]
    names = {changed.files[2].name}
    for config in (CacheConfig(2, 4, 0), CacheConfig(3, 5, 0), CacheConfig(3, 4, 1)):
        names.add(cached(folder, backbone, data, config).files[2].name)
    names.add(cached(folder, tiny_backbone(seed=1), data).files[2].name)
    names.add(cached(folder, tiny_backbone(dtype=torch.bfloat16), data).files[2].name)
    assert len(names) == 6


def test_another_seed_takes_other_moments(backbone: Backbone, tmp_path: Path):
    data = tmp_path / "videos"
    write_clip(data / "0.mkv", 0, 60).with_suffix(".txt").write_text("a dog")
    chosen = []
    for seed in (0, 1):
        [file] = cached(tmp_path / "cache", backbone, data, CacheConfig(3, 4, seed)).files
        kept = load_file(file)
        chosen.append((kept["starts"].tolist(), kept["moments"].tolist()))
    assert chosen[0][0] != chosen[1][0] and chosen[0][1] != chosen[1][1]


def test_all_videos_that_cannot_be_used_are_named(backbone: Backbone, data: Path, tmp_path: Path):
    write_clip(data / "0.mkv", 0, 8)
    write_clip(data / "2.mkv", 0, 16, 16.0)
    with pytest.raises(ValueError, match=r"^data: 2 problems: .*0.mkv: expected 9 .* got 8; .*2.mkv: expected 17"):
        cached(tmp_path / "cache", backbone, data)
    (data / "0.mkv").write_bytes(b"no video")
    write_clip(data / "2.mkv", 2)
    with pytest.raises(ValueError, match=r"^[^;]*0.mkv"):
        cached(tmp_path / "cache", backbone, data)
    write_clip(data / "0.mkv", 0)
    assert len(cached(tmp_path / "cache", backbone, data).files) == 3


def test_a_full_disk_is_noticed_before_anything_is_encoded(backbone: Backbone, data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(clip_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"^cache: 4 files need .*--windows"):
        cached(tmp_path / "cache", backbone, data)
    assert not list((tmp_path / "cache").glob("*.safetensors"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^cache: "):
        cached(tmp_path / "file", backbone, data)


@pytest.mark.parametrize("config", [{"windows": 0}, {"frames": 0}, {"seed": -1}])
def test_settings_out_of_range_are_named(config: dict):
    with pytest.raises(ValueError, match=f"^{next(iter(config))}: "):
        CacheConfig(**config)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("transformer", [{}, {"patch_size_t": 2, "ofs_embed_dim": 8}])
def test_a_window_starts_from_another_moment(data: Path, tmp_path: Path, transformer: dict, inverted: bool):
    backbone = tiny_backbone(transformer_config=transformer)
    backbone.vae.register_to_config(invert_scale_latents=inverted)
    clips = cached(tmp_path / "cache", backbone, data)
    kept = [load_file(file) for file in clips.files]
    drawn = CachedClips(clips.files, clips.empty, 0.0, 0.0).draw(backbone, 40, torch.Generator().manual_seed(0))
    assert drawn.clean.shape == drawn.condition.shape == (40, *backbone.latent_shape)
    scale = backbone.vae.config.scaling_factor**2 if inverted else 1
    lead = 1 + backbone.num_padding_frames
    assert lead == (2 if transformer else 1)
    for frame in range(lead):  # padding repeats the first frame
        assert torch.equal(drawn.clean[:, frame], drawn.condition[:, 0] * scale)
    assert not drawn.condition[:, 1:].any()
    seen = set()
    for clean, condition, text in zip(drawn.clean, drawn.condition, drawn.text, strict=True):
        [(clip, window)] = [
            (index, number)
            for index, clip in enumerate(kept)
            for number, whole in enumerate(clip["windows"])
            if torch.equal(whole[lead:], clean[lead:])
        ]
        [image] = [n for n, image in enumerate(kept[clip]["images"]) if torch.equal(image[0], condition[0])]
        assert torch.equal(text, encode_text(backbone, [CAPTIONS[clip]])[0])
        seen.add((clip, window, image))
    assert {clip for clip, _, _ in seen} == {0, 1, 2} and {window for _, window, _ in seen} == {0, 1, 2}
    assert {image for _, _, image in seen} == {0, 1, 2, 3}


def test_a_window_without_image_and_caption_stays_whole(backbone: Backbone, data: Path, tmp_path: Path):
    clips = cached(tmp_path / "cache", backbone, data)
    drawn = CachedClips(clips.files, clips.empty, 1.0, 1.0).draw(backbone, 8, torch.Generator().manual_seed(0))
    whole = torch.cat([load_file(file)["windows"] for file in clips.files])
    assert not drawn.condition.any()
    assert all((row == whole).flatten(1).all(1).any() for row in drawn.clean)
    empty = encode_text(backbone, [""])[0]
    assert all(torch.equal(text, empty) for text in drawn.text)


def test_dropout_happens_as_often_as_in_the_paper(backbone: Backbone, data: Path, tmp_path: Path):
    clips = cached(tmp_path / "cache", backbone, data)
    drawn = clips.draw(backbone, 2000, torch.Generator().manual_seed(0))
    assert float((~drawn.condition.flatten(1).any(1)).float().mean()) == pytest.approx(0.05, abs=0.02)
    assert float((drawn.text == clips.empty).all(dim=(1, 2)).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_a_damaged_file_is_named(backbone: Backbone, data: Path, tmp_path: Path):
    clips = cached(tmp_path / "cache", backbone, data)
    for file in clips.files:
        file.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"^cache: .*safetensors cannot be read .*remove it"):
        clips.draw(backbone, 1, torch.Generator().manual_seed(0))
