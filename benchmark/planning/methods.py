"""The methods that compete, one line each. Variants and ablations are entries with another configuration.

Reading the table loads nothing: a method's module is imported when the method is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import ActionTransfer

TRUE_KEYPOINTS = "true keypoints"
"""A need: the harness tells the method the true keypoints of its inputs (`benchmark.suites.truth.ToldKeypoints`)."""

FLEXIACT = "flexiact.method.FlexiAct"
MOTION_DIRECTOR = "baselines.motion_director.MotionDirector"
MOTION_INVERSION = "baselines.motion_inversion.MotionInversion"
DITFLOW = "baselines.ditflow.DiTFlow"
SMM = "baselines.smm.SpatialMarginalMean"
MOTION_CLONE = "baselines.motion_clone.MotionClone"
POSE_GUIDED = "baselines.pose_guided.PoseGuided"
I2V = "baselines.i2v.ImageToVideo"


@dataclass(frozen=True)
class MethodEntry:
    """One line of the leaderboard.

    Attributes:
        build: Function that makes the method for a backbone, with the settings meant for that backbone.
        extra_supervision: Training material beyond the backbone and the one reference; "none" if there is none.
        needs: Requirements: `TRUE_KEYPOINTS`, and weights other than the backbone's own by the names that `Backbone`
            uses ("refadapter", "control").
    """

    build: Callable[[Backbone], ActionTransfer]
    summary: str
    extra_supervision: str = "none"
    needs: tuple[str, ...] = ()


def build(path: str, backbone: Backbone, **changes: Any) -> ActionTransfer:
    """Build the class at a path with the configuration meant for the backbone; `changes` replace single settings."""
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(module), name)
    return kind.from_preset(backbone, **changes) if changes else kind(backbone)


_REFADAPTER_DATA = "RefAdapter, trained on untrimmed clips of the training world"
_CONTROL_DATA = "control weights, trained on clips of the training world with their true keypoints"


def _method(
    path: str, summary: str, *, extra_supervision: str = "none", needs: tuple[str, ...] = (), **changes: Any
) -> MethodEntry:
    """Entry of the class at a path; `changes` replace single settings."""
    return MethodEntry(lambda backbone: build(path, backbone, **changes), summary, extra_supervision, needs)


def _flexiact(summary: str, **changes: Any) -> MethodEntry:
    """Entry of FlexiAct with RefAdapter."""
    return _method(FLEXIACT, summary, extra_supervision=_REFADAPTER_DATA, needs=("refadapter",), **changes)


def _principled(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, principled

    return FlexiAct(backbone, principled(backbone))


def _plus_refadapter(path: str, name: str) -> MethodEntry:
    """Entry of a competitor with its own tuned settings, and RefAdapter at FlexiAct's weight on the backbone."""

    def joined(backbone: Backbone) -> ActionTransfer:
        from flexiact.method import preset

        return build(path, backbone, refadapter_weight=preset(backbone).transfer.refadapter_weight)

    return MethodEntry(joined, f"{name} with RefAdapter at FlexiAct's weight", _REFADAPTER_DATA, ("refadapter",))


METHODS: dict[str, MethodEntry] = {
    "flexiact": _flexiact("frequency-aware embedding, schedule and RefAdapter"),
    "flexiact-no-schedule": _flexiact("FlexiAct with the embedding's bias 0 at every step", schedule=None),
    "flexiact-no-refadapter": _method(FLEXIACT, "FlexiAct without RefAdapter", refadapter_weight=None),
    "flexiact-no-crops": _flexiact(
        "FlexiAct fitted to whole frames of the reference instead of random crops", crops=1, crop_min_scale=1.0
    ),
    "flexiact-no-debias": _flexiact(
        "FlexiAct fitted without the loss on changes between frames, which the paper lacks and the released code has",
        debias_weight=0.0,
    ),
    "flexiact-principled": MethodEntry(
        _principled,
        "FlexiAct with the paper's settings by what they mean: thresholds by noise, tokens by share of attention",
        _REFADAPTER_DATA,
        ("refadapter",),
    ),
    "base-embedding": _method(
        FLEXIACT,
        "the paper's Base: the embedding, neither schedule nor RefAdapter",
        schedule=None,
        refadapter_weight=None,
    ),
    "motion_director": _method(MOTION_DIRECTOR, "MotionDirector (MD-I2V): spatial and temporal LoRA"),
    "motion_director-animate": _method(
        MOTION_DIRECTOR, "MotionDirector as image animation: a spatial LoRA of the target image beside it", animate=True
    ),
    "motion_director+refadapter": _plus_refadapter(MOTION_DIRECTOR, "MotionDirector (MD-I2V)"),
    "motion_inversion": _method(MOTION_INVERSION, "Motion Inversion: embeddings added to features"),
    "motion_inversion-no-debias": _method(
        MOTION_INVERSION, "Motion Inversion without frame differences of the value embedding", debias=False
    ),
    "motion_inversion+refadapter": _plus_refadapter(MOTION_INVERSION, "Motion Inversion"),
    "ditflow": _method(DITFLOW, "DiTFlow: guidance by the displacements attention implies; no training"),
    "ditflow+refadapter": _plus_refadapter(DITFLOW, "DiTFlow"),
    "smm": _method(SMM, "SMM (DMT): guidance by changes of spatially averaged features; no training"),
    "smm+refadapter": _plus_refadapter(SMM, "SMM (DMT)"),
    "motion_clone": _method(MOTION_CLONE, "MotionClone: guidance by the strongest attention over time; no training"),
    "motion_clone+refadapter": _plus_refadapter(MOTION_CLONE, "MotionClone"),
    "pose_guided": _method(
        POSE_GUIDED,
        "pose guidance: the reference's skeleton, fitted to the target, as a control video",
        extra_supervision=f"{_CONTROL_DATA}; a pose estimator, trained on single frames of that world",
        needs=("control",),
    ),
    "pose_guided-true": _method(
        "benchmark.bounds.true_poses.TruePoseGuided",
        "pose guidance with true keypoints of reference and image in place of estimated ones; the fit is the same",
        extra_supervision=f"{_CONTROL_DATA}; the true keypoints of the reference and of the target image",
        needs=("control", TRUE_KEYPOINTS),
    ),
    "i2v": _method(I2V, "backbone and prompt only; never sees the reference"),
}
