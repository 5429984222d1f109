"""Everything that one process needs to make and measure cells: loaded networks and the run directory."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from benchmark.execute import Executor
from benchmark.plan import Cell, said_seed
from benchmark.scoring import Scorer
from benchmark.stopping import Asked
from benchmark.store.folder import RunFolder, StoreError
from benchmark.store.gather import sample_rows
from benchmark.store.schema import SampleRow
from benchmark.store.videos import DamagedVideo
from flexiact.notes import note


class Listener(Protocol):
    """Receiver of progress (see benchmark.console.progress.Progress)."""

    def starts(self, what: str) -> None:
        """Note the piece of work that starts."""

    def done(self, kind: str, seconds: float) -> None:
        """Note one finished piece."""


@dataclass(frozen=True)
class Unit:
    """Cells that one process does, so that a fit is computed once and stays in memory while it is needed.

    Attributes:
        cells: Cells to measure; all share a fit, or belong to one bound and one reference.
        rows: Rows by key of the cells whose video exists; the others are made first.
    """

    cells: tuple[Cell, ...]
    rows: Mapping[str, SampleRow]

    @property
    def method(self) -> str:
        """Name of the first cell's method or bound."""
        return self.cells[0].method

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.cells)


def units(cells: Iterable[Cell], rows: Mapping[str, SampleRow], references: Mapping[str, str]) -> list[Unit]:
    """Group cells into units; each cell belongs to one unit.

    Args:
        cells: Cells to measure; their order is kept.
        rows: Rows by key of the cells whose video exists.
        references: Id of the reference by case.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        group = ("fit", cell.fit_key) if cell.fit_key else (cell.method, references[cell.case_id])
        groups.setdefault(group, []).append(cell)
    return [
        Unit(tuple(group), {cell.key: rows[cell.key] for cell in group if cell.key in rows})
        for group in groups.values()
    ]


@dataclass(frozen=True, eq=False)
class Bench:
    """The executor and the scorer of one process.

    Attributes:
        executor: Executor that makes videos.
        scorer: Scorer that measures them.
        folder: Run directory, whose log hears of all work.
    """

    executor: Executor
    scorer: Scorer
    folder: RunFolder

    def work(self, unit: Unit, listener: Listener, asked: Asked = lambda: 0) -> None:
        """Make and measure the cells of a unit; all results are files.

        Args:
            unit: Cells to make and measure.
            listener: Receiver of progress.
            asked: Function that says whether to end before the next piece of work.

        Raises:
            StoreError: If the run directory cannot be written.
        """
        rows = dict(unit.rows)
        for cell in unit.cells:
            if cell.key in rows:
                continue
            if asked():
                return
            rows[cell.key] = self._make(cell, listener)
        for cell in unit.cells:
            if asked():
                return
            listener.starts(f"measuring {cell.method}: {cell.case_id}")
            start = time.perf_counter()
            self._score(cell, rows[cell.key], listener)
            seconds = time.perf_counter() - start
            listener.done("score", seconds)
            self.folder.log("measured", f"{_name(cell)}, {seconds:.2f} s")

    def left(self, unit: Unit) -> tuple[Unit, tuple[Cell, ...]]:
        """What is left of a unit that a lost worker was doing.

        Returns:
            The unit with all rows that are stored by now, and the cells that the worker was at: all unmade ones if it
            had to fit for them, else the first of these, or all cells if only measuring was left.
        """
        again = ("failed",) if self.scorer.retry_failed else ()
        stored = sample_rows(self.folder, unit.cells)
        rows = {name: row for name, row in stored.items() if row.status not in again} | dict(unit.rows)
        unmade = tuple(cell for cell in unit.cells if cell.key not in rows)
        if unmade and not self.executor.needs_fit(unmade[0]):
            unmade = unmade[:1]
        return Unit(unit.cells, rows), unmade or unit.cells

    def give_up(self, unit: Unit, reason: str) -> None:
        """Store failed rows for the cells of a unit that nobody could finish.

        Raises:
            StoreError: If the run directory cannot be written.
        """
        for cell in unit.cells:
            if cell.key in unit.rows:
                note(_name(cell), f"was not measured: {reason}")
            else:
                row = self.executor.fail(cell, reason)
                if row.status == "failed":
                    self.scorer.score(cell, row)
            self.folder.log("given up", f"{_name(cell)}: {reason}")

    def _score(self, cell: Cell, row: SampleRow, listener: Listener) -> None:
        """Measure a video; one that is damaged is made again first."""
        try:
            self.scorer.score(cell, row)
            return
        except DamagedVideo:
            self.folder.damaged(self.folder.file("videos", f"{cell.key}.mkv"))
        row = self._make(cell, listener)
        try:
            self.scorer.score(cell, row)
        except DamagedVideo as error:
            raise StoreError(f"{error}, though they were written a moment ago; check the disk") from error

    def _make(self, cell: Cell, listener: Listener) -> SampleRow:
        listener.starts(f"{cell.method}: {cell.case_id}")
        fits, start = self.executor.needs_fit(cell), time.perf_counter()
        row = self.executor.execute(cell)
        seconds = time.perf_counter() - start
        if fits:
            listener.done("fit", seconds - (row.transfer_s or 0.0))
            seconds = row.transfer_s or 0.0
        listener.done(cell.kind, seconds)
        event, rest = ("made", "") if row.status == "ok" else (row.status, f": {row.error}")
        self.folder.log(event, f"{_name(cell)}, {time.perf_counter() - start:.2f} s{rest}")
        return row


def _name(cell: Cell) -> str:
    return f"{cell.method} on {cell.case_id}, {said_seed(cell.seed, cell.fit_seed)}"
