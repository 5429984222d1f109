"""The schedule's numbers, and the embedding as an action."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from flexiact.backbone.backbone import Backbone
from flexiact.embedding import (
    ACTION_KEY,
    FrequencyAwareEmbedding,
    FrequencySchedule,
    attention_share,
    schedule_report,
    signal_to_noise,
    spread,
)
from tests.support.backbones import tiny_scheduler


@pytest.mark.parametrize(
    ("timestep", "bias"),
    [(999, 1.0), (819, 1.0), (800, 1.0), (799, 0.9998), (779, 0.895), (759, 0.639), (739, 0.331), (719, 0.086)]
    + [(700, 0.0), (699, 0.0), (0, 0.0)],
)
def test_schedule_gives_the_paper_s_values(timestep: int, bias: float):
    assert FrequencySchedule()(timestep) == pytest.approx(bias, abs=5e-4)


def test_alpha_scales_every_shape():
    for shape in ("cosine", "linear", "hard", "constant"):
        one, two = FrequencySchedule(shape=shape), FrequencySchedule(alpha=2.0, shape=shape)
        assert all(two(t) == pytest.approx(2 * one(t)) for t in range(0, 1000, 7))


def test_shapes_between_the_thresholds():
    assert FrequencySchedule(shape="linear")(725) == 0.25
    assert FrequencySchedule(shape="hard")(799) == 0.0 and FrequencySchedule(shape="hard")(800) == 1.0
    assert FrequencySchedule(shape="hard", low=700, high=700)(700) == 1.0
    assert FrequencySchedule(shape="constant")(3) == 1.0
    values = [FrequencySchedule()(t) for t in range(1000)]
    assert values == sorted(values)


def test_a_removed_embedding_is_the_papers_down_to_low_and_gone_below():
    removed, cosine = FrequencySchedule(alpha=2.0, shape="removed"), FrequencySchedule(alpha=2.0)
    assert all(removed(t) == cosine(t) for t in range(700, 1000))
    assert {removed(t) for t in range(700)} == {-math.inf}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"alpha": math.nan}, "alpha"),
        ({"low": math.inf}, "low"),
        ({"low": 900}, "low"),
        ({"shape": "step"}, "shape"),
    ],
)
def test_schedule_names_the_bad_field(values: dict, field: str):
    with pytest.raises(ValueError, match=field):
        FrequencySchedule(**values)


def test_schedule_survives_json():
    schedule = FrequencySchedule(alpha=0.5, low=600, high=900, shape="linear")
    assert FrequencySchedule(**json.loads(json.dumps(asdict(schedule)))) == schedule


def test_action_round_trip_is_a_copy(backbone: Backbone):
    embedding = FrequencyAwareEmbedding.zeros(backbone, 5)
    assert embedding.tokens.shape == (2, 5, 32) and embedding.tokens.requires_grad and not embedding.tokens.any()
    action = embedding.to_action()
    embedding.tokens.data.fill_(1.0)
    assert not action[ACTION_KEY].any() and not action[ACTION_KEY].requires_grad
    assert torch.equal(FrequencyAwareEmbedding.from_action(action, backbone).tokens, action[ACTION_KEY])


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"other": torch.zeros(2, 5, 32)},
        {ACTION_KEY: torch.zeros(2, 5, 32), "more": torch.zeros(1)},
        {ACTION_KEY: torch.zeros(2, 5, 33)},
        {ACTION_KEY: torch.zeros(3, 5, 32)},
        {ACTION_KEY: torch.zeros(2, 0, 32)},
        {ACTION_KEY: torch.zeros(5, 32)},
        {ACTION_KEY: torch.zeros(2, 5, 32, dtype=torch.float64)},
        {ACTION_KEY: torch.full((2, 5, 32), torch.nan)},
        {ACTION_KEY: [0.0]},
        None,
    ],
)
def test_bad_action_is_named(backbone: Backbone, action):
    with pytest.raises(ValueError, match="action"):
        FrequencyAwareEmbedding.from_action(action, backbone)


def test_tokens_are_drawn_with_their_deviation_or_not_at_all(backbone: Backbone):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert not FrequencyAwareEmbedding.drawn(backbone, 5, 0.0, generator).tokens.any()
    assert torch.equal(generator.get_state(), before)
    first = FrequencyAwareEmbedding.drawn(backbone, 500, 0.3, generator).tokens
    assert first.requires_grad and first.is_leaf and first.std().item() == pytest.approx(0.3, rel=0.02)
    again = FrequencyAwareEmbedding.drawn(backbone, 500, 0.3, torch.Generator().manual_seed(0)).tokens
    assert torch.equal(first, again)


def test_spread_is_the_share_of_what_tokens_do_not_share():
    tokens = torch.tensor([[[3.0, 4.0], [3.0, 4.0]], [[0.0, 5.0], [0.0, 5.0]]])
    assert spread(tokens) == 0
    assert spread(tokens * torch.tensor([1.0, -1.0])[:, None]) == pytest.approx(1)
    assert spread(tokens + torch.tensor([3.0, -3.0])[:, None]) == pytest.approx((18 / (25 + 18)) ** 0.5)
    assert spread(torch.zeros(2, 3, 4)) == 0


def test_length_below_one_is_named(backbone: Backbone):
    with pytest.raises(ValueError, match="embedding_tokens"):
        FrequencyAwareEmbedding.zeros(backbone, 0)


def test_report_at_the_thresholds(backbone: Backbone):
    report = schedule_report(backbone, FrequencySchedule(), embedding_tokens=6)
    assert [row["timestep"] for row in report] == [800, 750, 700]
    assert [row["bias"] for row in report] == pytest.approx([1.0, 0.5, 0.0])
    assert report[2]["attention_share"] == pytest.approx(6 / (6 + 6 + 18))
    assert report[0]["attention_share"] == pytest.approx(6 * math.e / (6 * math.e + 6 + 18))
    ratios = [row["signal_to_noise"] for row in report]
    assert ratios == sorted(ratios) and ratios[0] > 0
    assert attention_share(backbone, 6, -math.inf) == 0.0


def test_signal_to_noise_is_zero_at_the_end():
    abars = tiny_scheduler().alphas_cumprod
    assert signal_to_noise(abars, 999) == 0.0
    assert signal_to_noise(abars, 0) > 100
    assert signal_to_noise(torch.ones(1), 0) == math.inf
