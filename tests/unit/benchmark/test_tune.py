"""Tuning: equal trials, a log that keeps everything, and nothing measured twice."""

import csv
import json
import math
from dataclasses import replace

import pytest

from benchmark.planning.methods import METHODS
from benchmark.publish.products import PUBLISHED
from benchmark.suites.puppets import load_case, load_suite
from benchmark.tune import trials as tune
from flexiact.backbone.backbone import load_backbone


def test_every_method_gets_the_same_number_of_different_trials():
    for name, space in tune.SPACES.items():
        settings = [str(sorted(s.items())) for s in space.trials(0, tune.TRIALS)]
        held = math.prod(len(values) for values in space.values.values())
        assert len(set(settings)) == len(settings) == min(tune.TRIALS, held) + len(space.also), name


def test_trials_are_drawn_by_the_seed():
    space = tune.SPACES["flexiact"]
    assert space.trials(3, 8) == space.trials(3, 8) != space.trials(4, 8)
    assert space.trials(3, 4) == space.trials(3, 8)[:4]


def test_every_method_with_settings_of_its_own_has_one_space():
    variants = ("-no-", "-true", "-principled", "-animate", "+refadapter")
    assert set(tune.SPACES) == {name for name in METHODS if not any(part in name for part in variants)}


def test_todays_settings_are_the_best_of_the_published_trials():
    backbone = load_backbone("puppets", "cpu")
    best = tune.winners(PUBLISHED / "tuning" / "world-3.csv", backbone.revision)
    assert set(best) == set(tune.SPACES)
    for name, row in best.items():
        entry, winner = METHODS[name].build(backbone), tune.SPACES[name].build(backbone, json.loads(row["settings"]))
        assert entry.fit_config() == winner.fit_config(), name
        assert entry.transfer_config() == winner.transfer_config(), name


def test_a_trial_makes_one_video_of_every_reference():
    suite = load_suite("puppets-dev")
    cases = [load_case(suite, case_id) for case_id in suite.case_ids]
    chosen = tune.one_a_reference(cases)
    assert {case.reference_id for case in chosen.values()} == {case.reference_id for case in cases}
    assert len(chosen) == len(cases) / 2
    assert {list(suite.case_ids).index(name) % 2 for name in chosen} == {0, 1}  # first and second targets


def test_every_trial_builds_its_method():
    backbone = load_backbone("puppets", "cpu")
    for name, space in tune.SPACES.items():
        for settings in space.trials(0, tune.TRIALS):
            method = space.build(backbone, settings)
            told = method.fit_config() | method.transfer_config()
            assert {setting: _told(told, setting) for setting in settings} == settings, name


def _told(told: dict, setting: str) -> object:
    """What a method says of a setting of its space."""
    if setting == "learning_rates":
        return told["learning_rate"], told["final_learning_rate"]
    if setting == "thresholds":
        return told["schedule"]["low"], told["schedule"]["high"]
    return told["schedule"]["alpha"] if setting == "alpha" else told[setting]


def test_a_second_start_measures_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "SUITE", "puppets-smoke")
    space = replace(tune.SPACES["i2v"], values={"guidance_scale": (1.0, 2.0)})
    monkeypatch.setattr(tune, "SPACES", {"i2v": space})
    planned = list(tune.trials(["i2v"], 0, 2))
    backbone = replace(load_backbone("puppets", "cpu"), num_inference_steps=2)
    log = tmp_path / "log" / "trials.csv"
    tune.tune(backbone, planned, log)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(-1 <= float(r[tune.HEADLINE]) <= 1 for r in rows)
    monkeypatch.setattr(tune, "measure", lambda *_: pytest.fail("measured again"))
    tune.tune(backbone, planned, log)
    assert len(log.read_text().splitlines()) == 3


def test_the_summary_names_the_best_trial_and_how_loud_the_embedding_is(tmp_path):
    backbone, log = load_backbone("puppets", "cpu"), tmp_path / "trials.csv"
    settings = '{"alpha": 2.0, "thresholds": [700, 800]}'
    rows = [(0, 0.1, backbone.revision, 5.0), (1, 0.3, backbone.revision, 5.0), (2, 0.9, "another", 5.0)]
    rows += [(3, 0.304, backbone.revision, 6.0), (4, 0.298, backbone.revision, 4.0)]  # as good, and looks worse; worse
    with log.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(tune.COLUMNS)
        for number, score, revision, error in rows:
            writer.writerow(["flexiact", number, settings, score, error, tune.SUITE, revision, f"k{number}"])
    assert tune.winners(log, backbone.revision)["flexiact"]["trial"] == "1"
    text = tune.summary(backbone, log)
    assert "| flexiact | 4 | alpha 2.0, thresholds [700, 800] | 0.3 | 5.0 |" in text
    assert "| 800 | " in text and "| 2.00 | " in text
