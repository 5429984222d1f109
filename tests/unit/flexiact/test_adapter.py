"""RefAdapter: numbers against plain matrix products, files against peft, and no trace on the backbone."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.checkpoints.convert import show
from flexiact.checkpoints.ours import load_refadapter
from flexiact.refadapter import CONFIG_FILE, PREFIX, TARGETS, WEIGHTS_FILE, RefAdapter
from flexiact.sampling import Denoiser
from tests.support.backbones import NO_CONTENT, tiny_backbone
from tests.support.slow_attention import random_inputs, random_tokens, slow_prediction


def folded(backbone: Backbone, weight: float) -> Backbone:
    """Another backbone with the adapter's product added into its weights."""
    state = load_file(backbone.refadapter / WEIGHTS_FILE)
    other = tiny_backbone()
    for block in range(2):
        for target in TARGETS:
            path = f"transformer_blocks.{block}.attn1.{target}"
            down, up = (state[f"{PREFIX}{path}.lora_{half}.weight"] for half in "AB")
            other.transformer.get_submodule(path).weight.data += weight * (up @ down)  # alpha / rank is 1
    return other


@pytest.mark.parametrize("bias", [0.0, 0.331, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_equals_folded_weights_in_slow_attention(backbone: Backbone, weight: float, bias: float):
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    adapter = RefAdapter.load(backbone.refadapter, backbone.transformer)
    with adapter.attached(weight), extra_tokens_attached(backbone.transformer):
        ours = Denoiser(backbone)(*inputs, {"extra_tokens": tokens, "extra_bias": bias})
    slow = slow_prediction(folded(backbone, weight), inputs, tokens, bias)
    torch.testing.assert_close(ours, slow, atol=1e-5, rtol=1e-5)


def test_weight_matters_and_zero_is_the_backbone(backbone: Backbone):
    inputs = random_inputs(backbone)
    plain = Denoiser(backbone)(*inputs)
    adapter = RefAdapter.load(backbone.refadapter, backbone.transformer)
    outputs = {}
    for weight in (0.0, 0.7, 1.0):
        with adapter.attached(weight):
            outputs[weight] = Denoiser(backbone)(*inputs)
    assert torch.equal(outputs[0.0], plain)
    assert (outputs[0.7] - plain).abs().max() > 1e-2 and (outputs[1.0] - outputs[0.7]).abs().max() > 1e-3


def trace(backbone: Backbone) -> dict:
    transformer = backbone.transformer
    return {
        "modules": [(name, id(module)) for name, module in transformer.named_modules()],
        "weights": {name: value.clone() for name, value in transformer.state_dict().items()},
        "trainable": [parameter.requires_grad for parameter in transformer.parameters()],
        "attributes": set(vars(transformer)),
    }


@pytest.mark.parametrize("trainable", [False, True])
def test_no_trace_is_left(backbone: Backbone, trainable: bool):
    backbone.transformer.requires_grad_(trainable)
    before, state = trace(backbone), torch.random.get_rng_state()
    adapter = RefAdapter.load(backbone.refadapter, backbone.transformer)
    with pytest.raises(KeyError), adapter.attached(0.7):
        assert trace(backbone)["modules"] != before["modules"]
        Denoiser(backbone)(*random_inputs(backbone))
        raise KeyError("x")
    after = trace(backbone)
    assert all(torch.equal(after["weights"][name], value) for name, value in before["weights"].items())
    for part in ("modules", "trainable", "attributes"):
        assert after[part] == before[part]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_files_are_peft_s(backbone: Backbone, tmp_path: Path):
    inputs = random_inputs(backbone)
    adapter = RefAdapter.load(backbone.refadapter, backbone.transformer)
    adapter.save(tmp_path / "again")
    with adapter.attached(1.0):
        ours = Denoiser(backbone)(*inputs)
    model = PeftModel.from_pretrained(backbone.transformer, tmp_path / "again")
    theirs = Denoiser(backbone)(*inputs)
    assert isinstance(model, PeftModel)
    torch.testing.assert_close(ours, theirs)


def test_save_and_load_keep_every_number(backbone: Backbone, tmp_path: Path):
    adapter = RefAdapter.load(backbone.refadapter, backbone.transformer)
    adapter.save(tmp_path / "again")
    first, second = load_file(backbone.refadapter / WEIGHTS_FILE), load_file(tmp_path / "again" / WEIGHTS_FILE)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    config = json.loads((tmp_path / "again" / CONFIG_FILE).read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (2, 2, sorted(TARGETS))


def test_new_adapter_changes_nothing_and_follows_its_seed(backbone: Backbone):
    inputs = random_inputs(backbone)
    adapters = [RefAdapter(backbone.transformer, 4, 2, seed=seed) for seed in (0, 0, 1)]
    with adapters[0].attached(1.0):
        assert torch.equal(Denoiser(backbone)(*inputs), Denoiser(tiny_backbone())(*inputs))
    first, same, other = ([p.detach() for p in adapter.parameters()] for adapter in adapters)
    assert len(first) == 2 * len(TARGETS) * 2
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("damage", ["missing", "config", "truncated", "name", "shape", "nan"])
def test_damaged_files_are_named(backbone: Backbone, damage: str):
    folder = backbone.refadapter
    path = folder / WEIGHTS_FILE
    weights = load_file(path)
    name = next(iter(weights))
    if damage == "missing":
        path.unlink()
    elif damage == "config":
        (folder / CONFIG_FILE).write_text("{}")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    else:
        tensor = weights.pop(name)
        if damage == "nan":
            tensor[0, 0] = torch.nan
        weights["x" if damage == "name" else name] = tensor[:1].contiguous() if damage == "shape" else tensor
        save_file(weights, path)
    with pytest.raises(ValueError, match="refadapter"):
        RefAdapter.load(folder, backbone.transformer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_fewer_bits_are_read_exactly(backbone: Backbone, dtype: torch.dtype):
    file = backbone.refadapter / WEIGHTS_FILE
    stored = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(stored, file)
    found = RefAdapter.load(backbone.refadapter, backbone.transformer)._layers.state()
    assert all(torch.equal(found[name.removeprefix(PREFIX)], tensor.float()) for name, tensor in stored.items())
    name = next(iter(stored))
    stored[name].view(-1)[0] = torch.nan
    save_file(stored, file)
    with pytest.raises(ValueError, match=f"refadapter: {name.removeprefix(PREFIX)} holds values that are not finite"):
        RefAdapter.load(backbone.refadapter, backbone.transformer)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize(("content", "says"), list(NO_CONTENT.items()))
def test_files_without_their_content_say_so(backbone: Backbone, file: str, content: bytes, says: str):
    (backbone.refadapter / file).write_bytes(content)
    for read in (
        lambda: RefAdapter.load(backbone.refadapter, backbone.transformer),
        lambda: show(backbone.refadapter),
        lambda: show(backbone.refadapter / WEIGHTS_FILE if file == WEIGHTS_FILE else backbone.refadapter),
    ):
        with pytest.raises(ValueError, match=f"^(refadapter|checkpoint): .*{file} {says}") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lacking", "says"),
    [
        ("adapter_model.bin", WEIGHTS_FILE, "adapter_model.bin; save it as safetensors; one of the authors' release"),
        (
            "pytorch_lora_weights.safetensors",
            CONFIG_FILE,
            "safetensors; put it there as adapter_model.safetensors, beside",
        ),
    ],
)
def test_folders_of_other_programs_say_what_to_do(backbone: Backbone, name: str, lacking: str, says: str):
    folder = backbone.refadapter
    (folder / WEIGHTS_FILE).rename(folder / name)
    if lacking == CONFIG_FILE:
        (folder / CONFIG_FILE).unlink()
    with pytest.raises(
        ValueError, match=f"refadapter: cannot be read from {folder} .it holds no {lacking}, but .*{says}"
    ):
        RefAdapter.load(folder, backbone.transformer)


def test_bad_numbers_are_named(backbone: Backbone):
    for rank, alpha, field in ((0, 1.0, "rank"), (1, 0.0, "alpha"), (1, float("nan"), "alpha")):
        with pytest.raises(ValueError, match=field):
            RefAdapter(backbone.transformer, rank, alpha)
    adapter = RefAdapter(backbone.transformer, 1, 1)
    with pytest.raises(ValueError, match="refadapter_weight"), adapter.attached(float("inf")):
        pass


@pytest.mark.parametrize(("rank", "alpha"), [(1, 4), (4, 4), (2, 3), (8, 32)])
def test_rslora_has_peft_s_strength(backbone: Backbone, tmp_path: Path, rank: int, alpha: int):
    RefAdapter(backbone.transformer, rank, alpha).save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text()) | {"use_rslora": True}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    theirs = PeftModel.from_pretrained(tiny_backbone().transformer, str(tmp_path))
    expected = theirs.base_model.model.transformer_blocks[1].attn1.to_v.scaling["default"]
    adapter = RefAdapter.load(tmp_path, backbone.transformer)
    with adapter.attached(1.0):
        assert backbone.transformer.transformer_blocks[1].attn1.to_v.scaling["refadapter"] == pytest.approx(expected)
    assert load_refadapter(tmp_path)[1] == pytest.approx(expected * rank)
    RefAdapter.load(tmp_path, backbone.transformer).save(tmp_path / "again")
    assert RefAdapter.load(tmp_path / "again", backbone.transformer).alpha == adapter.alpha


@pytest.mark.parametrize(
    "setting",
    [
        {"use_dora": True},
        {"alpha_pattern": {"to_q": 8}},
        {"rank_pattern": {"to_q": 8}},
        {"init_lora_weights": "pissa"},
        {"bias": "all"},
        {"peft_type": "LOHA"},
        {"fan_in_fan_out": True},
    ],
)
def test_other_kinds_of_adapters_are_refused(backbone: Backbone, setting: dict):
    config = json.loads((backbone.refadapter / CONFIG_FILE).read_text()) | setting
    (backbone.refadapter / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"refadapter: .* sets {next(iter(setting))} = .*not supported"):
        RefAdapter.load(backbone.refadapter, backbone.transformer)


@pytest.mark.parametrize(
    ("before", "adapter"), [("", ""), ("transformer.", ""), (PREFIX, ".default"), (f"module.{PREFIX}", ".style")]
)
def test_other_trainers_words_around_peft_s_names_are_taken_off(
    backbone: Backbone, before: str, adapter: str, capsys: pytest.CaptureFixture[str]
):
    file = backbone.refadapter / WEIGHTS_FILE
    plain = load_file(file)
    renamed = {
        before + name.removeprefix(PREFIX).replace(".weight", f"{adapter}.weight"): tensor
        for name, tensor in plain.items()
    }
    save_file(renamed, file)
    loaded = RefAdapter.load(backbone.refadapter, backbone.transformer)
    assert f"note: {file} has names such as " in capsys.readouterr().err
    again = loaded._layers.state()
    assert {PREFIX + name for name in again} == set(plain)
    assert all(torch.equal(again[name.removeprefix(PREFIX)], tensor) for name, tensor in plain.items())
    assert load_refadapter(backbone.refadapter)[0].kind == "refadapter"
    save_file({name: tensor.clone() for name, tensor in (renamed | plain).items()}, file)
    with pytest.raises(ValueError, match=r"refadapter: .* holds several adapters"):
        RefAdapter.load(backbone.refadapter, backbone.transformer)


def test_a_configuration_may_have_a_mark_and_has_to_say_its_rank(backbone: Backbone):
    config = backbone.refadapter / CONFIG_FILE
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    RefAdapter.load(backbone.refadapter, backbone.transformer)
    config.write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="sets peft_type = IA3, which is not supported"):
        RefAdapter.load(backbone.refadapter, backbone.transformer)
    config.write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match=f"refadapter: {config} does not say 'r'"):
        RefAdapter.load(backbone.refadapter, backbone.transformer)
