"""What every entry of BACKBONES promises, and what loading promises of any folder."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline
from PIL import Image

from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import Backbone, load_backbone, load_folder
from flexiact.backbone.codec import decode_latents, encode_video, note_long_text
from flexiact.backbone.cogvideox import Published
from flexiact.backbone.loading import BackboneError, Savings, resolve_device
from flexiact.backbone.specs import BACKBONES, SETTINGS, BackboneSpec, find_spec
from flexiact.media.digests import folder_digest
from flexiact.sampling import sample_video
from flexiact.task import Request
from tests.support.backbones import decoding_as_we_do, random_frames, save_tiny_folder, tiny_backbone

LOCAL = [name for name, spec in BACKBONES.items() if isinstance(spec.source, Path)]


def local(name: str) -> Backbone:
    return load_backbone(name)


@pytest.mark.parametrize("named", ["ddim", "dpm"])
def test_published_models_are_sampled_with_dpm_whatever_their_repository_names(tmp_path: Path, named: str):
    tiny = tiny_backbone(scheduler=named, scheduler_config={"snr_shift_scale": 2.0, "timestep_spacing": "linspace"})
    folder = save_tiny_folder(tmp_path / "tiny", tiny)
    published = Published({name: getattr(tiny, name) for name in SETTINGS}, {}, {}, {})
    found = load_folder(folder, name="tiny", spec=BackboneSpec(folder, published=published)).scheduler
    assert type(found) is CogVideoXDPMScheduler
    assert (found.config.timestep_spacing, found.config.snr_shift_scale) == ("trailing", 2.0)
    torch.testing.assert_close(found.alphas_cumprod, tiny.scheduler.alphas_cumprod)
    own = load_folder(folder, name="tiny").scheduler
    assert type(own) is type(tiny.scheduler) and own.config.timestep_spacing == "linspace"


@pytest.mark.parametrize("name", BACKBONES)
def test_entry_is_pinned_and_complete(name: str):
    spec = BACKBONES[name]
    if isinstance(spec.source, Path):
        assert spec.revision is None  # the digest of its files is
    else:
        assert set(spec.settings) == set(SETTINGS)
        assert (spec.settings["num_frames"] - 1) % 8 == 0
        if spec.revision is None:  # whoever uses it names the commit
            with pytest.raises(BackboneError, match=f"no pinned revision; give {name}@COMMIT") as caught:
                load_backbone(name)
            assert "\n" not in str(caught.value)
        else:
            assert re.fullmatch("[0-9a-f]{40}", spec.revision)


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
    pipeline = decoding_as_we_do(CogVideoXImageToVideoPipeline.from_pretrained(BACKBONES[name].source))
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
    return save_tiny_folder(tmp_path / "model", tiny_backbone())


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


def test_digest_follows_the_files(folder: Path):
    before = folder_digest(folder)
    (folder / "README.md").write_text("words do not count")
    assert folder_digest(folder) == before
    config = folder / "scheduler" / "scheduler_config.json"
    found = [before]
    for path in (config, *(folder / "tokenizer" / name for name in ("spiece.model", "vocab.txt", "merges.txt"))):
        path.write_text((path.read_text() if path.exists() else "") + " ")
        found.append(folder_digest(folder))
    assert len(set(found)) == 5


def test_the_shipped_backbone_has_the_revision_that_weights_for_it_name():
    made_for = json.loads((PUPPET_WEIGHTS / "control" / "control.json").read_text())
    assert folder_digest(PUPPET_WEIGHTS / "backbone") == made_for["backbone_revision"]


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(BackboneError, match="did you mean 'puppets'.*cogvideox-5b-i2v"):
        load_backbone("pupets")
    with pytest.raises(BackboneError, match="device"):
        resolve_device("gpu")
    with pytest.raises(BackboneError, match="refadapter"):
        load_backbone("puppets", refadapter=Path("missing"))
    for field in ("refadapter", "control"):
        with pytest.raises(
            BackboneError, match=f"{field}: .* is a file; put it into a folder as .*model.safetensors, be"
        ):
            load_backbone("puppets", **{field: Path(__file__)})
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_name_is_an_entry_a_commit_of_one_or_a_folder(folder: Path, tmp_path: Path):
    commit = "0123456789abcdef" * 2 + "01234567"
    for name in ("cogvideox-5b-i2v", "cogvideox-1.5-5b-i2v"):
        assert find_spec(name) == (name, BACKBONES[name])
        assert find_spec(f"{name}@{commit}") == (name, replace(BACKBONES[name], revision=commit))
        with pytest.raises(BackboneError, match=f"expected a commit .* after {name}@, got 'main'"):
            find_spec(f"{name}@main")
    with pytest.raises(BackboneError, match="puppets is not on the hub"):
        find_spec(f"puppets@{commit}")
    for wrong, message in (("./none", "is no folder"), (str(folder / "puppets.json"), "is no folder")):
        with pytest.raises(BackboneError, match=message):
            find_spec(wrong)
    assert find_spec(str(folder)) == ("model", BackboneSpec(folder))
    link = tmp_path / "released"
    link.symlink_to(folder)
    assert find_spec(str(link))[0] == "model"  # a folder's own name, whatever leads to it
    assert load_backbone(str(folder)).revision == folder_digest(folder)
    taken = folder.rename(folder.with_name("paper"))
    with pytest.raises(BackboneError, match="paper has the name of settings that are not its own"):
        find_spec(str(taken))


@pytest.mark.parametrize("name", ["cogvideox-5b-i2v", "cogvideox-1.5-5b-i2v"])
def test_a_folder_with_the_sizes_of_a_published_model_has_its_settings(name: str, tmp_path: Path):
    published = BACKBONES[name].published
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(published.transformer))
    assert find_spec(str(tmp_path)) == (tmp_path.name, replace(BACKBONES[name], source=tmp_path, revision=None))
    other = published.transformer | {"sample_frames": 17}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(other))
    with pytest.raises(BackboneError, match="needs a puppets.json that says num_frames"):
        find_spec(str(tmp_path))


def test_what_cannot_be_quantised_is_said_in_one_line(folder: Path):
    with pytest.raises(BackboneError, match="quantise: expected one of 8bit, 4bit, got '2bit'"):
        Savings(quantise="2bit")
    with pytest.raises(BackboneError, match="quantise: needs a GPU .CUDA., the device is cpu"):
        load_folder(folder, name="tiny", savings=Savings(quantise="8bit"))
    with pytest.raises(BackboneError, match="quantise: needs bitsandbytes .* pip install 'bitsandbytes>="):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flexiact.backbone.loading.is_bitsandbytes_version", lambda *_: False)
            Savings(quantise="4bit").check(torch.device("cuda"))


def test_networks_have_the_dtype_that_is_asked_for(folder: Path):
    own = load_folder(folder, name="tiny")
    assert own.dtype == own.transformer.dtype == torch.float32
    half = load_folder(folder, name="tiny", savings=Savings(dtype="bfloat16"))
    assert {half.dtype, half.transformer.dtype, half.vae.dtype, half.text_encoder.dtype} == {torch.bfloat16}
    assert Savings().dtype_on("cuda", torch.bfloat16) == torch.bfloat16
    assert Savings(dtype="float32").dtype_on("cuda", torch.bfloat16) == torch.float32
    with pytest.raises(BackboneError, match="dtype: expected one of float32, bfloat16, float16, got 'float64'"):
        Savings(dtype="float64")


def test_sizes_that_do_not_fit_are_named():
    backbone = tiny_backbone()
    for change, field in (({"num_frames": 12}, "num_frames"), ({"height": 20}, "height"), ({"width": 0}, "width")):
        with pytest.raises(BackboneError, match=field):
            replace(backbone, **change)


@pytest.mark.parametrize("device", ["mps", "xpu", "hpu", "xla", "mtia", "meta", "cuda:99", "vulkan"])
def test_a_device_that_is_not_there_is_one_line(device: str):
    with pytest.raises(BackboneError, match="^device: ") as caught:
        resolve_device(device)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda0", "tpu", ""])
def test_an_unknown_device_is_answered_with_the_known_ones(device: str):
    with pytest.raises(BackboneError, match="device: unknown name .*known: auto, cpu, cuda"):
        resolve_device(device)


def test_a_text_that_is_cut_off_is_said(folder: Path, capsys: pytest.CaptureFixture[str]):
    backbone = load_folder(folder, name="tiny")
    capsys.readouterr()
    for words in range(1, 30):
        text = " ".join(["dog"] * words)
        note_long_text(backbone, text)
        said = capsys.readouterr().err
        tokens = backbone.tokenizer(text).input_ids
        assert bool(said) == (len(tokens) > backbone.max_text_tokens)
        assert not said or f"has {len(tokens)} tokens: the first {backbone.max_text_tokens} are read" in said
