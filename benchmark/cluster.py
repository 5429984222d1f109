"""Distribute units of work over a Ray cluster, whose machines share the run directory.

Ray starts workers, finds lost ones and knows which machine has a free GPU. Every worker loads the networks once. At any
time each worker has one unit, so that a plan of a million cells stays here. Results are files, as with local workers,
and their digests are the same.
"""

import argparse
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.load import set_threads
from benchmark.selection import UsageError
from benchmark.stopping import Asked
from benchmark.workers import WorkerError, longest, physical_cores

if TYPE_CHECKING:
    from benchmark.bench import Bench, Listener, Unit

ATTEMPTS = 3
"""Number of workers that may be lost over a unit before it is given up."""
_LISTEN_EVERY_S = 0.5

GiveUp = Callable[["Unit", str], None]
"""Function that stores failed rows, with a reason, for the cells of a unit that have none."""


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


def add_cluster_options(group: argparse._ArgumentGroup) -> None:
    """Add the options from which `cluster_of` makes a cluster."""
    group.add_argument("--executor", choices=("local", "ray"), default="local", help="who runs workers (%(default)s)")
    group.add_argument("--address", metavar="HOST:PORT", help="of the cluster; auto: this machine's (one of its own)")
    group.add_argument("--gpus-per-worker", type=float, metavar="N", help="e.g. 1 or 0.5 (1 where there are GPUs)")
    group.add_argument("--minutes-per-video", type=float, metavar="N", help="give a video up after so many (no limit)")


def check_cluster_options(args: argparse.Namespace) -> None:
    """Check options before anything is loaded.

    Raises:
        UsageError: If one of them needs `--executor ray`, or makes no sense.
    """
    given = {name: getattr(args, name) for name in ("address", "gpus_per_worker", "minutes_per_video")}
    for name, value in given.items():
        option = name.replace("_", "-")
        if value is not None and args.executor != "ray":
            raise UsageError(f"{option}: it needs --executor ray")
        if isinstance(value, float) and not (value >= 0 if name == "gpus_per_worker" else value > 0):
            raise UsageError(f"{option}: expected a number above 0, got {value:g}")
    if args.address and args.workers == "auto":
        raise UsageError("workers: give a number with --address; this machine's size is not the cluster's")
    if args.executor == "ray" and args.threads:
        raise UsageError("threads: workers on a Ray cluster have one thread each")


def cluster_of(args: argparse.Namespace, workers: int | None, device: str) -> Cluster | None:
    """The cluster that the options name, for networks on "cpu" or "cuda"; None for local workers.

    Raises:
        UsageError: If workers would compute on another kind of device: perhaps in another precision than keys say.
    """
    if args.executor == "local":
        return None
    gpus = float(device == "cuda") if args.gpus_per_worker is None else args.gpus_per_worker
    if (gpus > 0) != (device == "cuda"):
        raise UsageError(
            f"gpus-per-worker: {gpus:g}, but this process computes on {device}; start it on a machine like the "
            "workers', and name the kind with --device"
        )
    return Cluster(args.address, workers or physical_cores(), gpus, args.minutes_per_video)


@dataclass(frozen=True)
class _Job:
    """A unit under way on a worker since `begun`."""

    worker: Any
    unit: "Unit"
    begun: float


@dataclass
class _Heard:
    """Listener inside a worker; its events travel back with the result."""

    events: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)

    def starts(self, what: str) -> None:
        self.events.append(("starts", (what,)))

    def done(self, kind: str, seconds: float) -> None:
        self.events.append(("done", (kind, seconds)))


class _Worker:
    """Process on some machine of the cluster."""

    def __init__(self, open_bench: "Callable[[str], Bench]", device: str, folder: str) -> None:
        os.chdir(folder)  # paths of the command may be relative
        set_threads(1)
        self._open, self._device = open_bench, device

    def ready(self) -> None:
        """Load the networks, which takes longer than many a video."""
        self._bench = self._open(self._device)

    def work(self, unit: "Unit") -> tuple[str, float, list[tuple[str, tuple[object, ...]]]]:
        """Do a unit; return its method, seconds per cell and the events."""
        heard, start = _Heard(), time.perf_counter()
        self._bench.work(unit, heard)
        return unit.method, (time.perf_counter() - start) / unit.size, heard.events


def share_out_on(
    cluster: Cluster,
    units: "Sequence[Unit]",
    open_bench: "Callable[[str], Bench]",
    listener: "Listener",
    give_up: GiveUp,
    asked: Asked = lambda: 0,
) -> None:
    """Let workers of a cluster do the units.

    A unit whose worker is lost goes to another one. After `ATTEMPTS` lost workers, or out of time, it is given up.

    Args:
        cluster: Workers.
        units: Units of one run.
        open_bench: Picklable function that loads networks onto a device; every worker calls it once.
        listener: Listener that hears of the work of all workers, unit by unit.
        give_up: Function that stores why a unit was given up.
        asked: Function that says whether to end; then workers finish their units, and no others begin.

    Raises:
        UsageError: If Ray is not installed, there is no cluster at the address, or it is too small for one worker.
        WorkerError: If workers cannot be started.
        StoreError: If a worker cannot write to the run directory.
    """
    if not units:
        return
    with _connected(cluster) as ray:
        _Pool(ray, cluster, open_bench, listener, give_up, list(units), asked).run()


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise UsageError("executor: ray is not installed; pip install 'flexiact-suite[ray]'") from None
    own: dict[str, Any] = {"num_cpus": cluster.workers, "include_dashboard": False}
    try:
        _knock(cluster.address)
        more = {} if cluster.address else own
        with _own_signals():
            ray.init(cluster.address or "local", log_to_driver=False, logging_level=logging.ERROR, **more)
    except OSError as error:
        raise UsageError(f"address: no Ray cluster answers at {cluster.address}") from error
    try:
        yield ray
    finally:
        ray.shutdown()  # workers end with the process that plans


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from taking SIGTERM, which asks a run to end after the videos in work."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _knock(address: str | None) -> None:
    """Try a connection first: Ray itself tries for minutes, and then ends the process."""
    if address in (None, "auto"):
        return
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"address: expected auto or HOST:PORT, got {address}")
    socket.create_connection((host, int(port)), timeout=10).close()


@dataclass(eq=False)
class _Pool:
    """State of the distribution: units that wait, workers that start, and jobs that run, by Ray's references."""

    ray: Any
    cluster: Cluster
    open_bench: "Callable[[str], Bench]"
    listener: "Listener"
    give_up: GiveUp
    waiting: "list[Unit]"
    asked: Asked
    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
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
        """Number of workers that the cluster's GPUs or cores are enough for.

        Raises:
            UsageError: If they are not enough for one.
        """
        resources, gpus = self.ray.cluster_resources(), self.cluster.gpus
        number = int(resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0))
        if not number:
            raise UsageError(f"gpus-per-worker: {gpus:g}, but the cluster has {resources.get('GPU', 0):g} GPUs")
        return number

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
        except self.ray.exceptions.RayActorError as error:
            self.not_started += 1
            if self.not_started >= ATTEMPTS:
                reason = str(error).strip().splitlines()[0]
                raise WorkerError(f"{ATTEMPTS} workers could not be started; the last: {reason}") from error
            self._start_worker()
        else:
            self._next(worker)

    def _next(self, worker: Any) -> None:
        if self.waiting:
            unit = longest(self.waiting, self.seconds)
            self.running[worker.work.remote(unit)] = _Job(worker, unit, time.monotonic())

    def _finished(self, reference: Any, job: _Job) -> None:
        try:
            method, self.seconds[job.unit.method], events = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._worker_lost(job.unit, str(error).strip().splitlines()[0])
        else:
            for name, arguments in events:
                getattr(self.listener, name)(*arguments)
            self._next(job.worker)

    def _worker_lost(self, unit: "Unit", reason: str) -> None:
        times = self.lost[id(unit)] = self.lost.get(id(unit), 0) + 1
        if times < ATTEMPTS:
            self.waiting.append(unit)
        else:
            self.give_up(unit, f"{times} workers were lost over it; the last one: {reason}")
        self._start_worker()

    def _stop_overdue(self) -> None:
        minutes = self.cluster.minutes
        if minutes is None:
            return
        for reference, job in list(self.running.items()):
            if time.monotonic() - job.begun > 60 * minutes * job.unit.size:
                del self.running[reference]
                self.ray.kill(job.worker)
                self.give_up(job.unit, f"took longer than {minutes:g} minutes a video")
                self._start_worker()
