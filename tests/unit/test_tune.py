"""Tuning: equal trials, a log that keeps everything, and nothing measured twice."""

import csv
from dataclasses import replace

import pytest

from benchmark import tune
from flexiact.backbone import load_backbone


@pytest.mark.parametrize("name", tune.SPACES)
def test_every_method_gets_the_same_number_of_different_trials(name):
    settings = [str(sorted(s.items())) for s in tune.SPACES[name].trials(0)]
    assert len(set(settings)) == len(settings) == tune.TRIALS


def test_trials_are_drawn_by_the_seed():
    space = tune.SPACES["flexiact"]
    assert space.trials(3) == space.trials(3) != space.trials(4)


@pytest.mark.parametrize("name", tune.SPACES)
def test_every_trial_builds_its_method(name):
    backbone = load_backbone("puppets", "cpu")
    for settings in tune.SPACES[name].trials(0):
        method = tune.SPACES[name].build(backbone, settings)
        assert method.transfer_config()["guidance_scale"] == settings["guidance_scale"]


def test_a_second_start_measures_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "SUITE", "puppets-smoke")
    monkeypatch.setattr(tune, "TRIALS", 2)
    space = replace(tune.SPACES["i2v"], values={"guidance_scale": (1.0, 2.0), "num_inference_steps": (2,)})
    monkeypatch.setattr(tune, "SPACES", {"i2v": space})
    backbone, log = load_backbone("puppets", "cpu"), tmp_path / "log" / "trials.csv"
    tune.tune(backbone, ["i2v"], 0, log)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(-1 <= float(r["motion_agreement"]) <= 1 for r in rows)
    monkeypatch.setattr(tune, "measure", lambda *_: pytest.fail("measured again"))
    tune.tune(backbone, ["i2v"], 0, log)
    assert len(log.read_text().splitlines()) == 3
