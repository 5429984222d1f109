"""What every entry of BACKBONES promises, and what loading promises of any folder."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import Backbone, load_backbone, load_folder
from flexiact.backbone.codec import decode_latents, encode_video, note_long_text
from flexiact.backbone.cogvideox import Published
from flexiact.backbone.loading import BackboneError, Savings, resolve_device
from flexiact.backbone.specs import BACKBONES, SETTINGS, BackboneSpec, find_spec
from flexiact.media.digests import folder_digest
from flexiact.sampling import sample_video
from flexiact.task import Request
from tests.support.backbones import NO_CONTENT, decoding_as_we_do, random_frames, save_tiny_folder, tiny_backbone

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


def without_a_weight(file: Path) -> None:
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file, {"format": "pt"})


def pickled(file: Path, name: str) -> None:
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def sharded(file: Path, single: bool = False) -> list[Path]:
    """The weights as two files with an index, and as a single one if asked for."""
    weights = load_file(file)
    names = sorted(weights)
    parts = [file.with_name(f"{file.stem}-0000{number}-of-00002.safetensors") for number in (1, 2)]
    for part, some in zip(parts, (names[:9], names[9:]), strict=True):
        save_file({name: weights[name] for name in some}, part, {"format": "pt"})
    places = {name: parts[name not in names[:9]].name for name in names}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    if not single:
        file.unlink()
    return parts


TRANSFORMER, TEXT_ENCODER = "transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"

DAMAGE = {
    "tokenizer": lambda f: shutil.rmtree(f / "tokenizer"),
    "vae/config.json": lambda f: (f / "vae/config.json").unlink(),
    "text_encoder holds no model.safetensors": lambda f: (f / "text_encoder/model.safetensors").rename(
        f / "text_encoder/model.fp16.safetensors"
    ),
    "only diffusion_pytorch_model.fp16.safetensors": lambda f: (
        f / "transformer/diffusion_pytorch_model.safetensors"
    ).rename(f / "transformer/diffusion_pytorch_model.fp16.safetensors"),
    "vae/diffusion_pytorch_model.safetensors is empty": lambda f: (
        f / "vae/diffusion_pytorch_model.safetensors"
    ).write_bytes(b""),
    "model.safetensors only points to its content": lambda f: (f / "text_encoder/model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    ),
    "transformer/diffusion_pytorch_model.safetensors is cut short": lambda f: (
        f / "transformer/diffusion_pytorch_model.safetensors"
    ).write_bytes((f / "transformer/diffusion_pytorch_model.safetensors").read_bytes()[:-8]),
    "text_encoder/model-00002-of-00002.safetensors is missing": lambda f: (
        (f / "text_encoder/model.safetensors").rename(f / "text_encoder/model-00001-of-00002.safetensors"),
        (f / "text_encoder/model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {str(n): f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}})
        ),
    ),
    "scheduler/scheduler_config.json": lambda f: (f / "scheduler/scheduler_config.json").unlink(),
    "transformer/diffusion_pytorch_model.safetensors is missing": lambda f: (
        (f / "transformer/diffusion_pytorch_model.safetensors").unlink(),
        (f / "transformer/diffusion_pytorch_model.safetensors").symlink_to("../../blobs/0"),
    ),
    "vae/config.json is cut short": lambda f: (f / "vae/config.json").write_text('{"_class_name": "Auto'),
    "tokenizer/tokenizer.json is a web page": lambda f: (f / "tokenizer/tokenizer.json").write_text("<!DOCTYPE html>"),
    "text_encoder: its files lack 1 weights": lambda f: without_a_weight(f / "text_encoder/model.safetensors"),
    "transformer: its files lack 1 weights": lambda f: without_a_weight(
        f / "transformer/diffusion_pytorch_model.safetensors"
    ),
    "only diffusion_pytorch_model.bin, which is not read: save it as safetensors": lambda f: pickled(
        f / TRANSFORMER, "diffusion_pytorch_model.bin"
    ),
    "only pytorch_model.bin, which is not read: save it as safetensors": lambda f: pickled(
        f / TEXT_ENCODER, "pytorch_model.bin"
    ),
    "a part of it: fetch diffusion_pytorch_model.safetensors.index.json too": lambda f: (
        sharded(f / TRANSFORMER),
        (f / f"{TRANSFORMER}.index.json").unlink(),
    ),
    "index.json names files that are missing; remove it if diffusion_pytorch_model.safetensors is whole": lambda f: (
        sharded(f / TRANSFORMER, single=True)[1].unlink()
    ),
    "index.json cannot be read .names ../b.safetensors, expected .safetensors beside it": lambda f: (
        sharded(f / TEXT_ENCODER),
        (f / f"{TEXT_ENCODER}.index.json").write_text('{"weight_map": {"a": "../b.safetensors"}}'),
    ),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_half_downloaded_model_names_what_is_missing(folder: Path, said: str):
    DAMAGE[said](folder)
    with pytest.raises(BackboneError, match=said) as caught:
        load_folder(folder, name="tiny")
    assert str(caught.value).startswith("backbone tiny: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file", ["model_index.json", "puppets.json", "scheduler/scheduler_config.json", "vae/config.json", TEXT_ENCODER]
)
@pytest.mark.parametrize(("content", "says"), list(NO_CONTENT.items()))
def test_files_without_their_content_say_so(folder: Path, file: str, content: bytes, says: str):
    (folder / file).write_bytes(content)
    with pytest.raises(BackboneError, match=f"^backbone tiny: .*{file} {says}") as caught:
        load_folder(folder, name="tiny")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_read_do_no_harm(folder: Path):
    before = load_folder(folder, name="tiny")
    torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    sharded(folder / TEXT_ENCODER, single=True)[1].unlink()
    sharded(folder / TRANSFORMER)
    after = load_folder(folder, name="tiny")
    assert before.revision != after.revision
    for part in ("vae", "text_encoder", "transformer"):
        own, other = (getattr(backbone, part).state_dict() for backbone in (before, after))
        assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


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
