"""Temporal attention and what is kept of it, on hand-made attention and against a loop, and guidance by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.motion_clone import PRESETS, MotionClone, temporal_attention, top_loss
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone
from tests.support.harm.guided_loss import guided_losses

REFERENCE = Video(random_frames(1), 8.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_attention_is_the_joint_one_renormalised_over_frames(frames: int, places: int, heads: int, seed: int):
    query, key = torch.randn(2, 1, heads, frames * places, 4, generator=torch.Generator().manual_seed(seed))
    found = temporal_attention(query, key, frames)
    assert found.shape == (heads, places, frames, frames)
    joint = (query[0].double() @ key[0].double().transpose(1, 2) / 2).softmax(dim=-1)
    for h in range(heads):
        for p in range(places):
            for i in range(frames):
                shares = [float(joint[h, i * places + p, j * places + p]) for j in range(frames)]
                np.testing.assert_allclose(found[h, p, i].numpy(), np.array(shares) / sum(shares), atol=1e-5)


def test_only_the_strongest_of_hand_made_attention_counts():
    # One head, one place, three frames: the reference's frames look most at frames 1, 0 and 2.
    reference = torch.tensor([[[[0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]])
    strength, frame = reference.max(dim=-1)
    assert frame.tolist() == [[[1, 0, 2]]]
    other = torch.tensor([[[[0.0, 0.7, 0.3], [0.4, 0.0, 0.6], [0.0, 0.5, 0.5]]]])
    torch.testing.assert_close(top_loss(other, strength, frame), torch.tensor((0.0 + 0.1**2 + 0.3**2) / 3))
    other.requires_grad_()
    slope = torch.autograd.grad(top_loss(other, strength, frame), other)[0]
    kept = torch.nn.functional.one_hot(frame, 3).bool()
    assert not slope[~kept].any()
    torch.testing.assert_close(slope[kept], torch.tensor([0.0, 2 * -0.1 / 3, 2 * -0.3 / 3]))


def test_fit_keeps_the_strongest_value_and_its_frame():
    backbone = tiny_backbone()
    method = MotionClone(backbone)
    action = method.fit(REFERENCE, "a dog", seed=0)
    assert action.keys() == {"attention", "frame"}
    assert all(tensor.shape == (2, 6, 3) for tensor in action.values())
    assert (action["attention"] >= 1 / 3).all() and (action["attention"] <= 1).all()
    assert set(action["frame"].unique().tolist()) <= {0.0, 1.0, 2.0}
    # The caption is not read; the noise follows the seed.
    assert torch.equal(method.fit(REFERENCE, "a bird", seed=0)["attention"], action["attention"])
    assert not torch.equal(method.fit(REFERENCE, "a dog", seed=1)["attention"], action["attention"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_guidance_lowers_its_own_loss(checkpointing: bool, monkeypatch: pytest.MonkeyPatch):
    # Attention of random weights changes little with the latents: five times the steps, at once.
    method = MotionClone.from_preset(tiny_backbone(), guided_share=0.4, gradient_steps=5, checkpointing=checkpointing)
    losses = guided_losses(method, monkeypatch)
    assert len(losses) == 2 * 5
    assert losses[4] < losses[0] and losses[9] < losses[5]


def test_weight_says_how_far():
    backbone = tiny_backbone()
    request = Request(random_frames(2, 1)[0], "a dog", 0)
    action = MotionClone(backbone).fit(REFERENCE, "a dog", seed=0)

    def video(weight: float) -> np.ndarray:
        return MotionClone.from_preset(backbone, guidance_weight=weight).transfer(action, request).frames

    none, little, much = (video(weight).astype(float) for weight in (1e-6, 200.0, 2000.0))
    assert 0 < np.abs(little - none).mean() < np.abs(much - none).mean()


@pytest.mark.parametrize("frame", [3.0, -1.0, 0.5])
def test_frames_that_do_not_exist_are_named(frame: float):
    method = MotionClone(tiny_backbone())
    action = dict(method.fit(REFERENCE, "a dog", seed=0))
    action["frame"] = torch.full_like(action["frame"], frame)
    with pytest.raises(ValueError, match="action.*frame"):
        method.transfer(action, Request(random_frames(2, 1)[0], "a dog", 0))


@pytest.mark.parametrize(
    "config", [{"use_rotary_positional_embeddings": False}, {"patch_size_t": 2, "ofs_embed_dim": 8}, {"num_layers": 5}]
)
def test_runs_on_other_forms_of_the_model(config: dict):
    method = MotionClone(tiny_backbone(scheduler="dpm", transformer_config=config, dtype=torch.bfloat16))
    action = method.fit(REFERENCE, "a dog", seed=0)
    assert method.transfer(action, Request(random_frames(2, 1)[0], "a dog", 0)).frames.std() > 1


def test_presets_and_bad_settings():
    paper = PRESETS["paper"]
    assert paper.fit.reference_timestep == 400
    assert (paper.transfer.guidance_weight, paper.transfer.guided_share) == (2000.0, 0.4)
    assert MotionClone.preset(tiny_backbone()) == PRESETS["puppets"].changed(block=None)
    assert MotionClone.preset(replace(tiny_backbone(), name="puppets")) == PRESETS["puppets"]
    for field, value in (("gradient_steps", 0), ("guidance_weight", 0.0), ("reference_timestep", -1)):
        with pytest.raises(ValueError, match=f"^{field}:"):
            paper.changed(**{field: value})
    with pytest.raises(ValueError, match="^reference_timestep:"):
        MotionClone(tiny_backbone(), paper.changed(reference_timestep=1000))
