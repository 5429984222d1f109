"""Everything that one process needs to make and measure cells: loaded networks and the run directory."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmark.planning.plan import Cell, said_seed
from benchmark.stages.execute import Executor
from benchmark.stages.scoring import Scorer
from benchmark.store.folder import RunFolder, StoreError
from benchmark.store.gather import Stored, sample_row, stored, write_tables
from benchmark.store.schema.rows import SampleRow
from benchmark.store.videos import DamagedVideo
from benchmark.workers.stopping import Asked
from flexiact.terminal.notes import note


class Listener(Protocol):
    """Receiver of progress (see benchmark.console.run_progress.Progress)."""

    def starts(self, what: str) -> None:
        """Note the piece of work that starts."""

    def done(self, kind: str, seconds: float) -> None:
        """Note one finished piece."""


Unit = tuple[Cell, ...]
"""Cells that one process does, so that a fit is computed once and stays in memory while it is needed: all share a fit,
or belong to one bound and one reference. There is at least one."""


def units(cells: Iterable[Cell], references: Mapping[str, str]) -> list[Unit]:
    """Group cells into units, each cell into one, in their order; `references` has the id of the reference by case."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        group = ("fit", cell.fit_key) if cell.fit_key else (cell.method, references[cell.case_id])
        groups.setdefault(group, []).append(cell)
    return [tuple(group) for group in groups.values()]


@dataclass(frozen=True)
class Work:
    """Work that there is to do in a run. It holds no row but those that failed, since a run may have a million.

    Attributes:
        cells: Cells to make or measure.
        unmade: Those of them whose video has to be made.
        failed: Rows of videos that failed.
    """

    cells: list[Cell]
    unmade: list[Cell]
    failed: list[SampleRow]


@dataclass(frozen=True, eq=False)
class Bench:
    """The executor and the scorer of one process, and the run directory, whose log hears of all work."""

    executor: Executor
    scorer: Scorer
    folder: RunFolder

    def todo(self, run: Mapping[str, Any], asked: Sequence[Cell], cells: Iterable[Cell] | None) -> Work:
        """Find damage among the stored results, and what there is to do. Each record and score is read once.

        Args:
            run: Content of run.json.
            asked: Cells that may be made and measured.
            cells: Cells of the whole run, `asked` among them, whose tables are written by the way; None: only `asked`
                are looked at, and no table is written.

        Raises:
            StoreError: If a result cannot be read, or a table cannot be written.
        """
        wanted, unmade, unmeasured = {cell.key for cell in asked}, set[str](), set[str]()
        failed: dict[str, SampleRow] = {}

        def look(cell: Cell) -> Stored:
            row, scores = stored(self.folder, run, cell, sound=True)
            if cell.key in wanted:
                if row.status == "missing" or not self._stays(row):
                    unmade.add(cell.key)
                elif self.scorer.missing(row, scores):
                    unmeasured.add(cell.key)
                if row.status == "failed":
                    failed[cell.key] = row
            return row, scores

        if cells is None:
            for cell in asked:
                look(cell)
        else:
            write_tables(self.folder, run, cells, look)
        work = [cell for cell in asked if cell.key in unmade or cell.key in unmeasured]
        return Work(work, [c for c in work if c.key in unmade], [failed[c.key] for c in asked if c.key in failed])

    def work(self, unit: Unit, listener: Listener, asked: Asked = lambda: 0) -> None:
        """Make and measure the cells of a unit; all results are files.

        `asked` says whether to end before the next piece of work.
        """
        rows = {}
        for cell in unit:
            if asked():
                return
            rows[cell.key] = self._stored(cell) or self._make(cell, listener)
        for cell in unit:
            if asked():
                return
            listener.starts(f"measuring {cell.method}: {cell.case_id}")
            start = time.perf_counter()
            self._score(cell, rows[cell.key], listener)
            seconds = time.perf_counter() - start
            listener.done("score", seconds)
            self.folder.log("measured", f"{_name(cell)}, {seconds:.2f} s")

    def left(self, unit: Unit) -> tuple[Unit, Unit]:
        """Find what is left of a unit that a lost worker was doing.

        Returns:
            The cells whose videos are not stored by now, and the cells that the worker was at: all unmade ones if it
            had to fit for them, else the first of these, or all cells if only measuring was left.
        """
        unmade = tuple(cell for cell in unit if self._stored(cell) is None)
        held = unmade if unmade and self.executor.needs_fit(unmade[0]) else unmade[:1]
        return unmade, held or unit

    def give_up(self, unit: Unit, reason: str) -> None:
        """Store failed rows for the cells of a unit that nobody could finish; stored rows stay."""
        for cell in unit:
            row = self.executor.fail(cell, reason)
            if row.status == "failed":
                self.scorer.score(cell, row)
            elif self.scorer.missing(row):
                note(_name(cell), f"was not measured: {reason}")
            self.folder.log("given up", f"{_name(cell)}: {reason}")

    def _stored(self, cell: Cell) -> SampleRow | None:
        """Stored row of a cell; None if its video is to be made."""
        row = sample_row(self.folder, cell)
        return row if row and self._stays(row) else None

    def _stays(self, row: SampleRow) -> bool:
        return not (self.scorer.retry_failed and row.status == "failed")

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
            listener.done(f"fit {cell.method}", seconds - (row.transfer_s or 0.0))
            seconds = row.transfer_s or 0.0
        listener.done(f"{cell.kind} {cell.method}", seconds)
        event, rest = ("made", "") if row.status == "ok" else (row.status, f": {row.error}")
        self.folder.log(event, f"{_name(cell)}, {time.perf_counter() - start:.2f} s{rest}")
        return row


def _name(cell: Cell) -> str:
    return f"{cell.method} on {cell.case_id}, {said_seed(cell.seed, cell.fit_seed)}"
