"""What a result is called hangs on what it is made of, never on where the code stands."""

from typing import Any

import pytest

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.methods import METHODS
from benchmark.planning.plan import plan
from benchmark.stages.describe import describe_metric, describe_run
from benchmark.tune.trials import trial_key
from flexiact.backbone.backbone import Backbone
from flexiact.fits import fit_description
from flexiact.task import ActionTransfer
from metrics import METRICS
from tests.support.harness import CASES, small_perception
from tests.support.tiny_methods import CAPTION, REFERENCES, new_backbone, patch_tiny

SMALL = {"suite": "small", "suite_version": None, "suite_digest": None}


def identities(backbone: Backbone, methods: dict[str, ActionTransfer]) -> dict[str, Any]:
    """Everything by which a result, a fit or a trial is found again."""
    metrics = {name: describe_metric(name, small_perception().backends, "motion_agreement") for name in METRICS}
    run = describe_run(SMALL, CASES, (0, 1), backbone, methods, metrics)
    return {
        "run": run,
        "cells": plan(run),
        "trials": {name: trial_key(method, backbone, CASES) for name, method in methods.items()},
        "fit of the command": fit_description(methods["flexiact"], REFERENCES[0], CAPTION, 0),
    }


def test_a_moved_and_renamed_class_keeps_every_key(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_tiny(monkeypatch)
    backbone = new_backbone(tmp_path)
    methods = {name: entry.build(backbone) for name, entry in METHODS.items()}
    before = identities(backbone, methods)
    for method in methods.values():
        method.__class__ = type("Renamed", (type(method),), {"__module__": "elsewhere"})
    for kind in {type(part) for part in (*METRICS.values(), *BOUNDS.values(), small_perception())}:
        monkeypatch.setattr(kind, "__module__", "elsewhere")
    assert identities(backbone, methods) == before
    assert len({cell.key for cell in before["cells"]}) == len(before["cells"]) > len(METHODS)
