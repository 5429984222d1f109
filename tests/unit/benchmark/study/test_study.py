"""Corruptions get worse with every grade and begin at the truth; every metric is measured on them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.study import corrupted
from benchmark.study.corruptions import CORRUPTIONS, Spoiled, spoiled_video
from benchmark.suites.case import Format
from benchmark.suites.puppets import load_suite
from metrics import METRICS


@pytest.fixture(scope="module")
def spoiled() -> Spoiled:
    """Hug: its limbs move differently, so that exchanging them shows."""
    suite = load_suite("puppets")
    case = next(case for case in suite.chosen(suite.case_ids) if case.action == "hug")
    return Spoiled(case, case.show(Format(9, 64, 64, 8.0)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_begins_at_the_truth_and_gets_worse(name: str, spoiled: Spoiled):
    truth, moved = spoiled.answer, []
    for grade in (0.0, *corrupted.GRADES):
        video = spoiled_video(name, spoiled, grade, torch.Generator().manual_seed(1))
        assert video.frames.shape == truth.shape and video.fps == 8.0
        moved.append(np.abs(video.frames.astype(int) - truth).mean())
    assert moved[0] == 0
    assert all(later > earlier for earlier, later in zip(moved, moved[1:], strict=False)), moved


def test_the_largest_seed_makes_videos():
    cases = dict([next(iter(load_suite("puppets-smoke").first_cases().items()))])
    assert len(list(corrupted.videos(cases, ["frozen"], 2**63 - 1))) == 5


def test_every_metric_is_measured_on_every_corrupted_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corrupted, "GRADES", (1.0,))
    monkeypatch.setattr(corrupted, "CORRUPTIONS", {name: CORRUPTIONS[name] for name in ("frozen", "other-skin")})
    values = corrupted.measured(load_suite("puppets-smoke"), tmp_path)
    assert list(values["corruption"].unique()) == [corrupted.TRUE_ANSWER, "frozen", "other-skin"]
    assert values["case_id"].nunique() == 1  # one case a reference
    wide = values.pivot(index="metric", columns="corruption", values="value")
    assert list(values["metric"].unique()) == list(METRICS)
    assert wide.loc["motion_agreement_centred", "frozen"] == pytest.approx(0, abs=0.1)
    assert wide.loc["motion_agreement_centred", "none"] > 0.9
    assert wide.loc["true_appearance_error", "other-skin"] > 5 * wide.loc["true_appearance_error", "none"]
