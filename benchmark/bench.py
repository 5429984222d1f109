"""Where cells are made and measured, in whichever process: everything loaded, and the run directory to write to."""

import time
from dataclasses import dataclass
from typing import Protocol

from benchmark.execute import Executor
from benchmark.plan import Unit
from benchmark.scoring import Scorer
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_row


class Listener(Protocol):
    """Who is told how the work goes on (see benchmark.console.progress.Progress)."""

    def starts(self, what: str) -> None:
        """Hear what is being worked on."""

    def done(self, kind: str, seconds: float) -> None:
        """Hear of one finished piece."""


@dataclass(frozen=True, eq=False)
class Bench:
    """One process's own.

    Attributes:
        folder: of the run; its lock is held by the process that plans.
        executor: makes videos.
        scorer: measures them.
    """

    folder: RunFolder
    executor: Executor
    scorer: Scorer

    def work(self, unit: Unit, listener: Listener) -> None:
        """Make and measure the cells of a unit; all results are files.

        Raises:
            StoreError: when the run directory cannot be written.
        """
        for cell in unit.make:
            listener.starts(f"{cell.method}: {cell.case_id}")
            fits, start = self.executor.needs_fit(cell), time.perf_counter()
            row = self.executor.execute(cell)
            seconds = time.perf_counter() - start
            if fits:
                listener.done("fit", seconds - (row.transfer_s or 0.0))
                seconds = row.transfer_s or 0.0
            listener.done(cell.kind, seconds)
        for cell in unit.measure:
            listener.starts(f"measuring {cell.method}: {cell.case_id}")
            start, made = time.perf_counter(), sample_row(self.folder, cell)
            if made is not None:
                self.scorer.score(cell, made)
            listener.done("score", time.perf_counter() - start)
