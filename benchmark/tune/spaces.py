"""Search spaces of the methods: a handful of values per setting, and the method built from one value of each."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.planning.methods import (
    DITFLOW,
    FLEXIACT,
    I2V,
    MOTION_CLONE,
    MOTION_DIRECTOR,
    MOTION_INVERSION,
    POSE_GUIDED,
    SMM,
    build,
)

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import ActionTransfer

_FIT = {"learning_rate": (3e-3, 1e-2, 3e-2)}
_GUIDANCE = {"guidance_scale": (1.0, 2.0, 3.0, 4.5)}
_BLOCKS = {"block": tuple(range(8))}
# The puppets' noise schedule is shifted. The thresholds are the paper's, those with the paper's signal-to-noise ratios
# on this schedule, and some at the same distance on the other side.
_SCHEDULE = {"alpha": (0.5, 1.0, 2.0), "thresholds": ((700, 800), (570, 705), (850, 950))}


@dataclass(frozen=True)
class Space:
    """Search space of a method.

    Attributes:
        path: Class of the method, in the form that `benchmark.planning.methods.build` reads.
        values: Values that each setting may have.
        fixed: Other changes to the preset, equal in all trials.
    """

    path: str
    values: Mapping[str, tuple[Any, ...]]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def build(self, backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
        """Build the method of one trial.

        Settings that make sense only together have one name in a space: `learning_rates` are Adam's two; `alpha` and
        `thresholds` are a schedule.
        """
        changes = {**self.fixed, **settings}
        if "learning_rates" in changes:
            changes["learning_rate"], changes["final_learning_rate"] = changes.pop("learning_rates")
        if "thresholds" in changes:
            from flexiact.embedding import FrequencySchedule

            changes["schedule"] = FrequencySchedule(changes.pop("alpha"), *changes.pop("thresholds"))
        return build(self.path, backbone, **changes)

    def trials(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Up to `count` different settings in a random order; fewer only if the space holds fewer.

        With the same seed, a smaller count gives the first settings of a larger one.
        """
        every = [dict(zip(self.values, row, strict=True)) for row in itertools.product(*self.values.values())]
        random.Random(seed).shuffle(every)
        return every[:count]


SPACES: dict[str, Space] = {
    # The fit is the tuned one of the Base; the space varies what FlexiAct adds at transfer.
    "flexiact": Space(FLEXIACT, {**_GUIDANCE, **_SCHEDULE, "refadapter_weight": (0.4, 0.7, 1.0)}),
    "base-embedding": Space(FLEXIACT, {**_FIT, **_GUIDANCE}, {"schedule": None, "refadapter_weight": None}),
    "i2v": Space(I2V, {"guidance_scale": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)}),
    "motion_director": Space(
        MOTION_DIRECTOR, {"learning_rate": (5e-4, 1e-3, 2e-3), "temporal_weight": (0.7, 1.0, 1.3), **_GUIDANCE}
    ),
    "motion_inversion": Space(MOTION_INVERSION, {"learning_rate": (1e-2, 2e-2, 5e-2), **_GUIDANCE}),
    "ditflow": Space(
        DITFLOW,
        {"learning_rates": ((0.005, 0.0025), (0.02, 0.01), (0.05, 0.025)), "guided_share": (0.2, 0.4), **_GUIDANCE},
        {"block": None},
    ),
    "smm": Space(
        SMM,
        {"learning_rates": ((0.007, 0.004), (0.02, 0.01), (0.05, 0.025)), "low_pass": (1, 2, 4), **_GUIDANCE},
        {"block": None, "guided_share": 0.4},
    ),
    "motion_clone": Space(
        MOTION_CLONE,
        {"guidance_weight": (500.0, 1000.0, 2000.0, 4000.0), "reference_timestep": (400, 600, 800), **_GUIDANCE},
        {"block": None},
    ),
    # First tune guidance and anchor frames with a per-axis fit, then the kind of fit (MimicMotion's included).
    "pose_guided": Space(POSE_GUIDED, {"anchor": ("first", "all"), **_GUIDANCE}, {"fit": "axes", "points": "all"}),
    "pose_guided-fit": Space(
        POSE_GUIDED,
        {"anchor": ("first", "all"), "fit": ("vertical", "uniform", "axes"), "points": ("trunk", "all")},
        {"guidance_scale": 2.0},
    ),
    # The spaces above use the middle block, as published. These try every block of the puppets' transformer with all
    # other settings fixed; `benchmark.guiding` shows how much depends on the block.
    "ditflow-block": Space(DITFLOW, _BLOCKS, {"guided_share": 0.4, "guidance_scale": 3.0}),
    "smm-block": Space(SMM, _BLOCKS, {"guided_share": 0.4, "low_pass": 2}),
    "motion_clone-block": Space(MOTION_CLONE, _BLOCKS, {"reference_timestep": 400}),
    # Rates and weights beyond the edge on which the best of the first trials lay.
    "motion_director-rate": Space(
        MOTION_DIRECTOR, {"learning_rate": (2.5e-4, 5e-4), "temporal_weight": (1.3, 1.6), "guidance_scale": (2.0, 3.0)}
    ),
    # How far apart the tokens start.
    "base-embedding-start": Space(
        FLEXIACT,
        {"initial_std": (0.03, 0.1, 0.3), "learning_rate": (1e-2, 3e-2), **_GUIDANCE},
        {"schedule": None, "refadapter_weight": None},
    ),
    "motion_inversion-rate": Space(MOTION_INVERSION, {"learning_rate": (3e-3, 5e-3), **_GUIDANCE}),
    # Like FlexiAct's thresholds: the published share of steps and timestep, and longer or earlier ones, since the
    # signal at equal timesteps is weaker here.
    "ditflow-schedule": Space(
        DITFLOW,
        {"guided_share": (0.4, 0.55), "learning_rates": ((0.005, 0.0025), (0.01, 0.005), (0.02, 0.01)), **_GUIDANCE},
        {"block": 4},
    ),
    "ditflow-share": Space(
        DITFLOW,
        {"guided_share": (0.2, 0.3), "learning_rates": ((0.02, 0.01), (0.05, 0.025)), **_GUIDANCE},
        {"block": 4},
    ),
    "smm-schedule": Space(
        SMM,
        {"guided_share": (0.4, 0.55, 0.7), "learning_rates": ((0.02, 0.01), (0.05, 0.025)), "low_pass": (1, 2, 4)},
        {"block": 7},
    ),
    "motion_clone-schedule": Space(
        MOTION_CLONE,
        {
            "guided_share": (0.4, 0.55),
            "reference_timestep": (280, 400),
            "guidance_weight": (4000.0, 8000.0, 16000.0),
            "gradient_steps": (2, 4),
        },
        {"block": 5},
    ),
}
