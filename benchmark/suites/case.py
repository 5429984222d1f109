"""Interfaces of a case and of a suite, and the content of a case at one format.

Code that makes, measures or describes videos uses `Case` alone. There are two kinds of cases.
`benchmark.suites.puppets` renders cases and knows their right answers. `benchmark.suites.file_cases` reads cases from
files; nobody knows their right answers. Importing this module loads no network library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flexiact.terminal.cli import shortened

if TYPE_CHECKING:
    import numpy as np

    from flexiact.task import Video
    from metrics.features import Candidates, Source, Truth

_LISTED = 10  # faults of a suite that a message lists; it counts the others
_LONGEST = 300  # letters of a fault
_SHOWN_KEPT = 16


class CaseError(ValueError):
    """A case or suite that is invalid; the message names the file and the field."""


@dataclass(frozen=True)
class Format:
    """Number of frames, size and rate to which all material of a case is brought."""

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, eq=False)
class Shown:
    """Content of a case at a backbone's size, length and rate. A method sees only the reference and the target.

    Attributes:
        reference: Video of the reference performing the action.
        target: Target in the case's target pose, uint8 [H, W, 3].
        truth: Right answers; None if nobody knows them.
        candidates: True answers for the other actions that could have been requested; None if unknown.
        source: Truth of the reference; None if unknown.
        read_crops: Function that reads the crops that come with the reference, each uint8 [T, H, W, 3]; None: there are
            none. They are many, and few methods want them.
    """

    reference: Video
    target: np.ndarray
    truth: Truth | None = None
    candidates: Candidates | None = None
    source: Source | None = None
    read_crops: Callable[[], tuple[np.ndarray, ...]] | None = None

    def for_fit(self, with_crops: bool) -> Video:
        """Copy of the reference, with its crops if they are wanted and there are any."""
        read = self.read_crops if with_crops else None
        return replace(self.reference, frames=self.reference.frames.copy(), crops=read() if read else ())


class Case(Protocol):
    """One transfer to be made."""

    @property
    def case_id(self) -> str:
        """Id that is unique in the suite and can name a folder."""

    @property
    def reference_id(self) -> str:
        """Id of the reference; statistics are clustered by it."""

    @property
    def caption(self) -> str:
        """Text that describes the reference; read while fitting."""

    @property
    def prompt(self) -> str:
        """Text that describes the target; read while transferring."""

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of everything that decides `reference` and `target`; keys of results are made from these digests."""

    @property
    def truth_known(self) -> bool:
        """True if the right answer is known."""

    def describe(self) -> dict[str, Any]:
        """Entry of the case in run.json."""

    def check(self) -> None:
        """Refuse a case whose material has changed since the case was written.

        Raises:
            CaseError: If the material changed; the message names the changed part.
        """

    def losses(self, form: Format) -> Sequence[tuple[str, str]]:
        """Notes about files that lose a large part when they are cut to a format."""

    def show(self, form: Format) -> Shown:
        """Show the case at a format.

        Raises:
            CaseError: If the case cannot be rendered.
            MediaError: If a file cannot be read.
        """


class Suite(Protocol):
    """A named set of cases."""

    @property
    def name(self) -> str:
        """Name for tables and run directories; it holds no path."""

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all cases, sorted."""

    @property
    def num_inference_steps(self) -> int | None:
        """Number of sampler steps that the suite asks for; None: the backbone's own number."""

    @property
    def fit_share(self) -> float:
        """Share of their optimiser steps that fits take, in (0, 1]."""

    @property
    def headline(self) -> str:
        """Name of the metric that tables are sorted by."""

    @property
    def version(self) -> int | None:
        """Version, raised when the suite gets other cases; None if the suite has no versions."""

    @property
    def digest(self) -> str | None:
        """SHA-256 over all content of the suite; None if only its cases have digests."""

    def chosen(self, case_ids: Iterable[str]) -> tuple[Case, ...]:
        """Cases of the given ids, in the suite's order.

        Raises:
            CaseError: If a case is invalid.
        """

    def check_readable(self, case_ids: Iterable[str]) -> None:
        """Find files of these cases that cannot be read, before a large model is loaded.

        Raises:
            CaseError: If a case cannot be shown; the message names up to ten faults.
        """


class Stages:
    """Contents of cases at one format. Only the latest few are cached, since a large format needs much memory."""

    def __init__(self, cases: Mapping[str, Case], form: Format) -> None:
        self.cases = cases
        self._shown = lru_cache(maxsize=_SHOWN_KEPT)(lambda case_id: cases[case_id].show(form))

    def __getitem__(self, case_id: str) -> Shown:
        """Content of a case; raises the errors of `Case.show`."""
        return self._shown(case_id)


def refuse(where: Path | str, problems: Sequence[str]) -> None:
    """Report all problems at once, if there are any.

    Raises:
        CaseError: If there is a problem; the message is one line with up to ten problems and the number of the others.
    """
    if problems:
        rest = len(problems) - _LISTED
        told = "; ".join(shortened(problem, _LONGEST) for problem in problems[:_LISTED])
        raise CaseError(f"{where}: {told}" + (f"; and {rest} more like these" * (rest > 0)))
