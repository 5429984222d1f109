"""The methods that compete. One line each; variants and ablations are entries with another configuration.

Reading the table loads nothing: a method's module is imported when the method is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexiact.backbone import Backbone
    from flexiact.method import FlexiActConfig
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


def _base_embedding(backbone: Backbone) -> ActionTransfer:
    from flexiact.method import FlexiAct, base_preset

    return FlexiAct(backbone, base_preset(backbone))


_REFADAPTER_DATA = "RefAdapter, trained on untrimmed clips of the training world"

METHODS: dict[str, MethodEntry] = {
    "flexiact": MethodEntry(
        _class("flexiact.method", "FlexiAct"), "frequency-aware embedding, schedule and RefAdapter", _REFADAPTER_DATA
    ),
    "flexiact-no-schedule": MethodEntry(
        _flexiact(lambda config: config.without_schedule()),
        "FlexiAct with the embedding's bias 0 at every step",
        _REFADAPTER_DATA,
    ),
    "flexiact-no-refadapter": MethodEntry(
        _flexiact(lambda config: config.without_refadapter()), "FlexiAct without RefAdapter"
    ),
    "base-embedding": MethodEntry(
        _base_embedding,
        "the paper's Base: the embedding, neither schedule nor RefAdapter, tuned by itself",
    ),
    "i2v": MethodEntry(_class("baselines.i2v", "ImageToVideo"), "backbone and prompt only; never sees the reference"),
}
