"""Give units of work to the workers of a Ray cluster, and do again what lost ones leave."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.planning.selection import UsageError
from benchmark.workers.load import set_threads
from benchmark.workers.local import Event, Forwarding, WorkerError, longest
from benchmark.workers.stopping import Asked
from flexiact.terminal.cli import shortened

if TYPE_CHECKING:
    from benchmark.stages.bench import Bench, Listener, Unit

ATTEMPTS = 3
"""Number of workers that may be lost over the same work before it is given up."""
_LISTEN_EVERY_S = 0.5
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Cluster:
    """Workers on a Ray cluster.

    Attributes:
        address: Address of the cluster, "auto" for the one that this machine belongs to; None starts one here.
        workers: Number of workers, if the cluster has GPUs or cores for so many.
        gpus: Number of GPUs of each worker; 0 for a CPU core, 0.5 for half a GPU.
        minutes: Minutes that a video may take, its fit included, before its worker is stopped; None for no limit.
    """

    address: str | None
    workers: int = 1
    gpus: float = 0.0
    minutes: float | None = None


@dataclass(frozen=True)
class _Job:
    """A unit under way on a worker since `begun`."""

    worker: Any
    unit: "Unit"
    begun: float


class _Worker:
    """Process on some machine of the cluster."""

    def __init__(self, open_bench: "Callable[[str], Bench]", device: str, folder: str) -> None:
        os.chdir(folder)  # paths of the command may be relative
        set_threads(1)
        self._open, self._device = open_bench, device

    def ready(self) -> None:
        """Load the networks, which takes longer than many a video."""
        self._bench = self._open(self._device)

    def work(self, unit: "Unit") -> tuple[str, float, list[Event]]:
        """Do a unit; return its method, seconds per cell and the events."""
        events, start = list[Event](), time.perf_counter()
        self._bench.work(unit, Forwarding(events.append))
        return unit[0].method, (time.perf_counter() - start) / len(unit), events


@dataclass(eq=False)
class Pool:
    """State of a distribution.

    Attributes:
        ray: Module, connected to a cluster.
        keeper: Reader and writer of stored results, in the process that plans.
        waiting: Units that nobody does.
        seconds: Seconds a cell by method.
        lost: Number of workers that were lost over some cells, by their keys.
        starting: Workers that load networks, by Ray's references.
        running: Units under way, by Ray's references.
        not_started: Number of workers that could not be started since the last one that could.
    """

    ray: Any
    cluster: Cluster
    open_bench: "Callable[[str], Bench]"
    listener: "Listener"
    keeper: "Bench"
    waiting: "list[Unit]"
    asked: Asked
    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[tuple[str, ...], int] = field(default_factory=dict)
    starting: dict[Any, Any] = field(default_factory=dict)
    running: dict[Any, _Job] = field(default_factory=dict)
    not_started: int = 0

    def run(self) -> None:
        """Work until no unit waits or runs."""
        for _ in range(min(self.cluster.workers, self._fitting(), len(self.waiting))):
            self._start_worker()
        while self.waiting or self.running:
            finished, _ = self.ray.wait([*self.starting, *self.running], timeout=_LISTEN_EVERY_S)
            for reference in finished:
                if reference in self.starting:
                    self._started(reference, self.starting.pop(reference))
                else:
                    self._finished(reference, self.running.pop(reference))
            self._stop_overdue()
            if self.asked():
                self.waiting.clear()

    def _fitting(self) -> int:
        """Number of workers, at least one, that the cluster's GPUs and cores are enough for."""
        resources, each = self.ray.cluster_resources(), self.cluster.gpus
        cores, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        if each and gpus < each:
            raise UsageError(f"gpus-per-worker: {each:g}, but the cluster has {gpus:g} GPUs")
        if cores < 1:
            raise UsageError(f"executor: a worker needs a core, but the cluster has {cores:g}")
        return int(min(cores, gpus / each) if each else cores)

    def _start_worker(self) -> None:
        gpus = self.cluster.gpus
        options = {"num_cpus": 1, "num_gpus": gpus} if gpus else {"num_cpus": 1}
        kind = self.ray.remote(**options)(_Worker)
        worker = kind.remote(self.open_bench, "cuda" if gpus else "cpu", os.getcwd())
        self.starting[worker.ready.remote()] = worker

    def _started(self, reference: Any, worker: Any) -> None:
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._end(worker)
            self.not_started += 1
            if self.not_started >= ATTEMPTS:
                said = f"{ATTEMPTS} workers in a row could not be started; the last: {reason_of(error)}"
                raise WorkerError(said) from error
            self._start_worker()
        else:
            self.not_started = 0
            self._next(worker)

    def _next(self, worker: Any) -> None:
        if self.waiting:
            unit = longest(self.waiting, self.seconds)
            self.running[worker.work.remote(unit)] = _Job(worker, unit, time.monotonic())

    def _finished(self, reference: Any, job: _Job) -> None:
        try:
            method, self.seconds[job.unit[0].method], events = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._worker_lost(job, reason_of(error))
        else:
            for name, arguments in events:
                getattr(self.listener, name)(*arguments)
            self._next(job.worker)

    def _worker_lost(self, job: _Job, reason: str) -> None:
        self._end(job.worker)
        _, held = self.keeper.left(job.unit)
        keys = tuple(cell.key for cell in held)
        times = self.lost[keys] = self.lost.get(keys, 0) + 1
        if times < ATTEMPTS:
            self.waiting.append(job.unit)
        else:
            self._give_up(job.unit, held, f"{times} workers were lost over it; the last one: {reason}")
        self._replace_worker()

    def _stop_overdue(self) -> None:
        minutes = self.cluster.minutes
        if minutes is None:
            return
        for reference, job in list(self.running.items()):
            if time.monotonic() - job.begun > 60 * minutes * len(job.unit):
                del self.running[reference]
                self._end(job.worker)
                unmade, _ = self.keeper.left(job.unit)
                self._give_up(job.unit, unmade or job.unit, f"took longer than {minutes:g} minutes a video")
                self._replace_worker()

    def _give_up(self, unit: "Unit", cells: "Unit", reason: str) -> None:
        """Give up cells of a unit; its other ones wait again."""
        self.keeper.give_up(cells, reason)
        others = tuple(cell for cell in unit if cell not in cells)
        if others:
            self.waiting.append(others)

    def _end(self, worker: Any) -> None:
        """End a worker that may only seem lost: it would go on writing, and keep its GPU."""
        self.ray.kill(worker)

    def _replace_worker(self) -> None:
        if self.waiting:
            self._start_worker()


def reason_of(error: BaseException) -> str:
    """The line of one of Ray's messages that says why; the first one often says only what happened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shortened(next((line for line in lines if " because " in line), lines[0]), _LONGEST_REASON)
