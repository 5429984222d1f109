"""The tracker on motion that is known, the encoders on models made here, and what is said when one cannot be had."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flexiact.task import Video
from metrics import METRICS, Features
from metrics.perception import (
    ALEXNET_FILE,
    LucasKanade,
    Perception,
    PerceptionError,
    load_image_encoder,
    load_lpips,
    load_perception,
)

# ------------------------------------------------------------------------------------------------------------- tracker


def texture(size: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size // 8, size // 8, 3)).astype(np.float32)
    grid = np.linspace(0, len(coarse) - 1, size)
    low, share = np.minimum(grid.astype(int), len(coarse) - 2), grid - np.minimum(grid.astype(int), len(coarse) - 2)
    rows = coarse[low] * (1 - share)[:, None, None] + coarse[low + 1] * share[:, None, None]
    return rows[:, low] * (1 - share)[None, :, None] + rows[:, low + 1] * share[None, :, None]


def sliding(step: tuple[int, int], num_frames: int = 5, size: int = 64) -> np.ndarray:
    """A window that slides over a picture, so that everything moves by (-x, -y) a frame."""
    picture = texture(2 * size).astype(np.uint8)
    return np.stack([picture[20 + t * step[1] :, 20 + t * step[0] :][:size, :size] for t in range(num_frames)])


@pytest.mark.parametrize("step", [(1, 0), (0, 3), (2, -2)])
def test_tracks_follow_a_known_shift(step):
    tracks, visible = LucasKanade(grid=12).track(sliding(step))
    assert tracks.dtype == np.float32 and tracks.shape == (144, 5, 2) and visible.shape == (144, 5)
    inside = visible[:, -1]
    assert inside.mean() > 0.5
    expected = tracks[inside, :1] - np.arange(5)[:, None] * np.array(step)
    assert np.median(np.abs(tracks[inside] - expected)) < 0.1 and np.abs(tracks[inside] - expected).max() < 1


def test_tracks_of_a_still_video_do_not_move():
    frames = np.repeat(sliding((0, 0), 1), 4, 0)
    tracks, visible = LucasKanade(grid=8).track(frames)
    assert visible.mean() > 0.9 and (np.diff(tracks, axis=1) == 0).all()
    generated = Perception(tracker=LucasKanade(grid=8)).describe(Video(frames, 8.0))
    assert METRICS["dynamic_degree"].compute(Features(generated=generated)) == 0


def test_points_without_texture_or_partner_are_lost():
    flat = np.full((3, 64, 64, 3), 90, np.uint8)
    assert not LucasKanade(grid=4).track(flat)[1][:, 1:].any()
    cut = np.stack([texture(64, seed).astype(np.uint8) for seed in range(3)])
    assert LucasKanade(grid=8).track(cut)[1][:, -1].mean() < 0.1


def test_each_point_is_followed_as_if_alone_until_it_is_lost(monkeypatch: pytest.MonkeyPatch):
    frames = sliding((3, 1), 6)
    frames[:, 20:] = 90  # most points have no texture
    seen, step = [], LucasKanade._step
    monkeypatch.setattr(LucasKanade, "_step", lambda self, *given: seen.append(len(given[2])) or step(self, *given))
    tracks, visible = LucasKanade(grid=8).track(frames)
    assert seen == visible[:, :-1].sum(axis=0).tolist() and seen[0] == 64 > 2 * seen[-1] > 0
    tracker, large = LucasKanade(), [cv2.resize(f, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for f in frames]
    for point, found in zip(tracks, visible, strict=True):
        for t in range(1, 6):
            moved, sure = step(tracker, large[t - 1], large[t], point[None, t - 1], 2)
            sure &= (moved >= 0).all() & (moved <= 64).all()
            assert found[t] == (found[t - 1] and sure[0])
            assert (point[t] == (moved[0] if found[t] else point[t - 1])).all()


def test_tracker_takes_any_size_and_one_frame():
    tracks, visible = LucasKanade(grid=4).track(np.zeros((1, 30, 200, 3), np.uint8))
    assert tracks.shape == (16, 1, 2) and visible.all()
    assert tracks[0, 0].tolist() == [25, 3.75]  # centre of the first of 4 x 4 cells
    assert LucasKanade(grid=4).track(np.zeros((2, 300, 200, 3), np.uint8))[0].shape == (16, 2, 2)


def test_trackers_name_tells_its_settings_apart():
    assert LucasKanade().name == LucasKanade().name != LucasKanade(window_px=9).name


# ------------------------------------------------------------------------------------------------------ image encoder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny open_clip model of random weights with a word tokenizer."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3, "dog": 4, "person": 5}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 6, "vocab_size": 6, "width": 32, "heads": 2, "layers": 1},
    }
    mean = [0.5, 0.5, 0.5]
    written = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": mean}}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def test_image_encoder_from_a_folder(clip_folder):
    encoder = load_image_encoder(clip_folder)
    frames = np.random.default_rng(0).integers(0, 256, (70, 40, 56, 3), np.uint8)
    first = encoder.encode_images(frames)
    assert first.dtype == np.float32 and first.shape == (70, 16)
    assert np.linalg.norm(first, axis=-1) == pytest.approx(1, abs=1e-5)
    assert (encoder.encode_images(frames) == first).all() and not np.allclose(first[0], first[1])
    text = encoder.encode_text("a dog")
    assert text.shape == (16,) and np.linalg.norm(text) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(text, encoder.encode_text("a person"))
    assert np.isfinite(encoder.encode_text("a dog " * 50)).all()
    assert encoder.name.startswith(f"open_clip {clip_folder.name} ")


@pytest.mark.parametrize("beside", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "a.safetensors"])
def test_the_name_of_an_image_encoder_is_of_the_weights_that_are_read(clip_folder, tmp_path, beside):
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(clip_folder, tmp_path / clip_folder.name)
    weights = {name: 2 * value for name, value in load_file(folder / "model.safetensors").items()}
    (torch.save if beside.endswith("bin") else save_file)(weights, folder / beside)
    plain, found = load_image_encoder(clip_folder), load_image_encoder(folder)
    other = not torch.equal(plain.model.visual.proj, found.model.visual.proj)
    assert other == (found.name != plain.name) == (beside == "open_clip_model.safetensors")


def test_perception_measures_everything_it_has(clip_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    class Middle:
        name, keypoint_names, score_threshold = "middle", ("middle",), 0.5

        def estimate(self, frames):
            scores = np.linspace(0.4, 0.6, len(frames), dtype=np.float32)[:, None]
            return np.full((len(frames), 1, 2), 16, np.float32), scores

    perception = load_perception(str(clip_folder), Middle())
    video = Video(sliding((1, 0), 3), 8.0)
    found = perception.describe(video)
    assert found.image_embeddings.shape == (3, 16) and found.tracks.shape == (1024, 3, 2)
    assert found.keypoints.shape == (3, 1, 2)
    assert found.keypoint_scores[:, 0].tolist() == pytest.approx([0, 0.5, 0.6]), "what is below the threshold is a miss"
    assert perception.embed_text("a dog").shape == (16,)
    assert perception.perceptual_distance(video.frames, video.frames) is None
    assert perception.backends["pose"] == "middle" and perception.backends["perceptual"].startswith("none: LPIPS needs")
    assert set(perception.backends) == {metric.backend for metric in METRICS.values()}


def test_backends_that_are_not_there_leave_none():
    perception = Perception(tracker=None)
    found = perception.describe(Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0))
    assert found.image_embeddings is found.tracks is found.keypoints is None
    assert perception.embed_text("a dog") is None and perception.backends["pose"] == "none: not asked for"


@pytest.mark.parametrize("file", ["open_clip_config.json", "model.safetensors"])
def test_incomplete_folder_names_the_missing_file(tmp_path, file):
    for name in {"open_clip_config.json", "model.safetensors"} - {file}:
        (tmp_path / name).touch()
    with pytest.raises(PerceptionError, match=file):
        load_image_encoder(tmp_path)
    if file == "model.safetensors":
        (tmp_path / "open_clip_pytorch_model.bin").touch()
        with pytest.raises(PerceptionError, match=f"{file} is missing, and .*model.bin is not read: save it as safe"):
            load_image_encoder(tmp_path)


@pytest.mark.parametrize("file", ["open_clip_config.json", "model.safetensors", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>"])
def test_files_without_their_content_are_named(clip_folder, tmp_path, file, content):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / file).write_bytes(content)
    named = f"the tokenizer of {folder}" if "/" in file else str(folder / file)
    with pytest.raises(PerceptionError, match=f"^image encoder: {named} is damaged, not fetched .* `git lfs pull`"):
        load_image_encoder(folder)


def test_broken_folder_and_unknown_name_give_one_line(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{")
    (tmp_path / "model.safetensors").touch()
    for source in (tmp_path, "no-such-model"):
        with pytest.raises(PerceptionError, match=str(source)) as caught:
            load_image_encoder(source)
        assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_said_so(monkeypatch):
    import open_clip

    def offline(name, **options):
        assert (name, options["pretrained"]) == ("ViT-B-32-quickgelu", "openai")
        raise OSError("no route to host\ndetails")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", offline)
    with pytest.raises(PerceptionError, match=r"ViT-B-32.*could not be fetched \(OSError: no route to host\)"):
        load_image_encoder("ViT-B-32")


# --------------------------------------------------------------------------------------------------------------- lpips


@pytest.mark.slow
def test_lpips_without_its_backbone_is_refused_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(PerceptionError, match=ALEXNET_FILE):
        load_lpips()
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.slow
def test_lpips_with_a_cached_backbone(monkeypatch, tmp_path):
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / ALEXNET_FILE)
    perceptual = load_lpips()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    assert perceptual.distance(frames, frames).tolist() == [0, 0, 0]
    near = np.clip(frames.astype(int) + rng.integers(-9, 10, frames.shape), 0, 255).astype(np.uint8)
    far = rng.integers(0, 256, frames.shape, np.uint8)
    assert (0 < perceptual.distance(frames, near)).all()
    assert (perceptual.distance(frames, near) < perceptual.distance(frames, far)).all()
