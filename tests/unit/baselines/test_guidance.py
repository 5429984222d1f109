"""What guided methods share: looking into a block, passes that end there, Adam on latents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from baselines.ditflow import PAPER, DiTFlow
from baselines.guidance import AdamConfig, GuidedMethod, adam
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text
from flexiact.backbone.probe import captured, checkpointing, cut_after, middle_block
from flexiact.sampling import Denoiser, Step
from flexiact.task import Request
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone

MODELS = {
    "rotary": {},
    "no-rotary": {"use_rotary_positional_embeddings": False},
    "temporal-patches": {"patch_size_t": 2, "ofs_embed_dim": 8},
}
every_model = pytest.mark.parametrize("model", MODELS)


def model_of(model: str) -> GuidedMethod:
    backbone = tiny_backbone(transformer_config={"num_layers": 3} | MODELS[model])
    return DiTFlow(backbone, PAPER)


def step_of(backbone: Backbone, index: int = 0, timestep: int = 749) -> Step:
    generator = torch.Generator().manual_seed(3)
    condition = encode_image(backbone, random_frames(0, 1)[0], generator)
    latents = torch.randn(condition.shape, generator=generator)
    return Step(index, timestep, latents, condition, encode_text(backbone, ["", "a dog"]))


def prediction(backbone: Backbone, step: Step) -> torch.Tensor:
    times = torch.tensor([step.timestep])
    with torch.no_grad():
        return Denoiser(backbone)(step.latents, step.condition, step.text[-1:], times)


def state(backbone: Backbone) -> tuple:
    transformer = backbone.transformer
    return (
        [(name, id(module)) for name, module in transformer.named_modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in transformer.modules()],
        [id(processor) for processor in transformer.attn_processors.values()],
        [p.requires_grad for p in transformer.parameters()],
        transformer.gradient_checkpointing,
        torch.is_grad_enabled(),
    )


@every_model
def test_captured_queries_and_keys_are_those_of_the_attention(model: str, monkeypatch: pytest.MonkeyPatch):
    guided = model_of(model)
    backbone, step = guided.backbone, step_of(guided.backbone)
    attend, calls = functional.scaled_dot_product_attention, []

    def record(query, key, value, **settings):
        calls.append((query.clone(), key.clone()))
        return attend(query, key, value, **settings)

    inputs: list[torch.Tensor] = []
    handle = backbone.transformer.transformer_blocks[2].register_forward_pre_hook(
        lambda _module, _args, kwargs: inputs.append(kwargs["hidden_states"]), with_kwargs=True
    )
    monkeypatch.setattr(functional, "scaled_dot_product_attention", record)
    with captured(backbone.transformer, 1) as seen:
        prediction(backbone, step)
    handle.remove()
    query, key = seen.queries_and_keys()
    text = step.text.shape[1]
    torch.testing.assert_close(query, calls[1][0][:, :, text:])
    torch.testing.assert_close(key, calls[1][1][:, :, text:])
    assert query.shape[2] == backbone.num_video_tokens == np.prod(guided.grid)
    assert torch.equal(seen.features(), inputs[0])


@every_model
def test_a_pass_sees_what_a_whole_forward_sees_and_gives_true_gradients(model: str):
    guided = model_of(model)
    backbone, step = guided.backbone, step_of(guided.backbone)
    with captured(backbone.transformer, guided.block) as whole:
        prediction(backbone, step)
    direction = torch.randn(step.latents.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for stored in (False, True):
        before = state(backbone)
        with DiTFlow(backbone, PAPER.changed(checkpointing=not stored)).passes(step) as see:
            latents = step.latents.clone().requires_grad_()
            seen = see(latents, None)
            assert torch.equal(seen.features(), whole.features())

            def loss(latents: torch.Tensor, see=see) -> torch.Tensor:
                seen = see(latents, None)
                return seen.features().sin().mean() + sum(states.cos().mean() for states in seen.queries_and_keys())

            found.append(torch.autograd.grad(loss(latents), latents)[0])
            with torch.no_grad():
                sides = [loss(step.latents + sign * 1e-2 * direction) for sign in (1, -1)]
        assert state(backbone) == before
        torch.testing.assert_close((found[-1] * direction).sum(), (sides[0] - sides[1]) / 2e-2, rtol=2e-2, atol=1e-4)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


def test_nothing_stays_after_an_error():
    guided = model_of("rotary")
    before = state(guided.backbone)
    with pytest.raises(KeyError), guided.passes(step_of(guided.backbone)):
        raise KeyError
    assert state(guided.backbone) == before
    with pytest.raises(KeyError), captured(guided.backbone.transformer, 0), cut_after(guided.backbone.transformer, 0):
        raise KeyError
    assert state(guided.backbone) == before


def test_checkpointing_returns_to_what_was_set():
    transformer = tiny_backbone().transformer
    for before in (False, True):
        for wanted in (False, True):
            if before:
                transformer.enable_gradient_checkpointing()
            else:
                transformer.disable_gradient_checkpointing()
            with checkpointing(transformer, wanted):
                assert transformer.gradient_checkpointing is wanted
            assert transformer.gradient_checkpointing is before


def test_a_capture_without_a_call_says_so():
    with captured(tiny_backbone().transformer, 0) as seen:
        pass
    with pytest.raises(RuntimeError, match="not called"):
        seen.queries_and_keys()


def test_middle_block_is_the_published_one():
    assert middle_block(42) == 20 and middle_block(2) == 0 and middle_block(1) == 0


def test_the_reference_is_seen_by_the_network_that_makes_the_video(tmp_path: Path):
    backbone = tiny_backbone(refadapter=save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone()))
    latents = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    text = encode_text(backbone, ["a dog"])
    plain, adapted = (DiTFlow(backbone, PAPER.changed(refadapter_weight=weight)) for weight in (0.0, 0.7))
    assert plain.fit_config()["block"] == plain.block
    assert set(adapted.fit_config()) - set(plain.fit_config()) == {"refadapter_weight", "refadapter"}
    seen = [model.whole_pass(latents, latents, text, 0)[0].features() for model in (plain, adapted, plain)]
    assert (seen[0] != seen[1]).any() and (seen[0] == seen[2]).all()


def test_only_the_first_steps_are_guided():
    guided = DiTFlow(tiny_backbone(), PAPER.changed(guided_share=0.5))
    seen: list[int] = []

    def guide(step: Step) -> Step:
        seen.append(step.index)
        return replace(step, latents=step.latents * 2)

    request = Request(random_frames(0, 1)[0], "a dog", 0)
    guided.guided(request, guide)
    assert guided.guided_steps == 2 and seen == [0, 1]


def test_moves_too_small_for_the_models_type_reach_the_next_step():
    backbone = tiny_backbone(dtype=torch.bfloat16)
    model = DiTFlow(backbone, PAPER.changed(guided_share=1.0, checkpointing=False))
    seen = []

    def guide(step: Step) -> Step:
        seen.append(step.latents)
        half_a_spacing = torch.where(step.latents.abs() >= 1, 2.0**-9, 0.0)  # numbers in [1, 2) are 2^-7 apart
        return replace(step, latents=step.latents.float() + half_a_spacing)

    request = Request(random_frames(3, 1)[0], "a dog", 0)
    guided = model.guided(request, guide).frames
    plain = model.guided(request, lambda step: step).frames
    assert seen[0].dtype == torch.bfloat16 and (guided != plain).any()


def test_adam_is_adam():
    """Kingma and Ba, algorithm 1, written out."""
    start, goal = torch.tensor([1.0, -2.0, 0.5], dtype=torch.bfloat16), torch.tensor([0.0, 1.0, 0.5])

    def loss(value: torch.Tensor) -> torch.Tensor:
        return (value - goal).pow(4).sum()

    value, first, second = start.double(), torch.zeros(3).double(), torch.zeros(3).double()
    for count in range(1, 5):
        slope = 4 * (value - goal) ** 3
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        value = value - 0.1 * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
    found = adam(start, loss, 4, 0.1)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, value.float())
    small = adam(start, loss, 1, 1e-3)  # of which bfloat16 would keep nothing; the last is where it wants to be
    assert (small != start).tolist() == [True, True, False] and (small.bfloat16() == start).all()
    with pytest.raises(ValueError, match="loss"):
        adam(start, lambda value: value.sum() / 0, 1, 0.1)


def test_rates_fall_linearly_over_guided_steps():
    config = AdamConfig(learning_rate=0.002, final_learning_rate=0.001)
    np.testing.assert_allclose([config.rate(i, 5) for i in range(5)], np.linspace(0.002, 0.001, 5))
    assert config.rate(0, 1) == 0.002


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guided_share", 0.0),
        ("guided_share", 1.1),
        ("num_inference_steps", 0),
        ("refadapter_weight", float("nan")),
        ("guidance_scale", float("inf")),
        ("adam_steps", 0),
        ("adam_steps", 2.0),
        ("learning_rate", 0.0),
        ("final_learning_rate", float("nan")),
    ],
)
def test_bad_settings_are_named(field: str, value: float):
    with pytest.raises(ValueError, match=f"^{field}:"):
        AdamConfig(**{field: value})


def test_settings_a_backbone_cannot_have_are_named():
    with pytest.raises(ValueError, match="^block:"):
        DiTFlow(tiny_backbone(), PAPER.changed(block=2))
    with pytest.raises(ValueError, match="^refadapter_weight:"):
        DiTFlow(tiny_backbone(), PAPER.changed(refadapter_weight=0.7))
