"""What every entry of BACKBONES promises, and what loading promises of any folder."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from flexiact.backbone import (
    BACKBONES,
    SETTINGS,
    Backbone,
    BackboneError,
    folder_digest,
    load_backbone,
    load_folder,
    resolve_device,
)
from flexiact.codec import decode_latents, encode_video
from flexiact.sampling import sample_video
from flexiact.task import Request
from tests.backbones import random_frames, tiny_backbone

LOCAL = [name for name, spec in BACKBONES.items() if isinstance(spec.source, Path)]


def local(name: str) -> Backbone:
    return load_backbone(name)


@pytest.mark.parametrize("name", BACKBONES)
def test_entry_is_pinned_and_complete(name: str):
    spec = BACKBONES[name]
    if isinstance(spec.source, Path):
        assert spec.revision is None  # the digest of its files is
    else:
        assert re.fullmatch("[0-9a-f]{40}", spec.revision)
        assert set(spec.settings) == set(SETTINGS)
        assert (spec.settings["num_frames"] - 1) % 8 == 0


@pytest.mark.parametrize("name", LOCAL)
def test_shapes_follow_the_formulas(name: str):
    backbone = local(name)
    assert re.fullmatch("[0-9a-f]{64}", backbone.revision)
    assert backbone.num_latent_frames == (backbone.num_frames - 1) // 4 + 1
    frames = random_frames(0, backbone.num_frames, backbone.height, backbone.width)
    latents = encode_video(backbone, frames, torch.Generator().manual_seed(0))
    assert latents.shape == (1, *backbone.latent_shape)
    assert decode_latents(backbone, latents).shape == (1, *frames.shape)


@pytest.mark.parametrize("name", LOCAL)
def test_loop_equals_the_stock_pipeline_on_the_folder(name: str):
    backbone = local(name)
    target = random_frames(0, 1, backbone.height, backbone.width)[0]
    ours = sample_video(backbone, Request(target, "a dog", 3), num_inference_steps=2, guidance_scale=6.0)
    pipeline = CogVideoXImageToVideoPipeline.from_pretrained(BACKBONES[name].source)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        image=Image.fromarray(target),
        prompt="a dog",
        height=backbone.height,
        width=backbone.width,
        num_frames=backbone.num_frames,
        num_inference_steps=2,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(3),
        max_sequence_length=backbone.max_text_tokens,
    ).frames[0]
    np.testing.assert_array_equal(ours.frames, np.stack([np.asarray(frame) for frame in theirs]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backbone = tiny_backbone()
    CogVideoXImageToVideoPipeline(
        backbone.tokenizer, backbone.text_encoder, backbone.vae, backbone.transformer, backbone.scheduler
    ).save_pretrained(tmp_path / "model")
    settings = {name: getattr(backbone, name) for name in SETTINGS}
    (tmp_path / "model" / "puppets.json").write_text(json.dumps(settings))
    return tmp_path / "model"


def test_folder_gives_back_the_same_model(folder: Path, capfd: pytest.CaptureFixture[str]):
    state = torch.random.get_rng_state()
    first, second = tiny_backbone(), load_folder(folder, name="tiny")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert second.revision == folder_digest(folder) and second.num_parameters == first.num_parameters
    request = Request(random_frames(0)[0], "a red dog waves", 1)
    videos = [sample_video(b, request, num_inference_steps=2, guidance_scale=6.0) for b in (first, second)]
    np.testing.assert_array_equal(videos[0].frames, videos[1].frames)
    for part in (second.vae, second.transformer, second.text_encoder):
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())
    assert second.refadapter is None
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("missing", ["model_index.json", "puppets.json", "transformer", "tokenizer", "scheduler"])
def test_missing_files_are_named(folder: Path, missing: str):
    path = folder / missing
    path.rename(folder.parent / "elsewhere")
    with pytest.raises(BackboneError, match="backbone tiny"):
        load_folder(folder, name="tiny")


@pytest.mark.parametrize("damage", ["truncated", "nan", "setting", "frames"])
def test_damage_is_named(folder: Path, damage: str):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    settings = json.loads((folder / "puppets.json").read_text())
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "nan":
        weights = load_file(path)
        weights["proj_out.bias"][0] = torch.nan
        save_file(weights, path, metadata={"format": "pt"})
    elif damage == "setting":
        (folder / "puppets.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "fps"}))
    else:
        (folder / "puppets.json").write_text(json.dumps(settings | {"num_frames": 13}))
    field = {"truncated": "backbone tiny", "nan": "transformer.proj_out.bias", "setting": "fps", "frames": "num_frames"}
    with pytest.raises(BackboneError, match=field[damage]) as caught:
        load_folder(folder, name="tiny")
    assert "\n" not in str(caught.value)


def test_digest_follows_the_files(folder: Path):
    before = folder_digest(folder)
    (folder / "README.md").write_text("words do not count")
    assert folder_digest(folder) == before
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    assert folder_digest(folder) != before


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(BackboneError, match="did you mean 'puppets'.*cogvideox-5b-i2v"):
        load_backbone("pupets")
    with pytest.raises(BackboneError, match="device"):
        resolve_device("gpu")
    with pytest.raises(BackboneError, match="refadapter"):
        load_backbone("puppets", refadapter=Path("missing"))
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_sizes_that_do_not_fit_are_named():
    backbone = tiny_backbone()
    for change, field in (({"num_frames": 12}, "num_frames"), ({"height": 20}, "height"), ({"width": 0}, "width")):
        with pytest.raises(BackboneError, match=field):
            replace(backbone, **change)
