"""Spatial marginal means against a loop, DDIM inversion against DDIM, frequencies, and guidance by them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.smm import (
    PRESETS,
    SpatialMarginalMean,
    low_frequencies,
    renoised,
    smm_loss,
    with_low_frequencies,
)
from flexiact.backbone.codec import encode_image, encode_text, encode_video
from flexiact.sampling import Denoiser
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone, tiny_scheduler
from tests.support.harm.guided_loss import guided_losses

REFERENCE = Video(random_frames(1), 8.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_loss_equals_the_slow_version(frames: int, width: int, seed: int):
    features, reference = torch.randn(2, frames, width, generator=torch.Generator().manual_seed(seed))
    ours, theirs = features.double().numpy(), reference.double().numpy()
    expected = 0.0
    for i in range(frames):
        for j in range(i + 1, frames):
            a, b = ours[i] - ours[j], theirs[i] - theirs[j]
            expected += 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    np.testing.assert_allclose(float(smm_loss(features, reference)), expected, atol=1e-4)


def test_loss_is_of_the_video_being_made_and_sees_changes_only():
    features, reference = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    features.requires_grad_()
    loss = smm_loss(features, reference)
    assert torch.autograd.grad(loss, features)[0].abs().max() > 0.01
    moved = 3 * features + torch.randn(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(smm_loss(moved, reference), loss)
    torch.testing.assert_close(smm_loss(reference, reference), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(smm_loss(-reference, reference), torch.tensor(12.0))


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_a_step_of_inversion_undoes_a_step_of_the_sampler(kind: str):
    """What the sampler makes of a prediction, the inversion turns back, given the prediction that agrees with it."""
    scheduler = tiny_scheduler(prediction_type=kind, rescale_betas_zero_snr=False)
    scheduler.set_timesteps(4)
    high, low = (scheduler.alphas_cumprod[timestep] for timestep in (749, 499))
    clean, noise = torch.randn(2, 1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))

    def prediction(abar: torch.Tensor) -> torch.Tensor:
        velocity = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        return {"v_prediction": velocity, "epsilon": noise, "sample": clean}[kind]

    noisy = high.sqrt() * clean + (1 - high).sqrt() * noise
    lower = scheduler.step(prediction(high), 749, noisy, return_dict=False)[0]
    torch.testing.assert_close(renoised(lower, prediction(low), low, high, kind), noisy, atol=1e-5, rtol=1e-5)


def test_at_no_signal_the_inversion_ends_in_predicted_noise():
    clean, noise = torch.randn(2, 1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    abar = torch.tensor(0.3)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    found = renoised(noisy, noise, abar, torch.tensor(0.0), "epsilon")
    torch.testing.assert_close(found, noise, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (4, 6), (3, 5)])
def test_low_frequencies_come_from_the_source_and_the_rest_from_noise(size: tuple[int, int]):
    noise, source = torch.randn(2, 1, 3, 4, *size, generator=torch.Generator().manual_seed(0))
    mixed = with_low_frequencies(noise, source, 4)
    torch.testing.assert_close(mixed - low_frequencies(source, 4), noise - low_frequencies(noise, 4))
    torch.testing.assert_close(with_low_frequencies(noise, source, 1), source)
    flat = torch.full((1, 3, 4, *size), 0.7)
    torch.testing.assert_close(low_frequencies(flat, 4), flat)
    waves = torch.tensor([1.0, -1.0]).repeat(size[1])[: size[1]].expand(1, 3, 4, *size)
    assert low_frequencies(waves, 4).abs().max() < 0.35


@pytest.mark.parametrize(
    ("steps", "levels"), [(None, [0, 249, 499, 749, 999]), (2, [0, 249, 499, 500, 749, 999])], ids=["sampler's", "more"]
)
def test_fit_keeps_the_features_of_the_inverted_reference(steps: int | None, levels: list[int]):
    """By a loop of its own: every level's prediction, the clean latents and noise it implies, and block 0's output."""
    backbone = tiny_backbone()
    method = SpatialMarginalMean.from_preset(backbone, guided_share=0.5, inversion_steps=steps)
    action = method.fit(REFERENCE, "a dog jumps", seed=5)
    generator = torch.Generator().manual_seed(5)
    latents = encode_video(backbone, REFERENCE.frames, generator)
    condition = encode_image(backbone, REFERENCE.frames[0], generator)
    text, abars = encode_text(backbone, ["a dog jumps"]), backbone.scheduler.alphas_cumprod
    outputs: list[torch.Tensor] = []
    hook = backbone.transformer.transformer_blocks[0].register_forward_hook(lambda *call: outputs.append(call[2][0]))
    for level, higher in zip(levels, [*levels[1:], 999], strict=True):
        with torch.no_grad():
            velocity = Denoiser(backbone)(latents, condition, text, torch.tensor([level]))
        if level != 999:
            clean = abars[level].sqrt() * latents - (1 - abars[level]).sqrt() * velocity
            noise = abars[level].sqrt() * velocity + (1 - abars[level]).sqrt() * latents
            latents = abars[higher].sqrt() * clean + (1 - abars[higher]).sqrt() * noise
    hook.remove()
    means = [output[0].view(3, 6, 32).mean(dim=1) for output in outputs]
    assert action.keys() == {"features", "inverted"}
    torch.testing.assert_close(action["features"], torch.stack([means[-1], means[-2]]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(action["inverted"], latents[0], atol=1e-4, rtol=1e-4)


def test_guidance_lowers_its_own_loss(monkeypatch: pytest.MonkeyPatch):
    method = SpatialMarginalMean.from_preset(tiny_backbone(), adam_steps=5)
    losses = guided_losses(method, monkeypatch)
    assert len(losses) == 2 * 5
    assert losses[4] < losses[0] and losses[9] < losses[5]


def test_the_transfer_starts_from_the_inverted_latents():
    backbone = tiny_backbone()
    method = SpatialMarginalMean(backbone)
    action = dict(method.fit(REFERENCE, "a dog", seed=0))
    request = Request(random_frames(2, 1)[0], "a dog", 0)
    before = method.transfer(action, request).frames
    action["inverted"] = -action["inverted"]
    assert (method.transfer(action, request).frames != before).any()


@pytest.mark.parametrize(
    "config", [{"use_rotary_positional_embeddings": False}, {"patch_size_t": 2, "ofs_embed_dim": 8}, {"num_layers": 5}]
)
def test_runs_on_other_forms_of_the_model(config: dict):
    method = SpatialMarginalMean(tiny_backbone(scheduler="dpm", transformer_config=config, dtype=torch.bfloat16))
    action = method.fit(REFERENCE, "a dog", seed=0)
    assert method.transfer(action, Request(random_frames(2, 1)[0], "a dog", 0)).frames.std() > 1


def test_presets_and_bad_settings():
    paper = PRESETS["paper"].transfer
    assert (paper.adam_steps, paper.learning_rate, paper.final_learning_rate) == (10, 0.007, 0.004)
    assert (paper.guided_share, paper.low_pass) == (0.4, 4)
    assert SpatialMarginalMean.preset(tiny_backbone()) == PRESETS["puppets"].changed(block=None)
    assert SpatialMarginalMean.preset(replace(tiny_backbone(), name="puppets")) == PRESETS["puppets"]
    with pytest.raises(ValueError, match="^low_pass:"):
        replace(paper, low_pass=0)
