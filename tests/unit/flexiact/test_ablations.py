"""An ablation of FlexiAct differs from it in what its name says, and in nothing else."""

from typing import Any

import pytest

from benchmark.methods import METHODS
from flexiact.backbone.backbone import load_backbone

DIFFERENCES: dict[str, dict[str, Any]] = {
    "flexiact-no-schedule": {"schedule": None},
    "flexiact-no-refadapter": {"refadapter": None, "refadapter_weight": None},
    "flexiact-no-crops": {"crops": 1, "crop_min_scale": 1.0},
    "flexiact-no-debias": {"debias_weight": 0.0},
    "base-embedding": {"schedule": None, "refadapter": None, "refadapter_weight": None},
}


def test_every_ablation_is_here():
    assert set(DIFFERENCES) == {name for name in METHODS if name.startswith("flexiact-") or name == "base-embedding"}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_ablation_changes_what_it_says(name: str):
    backbone = load_backbone("puppets", "cpu")
    whole, part = (METHODS[entry].build(backbone) for entry in ("flexiact", name))
    settings = [method.fit_config() | method.transfer_config() for method in (whole, part)]
    assert {key: value for key, value in settings[1].items() if value != settings[0][key]} == DIFFERENCES[name]
    assert (part.fit_config() == whole.fit_config()) == (name not in ("flexiact-no-crops", "flexiact-no-debias"))
