"""The methods that compete. One line each; variants and ablations are entries with another configuration.

Reading the table loads nothing: a method's module is imported when the method is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexiact.backbone import Backbone
    from flexiact.task import ActionTransfer


@dataclass(frozen=True)
class MethodEntry:
    """One line of the leaderboard.

    Attributes:
        build: makes the method for a backbone, with the settings meant for that backbone.
        summary: one line for people.
        extra_supervision: what it was trained on beyond the backbone and the one reference; "none" when nothing.
    """

    build: Callable[[Backbone], ActionTransfer]
    summary: str
    extra_supervision: str = "none"


def _flexiact(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct

    return FlexiAct(backbone)


def _flexiact_no_schedule(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, preset

    return FlexiAct(backbone, preset(backbone).without_schedule())


def _flexiact_no_refadapter(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, preset

    return FlexiAct(backbone, preset(backbone).without_refadapter())


def _base_embedding(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, preset

    return FlexiAct(backbone, preset(backbone).base_embedding())


def _i2v(backbone: Backbone) -> ActionTransfer:
    from baselines.i2v import ImageToVideo

    return ImageToVideo(backbone)


_REFADAPTER_DATA = "RefAdapter, trained on untrimmed clips of the training world"

METHODS: dict[str, MethodEntry] = {
    "flexiact": MethodEntry(_flexiact, "frequency-aware embedding, schedule and RefAdapter", _REFADAPTER_DATA),
    "flexiact-no-schedule": MethodEntry(
        _flexiact_no_schedule, "FlexiAct with the embedding's bias 0 at every step", _REFADAPTER_DATA
    ),
    "flexiact-no-refadapter": MethodEntry(_flexiact_no_refadapter, "FlexiAct without RefAdapter"),
    "base-embedding": MethodEntry(_base_embedding, "the paper's Base: the embedding, neither schedule nor RefAdapter"),
    "i2v": MethodEntry(_i2v, "backbone and prompt only; never sees the reference"),
}
