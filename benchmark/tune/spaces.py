"""What may be tuned of each method: a handful of values a setting, and how a method is built from one of each."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import ActionTransfer

_FIT = {"learning_rate": (3e-3, 1e-2, 3e-2)}
_GUIDANCE = {"guidance_scale": (1.0, 2.0, 3.0, 4.5)}
_BLOCKS = {"block": tuple(range(8))}
# The puppets' noise schedule is shifted: the paper's thresholds, those of the same signal-to-noise ratios here, and
# ones as far on the other side.
_SCHEDULE = {"alpha": (0.5, 1.0, 2.0), "thresholds": ((700, 800), (570, 705), (850, 950))}


@dataclass(frozen=True)
class Space:
    """What may be tuned of a method: `build` makes it from a backbone and one value for each name in `values`."""

    build: "Callable[[Backbone, Mapping[str, Any]], ActionTransfer]"
    values: Mapping[str, tuple[Any, ...]]

    def trials(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Up to `count` different settings in a random order, fewer only where the space holds fewer.

        Of one seed, fewer trials are the first of more.
        """
        every = [dict(zip(self.values, row, strict=True)) for row in itertools.product(*self.values.values())]
        random.Random(seed).shuffle(every)
        return every[:count]


def _flexiact(backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
    from flexiact.embedding import FrequencySchedule
    from flexiact.method import FlexiAct, preset

    config = preset(backbone)
    fit = replace(config.fit, learning_rate=settings.get("learning_rate", config.fit.learning_rate))
    schedule = None
    if "alpha" in settings:
        low, high = settings["thresholds"]
        schedule = FrequencySchedule(settings["alpha"], low, high)
    transfer = replace(
        config.transfer,
        schedule=schedule,
        refadapter_weight=settings.get("refadapter_weight"),
        guidance_scale=settings["guidance_scale"],
    )
    return FlexiAct(backbone, replace(config, fit=fit, transfer=transfer))


def _i2v(backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
    from baselines.i2v import ImageToVideo

    return ImageToVideo(backbone, guidance_scale=settings["guidance_scale"])


def _baseline(module: str, name: str, **fixed: Any) -> "Callable[[Backbone, Mapping[str, Any]], ActionTransfer]":
    """Changes to a baseline's preset, the same `fixed` in all; Adam's two rates go together as `learning_rates`."""

    def build(backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
        source = import_module(f"baselines.{module}")
        changes = fixed | dict(settings)
        if "learning_rates" in changes:
            changes["learning_rate"], changes["final_learning_rate"] = changes.pop("learning_rates")
        method: ActionTransfer = getattr(source, name)(backbone, replace(source.preset(backbone), **changes))
        return method

    return build


SPACES: dict[str, Space] = {
    # The Base's fit, tuned there, and what FlexiAct adds to it at transfer.
    "flexiact": Space(_flexiact, {**_GUIDANCE, **_SCHEDULE, "refadapter_weight": (0.4, 0.7, 1.0)}),
    "base-embedding": Space(_flexiact, {**_FIT, **_GUIDANCE}),
    "i2v": Space(_i2v, {"guidance_scale": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)}),
    "motion_director": Space(
        _baseline("motion_director", "MotionDirector"),
        {"learning_rate": (5e-4, 1e-3, 2e-3), "temporal_weight": (0.7, 1.0, 1.3), **_GUIDANCE},
    ),
    "motion_inversion": Space(
        _baseline("motion_inversion", "MotionInversion"), {"learning_rate": (1e-2, 2e-2, 5e-2), **_GUIDANCE}
    ),
    "ditflow": Space(
        _baseline("ditflow", "DiTFlow", block=None),
        {"learning_rates": ((0.005, 0.0025), (0.02, 0.01), (0.05, 0.025)), "guided_share": (0.2, 0.4), **_GUIDANCE},
    ),
    "smm": Space(
        _baseline("smm", "SpatialMarginalMean", block=None, guided_share=0.4),
        {"learning_rates": ((0.007, 0.004), (0.02, 0.01), (0.05, 0.025)), "low_pass": (1, 2, 4), **_GUIDANCE},
    ),
    "motion_clone": Space(
        _baseline("motion_clone", "MotionClone", block=None),
        {"guidance_weight": (500.0, 1000.0, 2000.0, 4000.0), "reference_timestep": (400, 600, 800), **_GUIDANCE},
    ),
    # First how guidance and frames with a fit on each axis; then which fit, MimicMotion's among them.
    "pose_guided": Space(
        _baseline("pose_guided", "PoseGuided", fit="axes", points="all"), {"anchor": ("first", "all"), **_GUIDANCE}
    ),
    "pose_guided-fit": Space(
        _baseline("pose_guided", "PoseGuided", guidance_scale=2.0),
        {"anchor": ("first", "all"), "fit": ("vertical", "uniform", "axes"), "points": ("trunk", "all")},
    ),
    # Tuned above in the middle block, as published; then every block of the puppets' transformer, all else as then:
    # `benchmark.guiding` shows how much hangs on it.
    "ditflow-block": Space(_baseline("ditflow", "DiTFlow", guided_share=0.4, guidance_scale=3.0), _BLOCKS),
    "smm-block": Space(_baseline("smm", "SpatialMarginalMean", guided_share=0.4, low_pass=2), _BLOCKS),
    "motion_clone-block": Space(_baseline("motion_clone", "MotionClone", reference_timestep=400), _BLOCKS),
    # Rates and weights beyond the edge where the best of the first trials lay.
    "motion_director-rate": Space(
        _baseline("motion_director", "MotionDirector"),
        {"learning_rate": (2.5e-4, 5e-4), "temporal_weight": (1.3, 1.6), "guidance_scale": (2.0, 3.0)},
    ),
    "motion_inversion-rate": Space(
        _baseline("motion_inversion", "MotionInversion"), {"learning_rate": (3e-3, 5e-3), **_GUIDANCE}
    ),
    # Like FlexiAct's thresholds: the published share of steps and timestep, and longer or earlier ones, since at equal
    # timesteps there is less signal here.
    "ditflow-schedule": Space(
        _baseline("ditflow", "DiTFlow", block=4),
        {"guided_share": (0.4, 0.55), "learning_rates": ((0.005, 0.0025), (0.01, 0.005), (0.02, 0.01)), **_GUIDANCE},
    ),
    "ditflow-share": Space(
        _baseline("ditflow", "DiTFlow", block=4),
        {"guided_share": (0.2, 0.3), "learning_rates": ((0.02, 0.01), (0.05, 0.025)), **_GUIDANCE},
    ),
    "smm-schedule": Space(
        _baseline("smm", "SpatialMarginalMean", block=7),
        {"guided_share": (0.4, 0.55, 0.7), "learning_rates": ((0.02, 0.01), (0.05, 0.025)), "low_pass": (1, 2, 4)},
    ),
    "motion_clone-schedule": Space(
        _baseline("motion_clone", "MotionClone", block=5),
        {
            "guided_share": (0.4, 0.55),
            "reference_timestep": (280, 400),
            "guidance_weight": (4000.0, 8000.0, 16000.0),
            "gradient_steps": (2, 4),
        },
    ),
}
