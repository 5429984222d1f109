"""A long fit that is stopped goes on from its checkpoint and learns exactly what an unbroken one learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.motion_director import MotionDirector
from baselines.motion_inversion import MotionInversion
from flexiact import training
from flexiact.backbone.backbone import Backbone
from flexiact.method import FlexiAct
from flexiact.resuming import resumable
from flexiact.task import ActionTransfer, Video

STEPS = 4
METHODS: dict[str, Callable[[Backbone], Any]] = {
    "flexiact": lambda backbone: FlexiAct(backbone, changed(FlexiAct, backbone, fit_steps=STEPS)),
    "motion_inversion": lambda backbone: MotionInversion(backbone, changed(MotionInversion, backbone, fit_steps=STEPS)),
    "motion_director": lambda backbone: MotionDirector(
        backbone, changed(MotionDirector, backbone, temporal_steps=STEPS, spatial_steps=STEPS)
    ),
}


def changed(kind: Callable[[Backbone], Any], backbone: Backbone, **settings: int) -> Any:
    return kind(backbone).config.changed(**settings)


class Stopped(Exception):
    """Stands for a signal."""


def fit_and_stop(method: ActionTransfer, reference: Video, after: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Fit, but stop in the step that follows `after` steps; return the number of steps taken."""
    taken, take_step = 0, training.take_step

    def counted(*arguments: object) -> None:
        nonlocal taken
        if taken == after:
            raise Stopped
        taken += 1
        take_step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "take_step", counted)
        try:
            method.fit(reference, "a dog jumps", seed=3)
        except Stopped:
            pass
    return taken


@pytest.mark.parametrize("stop", [1, 3, 6])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_fit_ends_like_an_unbroken_one(
    name: str, stop: int, backbone: Backbone, reference: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = METHODS[name](backbone)
    whole = method.fit(reference, "a dog jumps", seed=3)
    with resumable(tmp_path / "fit", every_s=0):
        done = fit_and_stop(method, reference, stop, monkeypatch)
    with resumable(tmp_path / "fit", every_s=0) as kept:
        torch.randn(5)  # other use of the global generator changes nothing
        left = fit_and_stop(method, reference, 100, monkeypatch)
    total = 2 * STEPS if name == "motion_director" else STEPS
    assert (done, left) == (min(stop, total), total - min(stop, total))
    with resumable(tmp_path / "fit", every_s=0):
        again = method.fit(reference, "a dog jumps", seed=3)  # all steps are stored: none is taken again
    assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)
    assert kept.earlier_s > 0
    kept.discard()
    assert not (tmp_path / "fit").exists()


def test_a_short_fit_stores_nothing(backbone: Backbone, reference: Video, tmp_path: Path) -> None:
    with resumable(tmp_path / "fit"):
        METHODS["flexiact"](backbone).fit(reference, "a dog jumps", seed=3)
    assert not (tmp_path / "fit").exists()


def test_a_fit_that_goes_wrong_is_tried_again_from_where_it_was_sound(tmp_path: Path) -> None:
    plan = training.Optimisation(steps=4, learning_rate=0.1)
    weight, taken = torch.nn.Parameter(torch.ones(2)), []

    def loss_of(factor: float) -> torch.Tensor:
        taken.append(factor)
        return factor * weight.square().sum()

    for factors in ([1.0, 1.0, float("nan"), 1.0], [1.0] * 4):
        weight.data.fill_(1)
        with resumable(tmp_path, every_s=0):
            try:
                training.optimise([weight], factors, loss_of, plan, generator=torch.Generator())
            except ValueError as error:
                assert "not finite" in str(error)
    assert len(taken) == 4 + 2 and torch.isfinite(weight).all()


def test_a_damaged_checkpoint_is_not_used(
    backbone: Backbone, reference: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = METHODS["flexiact"](backbone)
    with resumable(tmp_path / "fit", every_s=0):
        fit_and_stop(method, reference, 2, monkeypatch)
    file = tmp_path / "fit/0.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with resumable(tmp_path / "fit", every_s=0):
        assert fit_and_stop(method, reference, 100, monkeypatch) == STEPS
