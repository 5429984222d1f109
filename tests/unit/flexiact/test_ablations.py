"""An ablation of FlexiAct differs from it in what its name says, and in nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from diffusers import CogVideoXDDIMScheduler

from benchmark.planning.methods import METHODS
from flexiact.backbone.backbone import load_backbone
from flexiact.embedding import (
    PAPER_RATIOS,
    PAPER_SHARE,
    attention_share,
    matched_schedule,
    signal_to_noise,
    timestep_of,
)
from flexiact.method import preset

DIFFERENCES: dict[str, dict[str, Any]] = {
    "flexiact-no-schedule": {"schedule": None},
    "flexiact-no-refadapter": {"refadapter": None, "refadapter_weight": None},
    "flexiact-no-crops": {"crops": 1, "crop_min_scale": 1.0},
    "flexiact-no-debias": {"debias_weight": 0.0},
    "base-embedding": {"schedule": None, "refadapter": None, "refadapter_weight": None},
}


def test_every_ablation_is_here():
    variants = {name for name in METHODS if name.startswith("flexiact-")} - {"flexiact-principled"}
    assert set(DIFFERENCES) == variants | {"base-embedding"}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_ablation_changes_what_it_says(name: str):
    backbone = load_backbone("puppets", "cpu")
    whole, part = (METHODS[entry].build(backbone) for entry in ("flexiact", name))
    settings = [method.fit_config() | method.transfer_config() for method in (whole, part)]
    assert {key: value for key, value in settings[1].items() if value != settings[0][key]} == DIFFERENCES[name]
    assert (part.fit_config() == whole.fit_config()) == (name not in ("flexiact-no-crops", "flexiact-no-debias"))


def test_the_principled_settings_are_the_papers_by_what_they_mean():
    backbone = load_backbone("puppets", "cpu")
    method = METHODS["flexiact-principled"].build(backbone)
    schedule, tokens = method.config.transfer.schedule, method.config.fit.embedding_tokens
    abars = backbone.scheduler.alphas_cumprod
    for timestep, ratio in zip((schedule.low, schedule.high), PAPER_RATIOS, strict=True):
        assert signal_to_noise(abars, timestep) == pytest.approx(ratio, rel=0.02)
    assert (schedule.alpha, schedule.shape, method.config.transfer.refadapter_weight) == (1.0, "cosine", 0.7)
    shares = [attention_share(backbone, count, 0.0) for count in (tokens - 1, tokens, tokens + 1)]
    assert shares[0] < PAPER_SHARE < shares[2] and abs(shares[1] - PAPER_SHARE) < 0.003


def test_on_the_papers_own_noise_schedule_the_thresholds_are_the_papers():
    cogvideox_5b = CogVideoXDDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", snr_shift_scale=1.0,
        rescale_betas_zero_snr=True, prediction_type="v_prediction",
    )  # fmt: skip
    assert [timestep_of(cogvideox_5b.alphas_cumprod, ratio) for ratio in PAPER_RATIOS] == [700, 800]


def test_a_backbone_without_a_preset_gets_thresholds_by_noise():
    backbone = replace(load_backbone("puppets", "cpu"), name="another")
    named, unnamed = preset(load_backbone("puppets", "cpu")), preset(backbone)
    assert unnamed.transfer.schedule == matched_schedule(backbone, named.transfer.schedule)
    assert unnamed.transfer.schedule.low < 700 and unnamed.transfer.schedule.alpha == named.transfer.schedule.alpha
    assert unnamed.fit == named.fit
