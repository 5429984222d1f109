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

_RATES = {"learning_rate": (1e-2, 3e-2, 1e-1)}
_GUIDANCE = {"guidance_scale": (1.0, 2.0, 3.0, 4.5)}
# The papers guide by the middle block. Here later blocks may know the action better (`benchmark.guiding`).
_BLOCKS = {"block": (3, 4, 5, 7)}
# Timesteps and shares of steps are the papers', and longer or earlier ones, since the puppets' noise schedule is
# shifted: the signal at equal timesteps is weaker. The second thresholds have the paper's signal-to-noise ratios here.
_SCHEDULE = {"alpha": (0.5, 1.0, 2.0), "thresholds": ((700, 800), (570, 705), (850, 950))}
_SHARE = {"guided_share": (0.2, 0.4, 0.55)}
# Settings that did well on earlier worlds. In spaces this large twelve draws seldom come near them.
_SMM_BEFORE = {
    "learning_rates": (0.05, 0.025), "low_pass": 2, "block": 7, "guided_share": 0.55, "guidance_scale": 3.0
}  # fmt: skip
_MOTION_CLONE_BEFORE = {
    "guidance_weight": 4000.0, "reference_timestep": 280, "block": 5, "guided_share": 0.4, "guidance_scale": 1.0
}  # fmt: skip


@dataclass(frozen=True)
class Space:
    """Search space of a method.

    Attributes:
        path: Class of the method, in the form that `benchmark.planning.methods.build` reads.
        values: Values that each setting may have.
        fixed: Other changes to the preset, equal in all trials.
        also: Settings that are tried beside the drawn ones, whatever the number of trials.
    """

    path: str
    values: Mapping[str, tuple[Any, ...]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Mapping[str, Any], ...] = ()

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
        """Up to `count` settings in a random order, all of them if the space holds fewer; then those of `also`.

        With the same seed, a smaller count gives the first settings of a larger one.
        """
        every = [dict(zip(self.values, row, strict=True)) for row in itertools.product(*self.values.values())]
        random.Random(seed).shuffle(every)
        return [*every[:count], *(dict(settings) for settings in self.also if dict(settings) not in every[:count])]


SPACES: dict[str, Space] = {
    # FlexiAct and its Base are fitted alike, so their trials share fits.
    "flexiact": Space(FLEXIACT, {**_RATES, **_GUIDANCE, **_SCHEDULE, "refadapter_weight": (0.4, 0.7, 1.0)}),
    "base-embedding": Space(FLEXIACT, {**_RATES, **_GUIDANCE}, {"schedule": None, "refadapter_weight": None}),
    "motion_director": Space(
        MOTION_DIRECTOR,
        {"learning_rate": (1.25e-4, 2.5e-4, 5e-4), "temporal_weight": (1.0, 1.3, 1.6), **_GUIDANCE},
    ),
    "motion_inversion": Space(MOTION_INVERSION, {"learning_rate": (5e-3, 1e-2, 2e-2), **_GUIDANCE}),
    "ditflow": Space(
        DITFLOW,
        {"learning_rates": ((0.002, 0.001), (0.005, 0.0025), (0.02, 0.01)), **_BLOCKS, **_SHARE, **_GUIDANCE},
    ),
    "smm": Space(
        SMM,
        {
            "learning_rates": ((0.007, 0.004), (0.02, 0.01), (0.05, 0.025)),
            "low_pass": (2, 4),  # with 1 all seeds give the same video
            **_BLOCKS,
            **_SHARE,
            **_GUIDANCE,
        },
        also=(_SMM_BEFORE,),
    ),
    "motion_clone": Space(
        MOTION_CLONE,
        {
            "guidance_weight": (500.0, 2000.0, 4000.0, 8000.0),
            "reference_timestep": (280, 400, 600),
            **_BLOCKS,
            **_SHARE,
            **_GUIDANCE,
        },
        also=(_MOTION_CLONE_BEFORE,),
    ),
    "pose_guided": Space(
        POSE_GUIDED,
        {
            "anchor": ("first", "all"),
            "fit": ("vertical", "uniform", "size"),  # MimicMotion's is the first
            "points": ("trunk", "all"),
            **_GUIDANCE,
        },
    ),
    "i2v": Space(I2V, {"guidance_scale": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)}),
}
