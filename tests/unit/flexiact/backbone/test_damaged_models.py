"""Model folders that lack something, or hold something else: what is said, in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexiact.backbone.backbone import load_folder
from flexiact.backbone.loading import BackboneError
from tests.support.backbones import NO_CONTENT, save_tiny_folder, tiny_backbone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_folder(tmp_path / "model", tiny_backbone())


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


def without_a_weight(file: Path) -> None:
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file, {"format": "pt"})


def pickled(file: Path, name: str) -> None:
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def cut(file: Path) -> None:
    weights = load_file(file)
    name = min(name for name in weights if weights[name].shape[0] > 1)
    save_file(weights | {name: weights[name][1:].clone()}, file, {"format": "pt"})


def changed(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


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
    "model_index.json is missing": lambda f: (f / "model_index.json").unlink(),
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
    "tokenizer is missing or holds no vocabulary": lambda f: (f / "tokenizer/tokenizer.json").rename(
        f / "tokenizer/._tokenizer.json"
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
    "transformer: its files lack 9 weights": lambda f: shutil.copy(*reversed(sharded(f / TRANSFORMER))),
    "transformer: 1 weights have other shapes .* e.g. norm_final.bias; take both": lambda f: cut(f / TRANSFORMER),
    "text_encoder: 1 weights have other shapes .* e.g. encoder.*; take both": lambda f: cut(f / TEXT_ENCODER),
    "transformer/config.json has a quantization_config; fetch the model without": lambda f: changed(
        f / "transformer/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    "text_encoder/config.json has a quantization_config; fetch the model without": lambda f: changed(
        f / "text_encoder/config.json", quantization_config={"quant_method": "gptq", "bits": 4}
    ),
    "tokenizer: its files cannot be read .KeyError": lambda f: (f / "tokenizer/tokenizer.json").write_text("{}"),
    "text_encoder: its files cannot be read .Strict": lambda f: changed(f / "text_encoder/config.json", d_model=[]),
    "model_index.json names the scheduler EulerDiscreteScheduler; write one of CogVideoXDDIM": lambda f: changed(
        f / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"]
    ),
    "model_index.json names the scheduler None; write one of": lambda f: changed(
        f / "model_index.json", scheduler=None
    ),
    "puppets.json: num_frames is '9', write a number .int": lambda f: changed(f / "puppets.json", num_frames="9"),
    "puppets.json: fps is None, write a number .float": lambda f: changed(f / "puppets.json", fps=None),
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


@pytest.mark.parametrize("content", ["null", "[]", '"x"'])
@pytest.mark.parametrize(
    "file",
    [
        *("model_index.json", "puppets.json", "scheduler/scheduler_config.json", "text_encoder/config.json"),
        *("transformer/config.json", "vae/config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"),
    ],
)
def test_json_of_another_kind_is_named(folder: Path, file: str, content: str):
    (folder / file).write_text(content)
    with pytest.raises(BackboneError, match=f"^backbone tiny: .*{file} holds no JSON object; .*fetch"):
        load_folder(folder, name="tiny")


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
    for file in [path for path in folder.rglob("*") if path.is_file()]:  # as Macs leave beside each
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    before = load_folder(folder, name="tiny")
    for file in folder.rglob("._*"):
        file.unlink()
    assert load_folder(folder, name="tiny").revision == before.revision
    torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    sharded(folder / TEXT_ENCODER, single=True)[1].unlink()
    sharded(folder / TRANSFORMER)
    after = load_folder(folder, name="tiny")
    assert before.revision != after.revision
    for part in ("vae", "text_encoder", "transformer"):
        own, other = (getattr(backbone, part).state_dict() for backbone in (before, after))
        assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
