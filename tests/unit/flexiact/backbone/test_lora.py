"""Low-rank layers: their sum over several adapters against folded weights, and what filling them refuses."""

import pytest
import torch
from peft import LoraConfig

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.lora import LowRankLayers
from flexiact.refadapter import RefAdapter
from flexiact.sampling import Denoiser
from tests.support.backbones import tiny_backbone
from tests.support.slow_attention import random_inputs

TARGETS = ("to_q", "to_out.0", "ff.net.0.proj", "ff.net.2")


def random_layers(backbone: Backbone, seed: int, name: str = "layers", scale: float = 0.3) -> LowRankLayers:
    config = LoraConfig(r=3, lora_alpha=6, target_modules=list(TARGETS))
    layers = LowRankLayers(backbone.transformer, name, TARGETS, config, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in layers.parameters():
        parameter.data.normal_(generator=generator).mul_(scale)
    return layers


def fold(backbone: Backbone, layers: LowRankLayers, weight: float) -> None:
    """Add the layers' products into another backbone's weights."""
    state = layers.state()
    for path in {name.rpartition(".lora_")[0] for name in state}:
        down, up = (state[f"{path}.lora_{half}.weight"].detach() for half in "AB")
        backbone.transformer.get_submodule(path).weight.data += weight * 2 * (up @ down)  # alpha / rank is 2


def test_adapters_attached_together_add_up_in_any_order():
    backbone, folded = tiny_backbone(), tiny_backbone()
    inputs = random_inputs(backbone)
    first, second = random_layers(backbone, 0, "first"), random_layers(backbone, 1, "second")
    fold(folded, first, 0.7)
    fold(folded, second, 1.0)
    expected = Denoiser(folded)(*inputs)
    assert (expected - Denoiser(backbone)(*inputs)).abs().max() > 1e-2
    with first.attached(0.7), second.attached(1.0):
        torch.testing.assert_close(Denoiser(backbone)(*inputs), expected, atol=1e-5, rtol=1e-5)
    with second.attached(1.0), first.attached(0.7):
        torch.testing.assert_close(Denoiser(backbone)(*inputs), expected, atol=1e-5, rtol=1e-5)


def test_wraps_refadapter_and_leaves_both_as_they_were(backbone: Backbone):
    adapter, layers = RefAdapter.load(backbone.refadapter, backbone.transformer), random_layers(backbone, 0)
    inputs = random_inputs(backbone)
    modules = [(name, id(module)) for name, module in backbone.transformer.named_modules()]
    state = {name: tensor.clone() for name, tensor in layers.state().items()}
    alone = []
    for _ in range(2):
        with adapter.attached(0.7):
            alone.append(Denoiser(backbone)(*inputs))
        with pytest.raises(KeyError), adapter.attached(0.7), layers.attached(1.0):
            assert not torch.equal(Denoiser(backbone)(*inputs), alone[0])
            raise KeyError("x")
        assert [(name, id(module)) for name, module in backbone.transformer.named_modules()] == modules
    assert torch.equal(*alone)
    assert layers.state().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in layers.state().items())


def test_parameters_are_its_own_even_on_top_of_another():
    backbone = tiny_backbone()
    below, above = random_layers(backbone, 0), random_layers(backbone, 1)
    before = [id(parameter) for parameter in above.parameters()]
    assert len(before) == 2 * 2 * len(TARGETS)
    with below.attached(1.0), above.attached(1.0):
        assert [id(parameter) for parameter in above.parameters()] == before


def test_weight_zero_changes_nothing():
    backbone = tiny_backbone()
    inputs = random_inputs(backbone)
    with random_layers(backbone, 0).attached(0.0):
        assert torch.equal(Denoiser(backbone)(*inputs), Denoiser(tiny_backbone())(*inputs))


def test_state_fills_another_and_damage_is_named():
    backbone = tiny_backbone()
    first, second = random_layers(backbone, 0), random_layers(backbone, 1, "second")
    state = first.state()
    second.fill(state)
    assert all(torch.equal(second.state()[name], tensor) for name, tensor in state.items())
    name, tensor = next(iter(state.items()))
    damages = (
        {name: tensor[:, :-1]},
        {name: torch.full_like(tensor, torch.nan)},
        {name: tensor.to(torch.int32)},
        {"unknown": tensor},
    )
    for damage in damages:
        with pytest.raises(ValueError, match="^second: "):
            second.fill(state | damage)
    with pytest.raises(ValueError, match="^second: "):
        second.fill({key: value for key, value in state.items() if key != name})
