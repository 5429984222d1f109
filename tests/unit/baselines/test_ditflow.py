"""Attention motion flow against hand-made attention and a slow version, and guidance by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ditflow import PRESETS, DiTFlow, head_mean_logits, mean_flow, strongest_flow
from baselines.i2v import ImageToVideo
from flexiact.sampling import Step
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone
from tests.support.harm.guided_loss import guided_losses

GRID = (2, 2, 3)  # frames, height, width


def attention_to(matches: dict[tuple[int, int, int], int]) -> torch.Tensor:
    """Logits by which token u of frame i looks at token v of frame j, and at its own place where nothing is said."""
    logits = torch.zeros(12, 12)
    for i in range(2):
        for j in range(2):
            for u in range(6):
                logits[6 * i + u, 6 * j + matches.get((i, j, u), u)] = 100.0
    return logits


def test_flow_of_hand_made_attention():
    # Tokens of a frame:  0 1 2
    #                     3 4 5
    logits = attention_to({(0, 1, 0): 5, (1, 0, 4): 1})
    expected = torch.zeros(2, 2, 6, 2)
    expected[0, 1, 0] = torch.tensor([2.0, 1.0])  # two to the right, one down
    expected[1, 0, 4] = torch.tensor([0.0, -1.0])
    assert torch.equal(strongest_flow(logits, GRID), expected)
    torch.testing.assert_close(mean_flow(logits, GRID, 2.0), expected)


def test_even_attention_points_to_the_middle():
    flow = mean_flow(torch.zeros(12, 12), GRID, 2.0)
    torch.testing.assert_close(flow[0, 1, 0], torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(flow.mean(dim=2), torch.zeros(2, 2, 2))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.floats(0.1, 5), st.integers(0, 99)
)
def test_flow_equals_the_slow_version(frames: int, height: int, width: int, heads: int, temperature: float, seed: int):
    places, size = height * width, 4
    query, key = torch.randn(2, 1, heads, frames * places, size, generator=torch.Generator().manual_seed(seed))
    logits = head_mean_logits(query, key)
    grid = (frames, height, width)
    soft, hard = mean_flow(logits, grid, temperature), strongest_flow(logits, grid)
    q, k = query[0].double().numpy(), key[0].double().numpy()
    for i in range(frames):
        for j in range(frames):
            for u in range(places):
                rows = [
                    np.mean([q[h, i * places + u] @ k[h, j * places + v] / np.sqrt(size) for h in range(heads)])
                    for v in range(places)
                ]
                share = np.exp(temperature * np.array(rows))
                share /= share.sum()
                x = sum(share[v] * (v % width) for v in range(places)) - u % width
                y = sum(share[v] * (v // width) for v in range(places)) - u // width
                np.testing.assert_allclose(soft[i, j, u].numpy(), [x, y], atol=1e-4)
                best = int(np.argmax(rows))
                place = [best % width - u % width, best // width - u // width]
                np.testing.assert_array_equal(hard[i, j, u].numpy(), place)


def test_loss_counts_only_where_the_reference_moves():
    backbone = tiny_backbone()
    method = DiTFlow(backbone)
    action = method.fit(Video(random_frames(1), 8.0), "a dog", seed=0)
    reference = action["motion_flow"]
    moving = reference.norm(dim=-1) > 0
    assert 0 < moving.sum() < moving.numel()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, *backbone.latent_shape, generator=generator)
    step = Step(0, 999, latents, torch.zeros_like(latents), torch.randn(1, 6, 16, generator=generator))
    with torch.no_grad(), method.passes(step) as see:
        seen = see(step.latents, None)
        loss = method.loss(seen, reference)
        flow = mean_flow(head_mean_logits(*seen.queries_and_keys()), method.grid, method.config.fit.temperature)
    squares = [(flow[place] - reference[place]).square() for place in zip(*torch.where(moving), strict=True)]
    torch.testing.assert_close(loss, torch.stack(squares).mean())


def test_a_mean_reference_flow_has_no_loss_on_its_own_video_and_counts_every_token():
    backbone, reference = tiny_backbone(), Video(random_frames(1), 8.0)
    method = DiTFlow.from_preset(backbone, reference_flow="mean")
    flow = method.fit(reference, "a dog", seed=0)["motion_flow"]
    assert (flow.norm(dim=-1) > 0).all()
    seen = method.seen(reference, torch.Generator().manual_seed(0))
    torch.testing.assert_close(method.loss(seen, flow), torch.tensor(0.0))
    strongest = DiTFlow(backbone)
    assert strongest.loss(seen, strongest.fit(reference, "a dog", seed=0)["motion_flow"]) > 0.01


@pytest.mark.parametrize("optimise", ["latents", "rotary"])
def test_guidance_lowers_its_own_loss(optimise: str, monkeypatch: pytest.MonkeyPatch):
    method = DiTFlow.from_preset(tiny_backbone(), optimise=optimise, guided_share=0.5)
    losses = guided_losses(method, monkeypatch)
    assert len(losses) == 2 * 5
    assert losses[4] < losses[0] and losses[9] < losses[5] and losses[9] < losses[0]


def test_rotary_guidance_is_another_and_needs_rotary_positions():
    with pytest.raises(ValueError, match="^optimise:"):
        DiTFlow.from_preset(
            tiny_backbone(transformer_config={"use_rotary_positional_embeddings": False}), optimise="rotary"
        )
    backbone = tiny_backbone()
    methods = [DiTFlow(backbone), DiTFlow.from_preset(backbone, optimise="rotary")]
    action = methods[0].fit(Video(random_frames(1), 8.0), "a dog", seed=0)
    videos = [method.transfer(action, Request(random_frames(2, 1)[0], "a dog", 0)).frames for method in methods]
    assert (videos[0] != videos[1]).any()


def test_a_still_reference_guides_nothing():
    backbone = tiny_backbone()
    request = Request(random_frames(2, 1)[0], "a dog", 0)
    still = {"motion_flow": torch.zeros(3, 3, 6, 2)}
    video = DiTFlow.from_preset(backbone, guidance_scale=2.0).transfer(still, request)
    unguided = ImageToVideo.from_preset(backbone, guidance_scale=2.0).transfer({}, request)
    np.testing.assert_array_equal(video.frames, unguided.frames)


@pytest.mark.parametrize(
    "config", [{"use_rotary_positional_embeddings": False}, {"patch_size_t": 2, "ofs_embed_dim": 8}, {"num_layers": 5}]
)
def test_runs_on_other_forms_of_the_model(config: dict):
    method = DiTFlow(tiny_backbone(scheduler="dpm", transformer_config=config, dtype=torch.bfloat16))
    action = method.fit(Video(random_frames(1), 8.0), "a dog", seed=0)
    assert method.transfer(action, Request(random_frames(2, 1)[0], "a dog", 0)).frames.std() > 1


def test_presets_and_bad_settings():
    paper = PRESETS["paper"].transfer
    assert (paper.adam_steps, paper.learning_rate, paper.final_learning_rate) == (5, 0.002, 0.001)
    assert (PRESETS["paper"].fit.temperature, paper.guided_share, paper.optimise) == (2.0, 0.2, "latents")
    assert DiTFlow.preset(tiny_backbone()) == PRESETS["puppets"].changed(block=None)
    assert DiTFlow.preset(replace(tiny_backbone(), name="puppets")) == PRESETS["puppets"]
    for field, value in (("temperature", 0.0), ("reference_flow", "median"), ("optimise", "text")):
        with pytest.raises(ValueError, match=f"^{field}:"):
            PRESETS["paper"].changed(**{field: value})
