"""The methods that compete. One line each; variants and ablations are entries with another configuration.

Reading the table loads nothing: a method's module is imported when the method is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.method import FlexiActConfig
    from flexiact.task import ActionTransfer


@dataclass(frozen=True)
class MethodEntry:
    """One line of the leaderboard.

    Attributes:
        build: makes the method for a backbone, with the settings meant for that backbone.
        summary: one line for people.
        extra_supervision: what it was trained on beyond the backbone and the one reference; "none" when nothing.
        needs: weights beside the backbone's own, as `Backbone` names them: "refadapter", "control".
    """

    build: Callable[[Backbone], ActionTransfer]
    summary: str
    extra_supervision: str = "none"
    needs: tuple[str, ...] = ()


Build = Callable[["Backbone"], "ActionTransfer"]


def _class(module: str, name: str) -> Build:
    """Builds a class of a module from nothing but the backbone."""

    def build(backbone: Backbone) -> ActionTransfer:
        method: ActionTransfer = getattr(import_module(module), name)(backbone)
        return method

    return build


def _flexiact(change: Callable[[FlexiActConfig], FlexiActConfig]) -> Build:
    """Builds FlexiAct with a change to the configuration meant for the backbone."""

    def build(backbone: Backbone) -> ActionTransfer:
        from flexiact.method import FlexiAct, preset

        return FlexiAct(backbone, change(preset(backbone)))

    return build


def _principled(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, principled

    return FlexiAct(backbone, principled(backbone))


def _baseline(module: str, name: str, changes: Mapping[str, Any]) -> Build:
    """Builds a class of a module with changes to the configuration that the module means for the backbone."""

    def build(backbone: Backbone) -> ActionTransfer:
        source = import_module(module)
        method: ActionTransfer = getattr(source, name)(backbone, replace(source.preset(backbone), **changes))
        return method

    return build


def _with_refadapter(module: str, name: str) -> Build:
    """Builds a class of a module with RefAdapter at FlexiAct's weight on the backbone, tuned where that is tuned."""

    def build(backbone: Backbone) -> ActionTransfer:
        from flexiact.method import preset

        weight = preset(backbone).transfer.refadapter_weight
        return _baseline(module, name, {"refadapter_weight": weight})(backbone)

    return build


_REFADAPTER_DATA = "RefAdapter, trained on untrimmed clips of the training world"
_CONTROL_DATA = "control weights, trained on clips of the training world with their true keypoints"

METHODS: dict[str, MethodEntry] = {
    "flexiact": MethodEntry(
        _class("flexiact.method", "FlexiAct"),
        "frequency-aware embedding, schedule and RefAdapter",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "flexiact-no-schedule": MethodEntry(
        _flexiact(lambda config: config.without_schedule()),
        "FlexiAct with the embedding's bias 0 at every step",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "flexiact-no-refadapter": MethodEntry(
        _flexiact(lambda config: config.without_refadapter()), "FlexiAct without RefAdapter"
    ),
    "flexiact-no-crops": MethodEntry(
        _flexiact(lambda config: config.without_crops()),
        "FlexiAct fitted to whole frames of the reference instead of random crops",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "flexiact-no-debias": MethodEntry(
        _flexiact(lambda config: config.without_debias()),
        "FlexiAct fitted without the loss on changes between frames, which the paper lacks and the released code has",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "flexiact-principled": MethodEntry(
        _principled,
        "FlexiAct with the paper's settings by what they mean: thresholds by noise, tokens by share of attention",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "base-embedding": MethodEntry(
        _flexiact(lambda config: config.base_embedding()),
        "the paper's Base: the embedding, neither schedule nor RefAdapter",
    ),
    "motion_director": MethodEntry(
        _class("baselines.motion_director", "MotionDirector"), "MotionDirector (MD-I2V): spatial and temporal LoRA"
    ),
    "motion_director+refadapter": MethodEntry(
        _with_refadapter("baselines.motion_director", "MotionDirector"),
        "MotionDirector (MD-I2V) with RefAdapter at FlexiAct's weight",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "motion_inversion": MethodEntry(
        _class("baselines.motion_inversion", "MotionInversion"), "Motion Inversion: embeddings added to features"
    ),
    "motion_inversion-no-debias": MethodEntry(
        _baseline("baselines.motion_inversion", "MotionInversion", {"debias": False}),
        "Motion Inversion without frame differences of the value embedding",
    ),
    "motion_inversion+refadapter": MethodEntry(
        _with_refadapter("baselines.motion_inversion", "MotionInversion"),
        "Motion Inversion with RefAdapter at FlexiAct's weight",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "ditflow": MethodEntry(
        _class("baselines.ditflow", "DiTFlow"), "DiTFlow: guidance by the displacements attention implies; no training"
    ),
    "ditflow+refadapter": MethodEntry(
        _with_refadapter("baselines.ditflow", "DiTFlow"),
        "DiTFlow with RefAdapter at FlexiAct's weight",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "smm": MethodEntry(
        _class("baselines.smm", "SpatialMarginalMean"),
        "SMM (DMT): guidance by changes of spatially averaged features; no training",
    ),
    "smm+refadapter": MethodEntry(
        _with_refadapter("baselines.smm", "SpatialMarginalMean"),
        "SMM (DMT) with RefAdapter at FlexiAct's weight",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "motion_clone": MethodEntry(
        _class("baselines.motion_clone", "MotionClone"),
        "MotionClone: guidance by the strongest attention over time; no training",
    ),
    "motion_clone+refadapter": MethodEntry(
        _with_refadapter("baselines.motion_clone", "MotionClone"),
        "MotionClone with RefAdapter at FlexiAct's weight",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "pose_guided": MethodEntry(
        _class("baselines.pose_guided", "PoseGuided"),
        "pose guidance: the reference's skeleton, fitted to the target, as a control video",
        f"{_CONTROL_DATA}; a pose estimator, trained on single frames of that world",
        ("control",),
    ),
    "pose_guided-true": MethodEntry(
        _class("benchmark.bounds.true_poses", "TruePoseGuided"),
        "pose guidance with true keypoints in place of estimated ones: what is left is the method's own error",
        f"{_CONTROL_DATA}; the true keypoints of the reference and of the target image",
        ("control",),
    ),
    "i2v": MethodEntry(_class("baselines.i2v", "ImageToVideo"), "backbone and prompt only; never sees the reference"),
}
