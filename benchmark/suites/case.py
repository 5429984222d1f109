"""What a run asks of a case and of a suite, whatever they are made of; and what a case shows.

Everything that makes, measures or describes videos knows cases through `Case` alone. There are two kinds:
`benchmark.suites.puppets` renders its cases and knows their right answers, `benchmark.suites.files` reads them from
files, whose right answers nobody knows. No network library is needed to read this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from flexiact.task import Video
    from metrics.features import Candidates, Source, Truth

_LISTED = 10  # of the faults of a suite; the others are counted
_SHOWN_KEPT = 16


class CaseError(ValueError):
    """A case or suite that is not what it must be; the message names the file and the field."""


@dataclass(frozen=True)
class Format:
    """Pixel frames, size and rate that everything of a case is brought to."""

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, eq=False)
class Shown:
    """What a case shows, at a backbone's size, length and rate. A method sees the reference and the target alone.

    Attributes:
        reference: the reference performing the action.
        target: uint8 [H, W, 3], the target in the case's target pose.
        truth: the right answers; None where nobody knows them.
        candidates: True answers for the other actions that could have been asked for; None if unknown.
        source: Truth of the reference; None if unknown.
    """

    reference: Video
    target: np.ndarray
    truth: Truth | None = None
    candidates: Candidates | None = None
    source: Source | None = None


class Case(Protocol):
    """One transfer to be made."""

    @property
    def case_id(self) -> str:
        """Unique in the suite, fit for the name of a folder."""
        ...

    @property
    def reference_id(self) -> str:
        """Cases of one reference share it; statistics are clustered by it."""
        ...

    @property
    def caption(self) -> str:
        """Describes the reference, read while fitting."""
        ...

    @property
    def prompt(self) -> str:
        """Describes the target, read while transferring."""
        ...

    @property
    def digests(self) -> Mapping[str, str]:
        """What results are named by: SHA-256 of all that decides what `reference` and `target` are."""
        ...

    @property
    def truth_known(self) -> bool:
        """Whether the right answer is known."""
        ...

    def describe(self) -> dict[str, Any]:
        """The entry in run.json."""
        ...

    def check(self) -> None:
        """Refuse a case whose material is no longer what it was when the case was written.

        Raises:
            CaseError: naming what changed.
        """
        ...

    def losses(self, form: Format) -> Sequence[tuple[str, str]]:
        """Notes about files of which much is cut away when they are brought to a format."""
        ...

    def show(self, form: Format) -> Shown:
        """What the case shows.

        Raises:
            CaseError: If it cannot be rendered.
            MediaError: If a file cannot be read.
        """
        ...


class Suite(Protocol):
    """A named set of cases."""

    @property
    def name(self) -> str:
        """For tables and run directories; holds no path."""
        ...

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Of all cases, sorted."""
        ...

    @property
    def num_inference_steps(self) -> int | None:
        """Sampler steps that the suite asks for; None: the backbone's own number."""
        ...

    @property
    def headline(self) -> str:
        """Name of the metric that tables are sorted by."""
        ...

    @property
    def version(self) -> int | None:
        """Raised by whoever gives the suite other cases; None where nobody counts."""
        ...

    @property
    def digest(self) -> str | None:
        """SHA-256 over all that the suite says; None where its cases' own digests have to do."""
        ...

    def chosen(self, case_ids: Iterable[str]) -> tuple[Case, ...]:
        """Those of the cases, in the suite's order.

        Raises:
            CaseError: If one is not as it should be.
        """
        ...

    def check_readable(self, case_ids: Iterable[str]) -> None:
        """Find what cannot be shown of these cases before a large model is loaded.

        Raises:
            CaseError: naming all of it, up to ten.
        """
        ...


class Stages:
    """What cases show at one format; the latest few are kept, since a large format makes them heavy.

    Attributes:
        cases: Cases by id.
    """

    def __init__(self, cases: Mapping[str, Case], form: Format) -> None:
        self.cases = cases
        self._shown = lru_cache(maxsize=_SHOWN_KEPT)(lambda case_id: cases[case_id].show(form))

    def __getitem__(self, case_id: str) -> Shown:
        """What a case shows; raises as `Case.show` does."""
        return self._shown(case_id)


def refuse(where: Path | str, problems: Sequence[str]) -> None:
    """Say everything that is wrong at once, if anything is.

    Raises:
        CaseError: one line with up to ten of the problems and the number of the others.
    """
    if problems:
        rest = len(problems) - _LISTED
        raise CaseError(f"{where}: {'; '.join(problems[:_LISTED])}" + (f"; and {rest} more like these" * (rest > 0)))
