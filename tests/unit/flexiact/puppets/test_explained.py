"""Shares of movement that one step explains, and how well the trunk's middle block points at keypoints."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flexiact.puppets.cards.explained import (
    KINDS,
    MOVED,
    TIMESTEPS,
    HeldOut,
    as_markdown,
    explained,
    explained_table,
    missed_at_rest,
    pointed,
    pointed_markdown,
)
from flexiact.puppets.recipes.backbone.model import TextToVelocity, new_scheduler
from flexiact.puppets.recipes.backbone.start import untrained


class Knowing(TextToVelocity):
    """A model whose one step ends at the given clean latents."""

    def __init__(self, clean: Tensor) -> None:
        model = untrained(20, 16)
        super().__init__(model.text_encoder, model.transformer)
        self.clean = clean

    def forward(self, noisy: Tensor, condition: Tensor, ids: Tensor, timestep: Tensor, rotary: tuple) -> Tensor:
        super().forward(noisy, condition, ids, timestep, rotary)
        alpha = new_scheduler().alphas_cumprod[timestep].view(-1, 1, 1, 1, 1)
        return (alpha.sqrt() * noisy - self.clean) / (1 - alpha).sqrt()


@pytest.fixture(scope="module")
def clips() -> HeldOut:
    torch.manual_seed(3)
    first = torch.randn(2, 1, 20, 16, 16)
    latents = torch.cat([first, torch.randn(2, 2, 20, 16, 16)], 1)
    points = torch.full((2, 9, 13, 2), 30.0)
    points[0, 4:, 2, 0] += 8  # moves
    points[0, 4:, 3, 0] += MOVED / 2  # moves too little
    points[1, 5:, 7, 1] -= 6
    points[:, :, 9] = torch.nan  # no such part
    return HeldOut(latents, first.expand_as(latents), first, torch.ones(2, 40, dtype=torch.long), points)


def test_the_truth_explains_all_a_still_image_nothing_and_their_middle_three_quarters(clips: HeldOut):
    for clean, share in ((clips.latents, 1), (clips.still, 0), ((clips.latents + clips.still) / 2, 0.75)):
        assert explained(Knowing(clean), clips, 999, seed=0) == pytest.approx(share, abs=1e-4)
    # At any noise level, since the noise is taken out.
    assert explained(Knowing(clips.latents), clips, 250, seed=0) == pytest.approx(1, abs=1e-4)


def test_what_is_missed_where_nothing_moves_is_told_apart(clips: HeldOut):
    resting = clips.latents.clone()
    resting[:, :, :, :, :8] = clips.still[..., :8]  # the left half stands still
    half, error = replace(clips, latents=resting), torch.zeros_like(resting)
    error[..., :8], error[..., 8:] = 0.2, 0.1
    # The whole first frame rests as well.
    share = (3 * 0.2**2 + 0.1**2) / (3 * 0.2**2 + 3 * 0.1**2)
    assert missed_at_rest(Knowing(resting + error), half, 999, seed=0) == pytest.approx(share, abs=1e-3)


def test_pointing_is_measured_over_the_keypoints_that_move(clips: HeldOut):
    model = Knowing(clips.latents)
    error, unmoved = pointed(model, clips, seed=0)
    places = model.pointer.places().detach()  # of the last call: both clips are one part
    moved = [(0, t, 2) for t in range(4, 9)] + [(1, t, 7) for t in range(5, 9)]
    assert error == pytest.approx(sum(float((places[i] - clips.points[i]).norm()) for i in moved) / 9, rel=1e-5)
    assert unmoved == pytest.approx((5 * 8 + 4 * 6) / 9)


def test_a_place_is_the_mean_over_tokens():
    model = untrained(20, 16).pointer
    model._tokens = torch.randn(1, 3 * 64, 128)
    logits, places = model._logits().detach(), model.places().detach()
    assert places.shape == (1, 9, 13, 2)
    shares = logits[0, 5, 4].softmax(0).tolist()
    for axis, of in ((0, lambda token: token % 8), (1, lambda token: token // 8)):
        assert float(places[0, 5, 4, axis]) == pytest.approx(
            sum(s * (8 * of(token) + 4) for token, s in enumerate(shares)), abs=1e-3
        )


def test_tables_have_a_row_a_kind(clips: HeldOut):
    held_out, model = dict.fromkeys(KINDS, clips), Knowing(clips.still)
    table = as_markdown(explained_table(model, held_out, seed=0)).splitlines()
    assert len(table) == 2 + len(KINDS) + 1 and table[0].count("t =") == len(TIMESTEPS)
    assert table[-1].startswith("| limbs, mean | ")
    assert pointed_markdown(model, held_out, seed=0).count("| 7.1 |") == len(KINDS)
