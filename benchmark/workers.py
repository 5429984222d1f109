"""Units of work shared out over processes, each with one thread, one process a GPU where there are GPUs.

The process that plans holds the lock of the run directory, shows the progress and writes nothing that workers write.
Workers write what `benchmark.bench.Bench` writes. No two of them write the same record, video, fit or scores, since
cells that share a key share a unit. Two may write the same features: equal bytes, each put in place whole.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import psutil

from benchmark.load import set_threads
from benchmark.selection import UsageError

if TYPE_CHECKING:  # the command answers wrong arguments without the seconds that torch takes
    from multiprocessing.queues import SimpleQueue

    from benchmark.bench import Bench, Listener, Unit

_LISTEN_EVERY_S = 0.5
_GROWTH = 2.0
"""A worker at work needs about this many times the memory that the networks and libraries alone take."""


class WorkerError(ChildProcessError):
    """A worker process is gone; the message is one line and says what to do."""


def worker_devices(asked: int | None, device: str) -> tuple[str, ...]:
    """The device of every worker.

    Args:
        asked: number of workers; None: one a GPU, without GPUs as many as there are cores and memory for, counted
            with the networks loaded in this process (see `affordable`).
        device: Name for `flexiact.backbone.loading.resolve_device`; a GPU with a number stands for itself alone.

    Raises:
        UsageError: If more workers are asked for than there are GPUs.
        BackboneError: If the device is unknown or not there.
    """
    import torch

    from flexiact.backbone.loading import resolve_device

    found = resolve_device(device)
    if found.type != "cuda":
        return (str(found),) * (asked or physical_cores())
    single = found.index is not None or torch.cuda.device_count() == 1
    cards = (str(found),) if single else tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if asked is not None and asked > len(cards):
        raise UsageError(f"workers: expected at most {len(cards)}, one a GPU, got {asked}")
    return cards[:asked]


def physical_cores() -> int:
    """Cores that this process may use; two threads of one core count once."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def affordable(devices: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the CPU's workers as free memory holds, at least one; to be asked once networks are loaded here."""
    held = psutil.Process().memory_info().rss
    fitting = int(psutil.virtual_memory().available / (_GROWTH * held))
    return devices[: max(1, fitting)] if devices[0] == "cpu" else devices


def share_out(
    units: "Sequence[Unit]", devices: Sequence[str], open_bench: "Callable[[str], Bench]", listener: "Listener"
) -> None:
    """Let one process a device do the units; which one does which changes no result.

    Args:
        units: Units of one run.
        devices: Devices of the workers; "cpu" may occur several times.
        open_bench: loads networks onto a device. Every worker calls it once; it is pickled.
        listener: told what all workers do.

    Raises:
        WorkerError: If a worker was killed. The others are stopped, finished cells stay.
        StoreError: If the run directory cannot be written.
    """
    if not units:
        return
    devices = devices[: len(units)]
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and CUDA's state
    news, places = context.SimpleQueue(), context.SimpleQueue()
    for device in devices:
        places.put(device)
    waiting, seconds = list(units), dict[str, float]()
    with _closing(ProcessPoolExecutor(len(devices), context, _start, (places, news))) as pool:

        def next_one() -> "Future[tuple[str, float]]":
            return pool.submit(_work, open_bench, _longest(waiting, seconds))

        with _not_interrupted():
            running = {next_one() for _ in devices}
            pool.submit(os.getpid)  # the pool looks anew whom to watch: it overlooks the end of the process begun last
        while running:
            finished, running = wait(running, _LISTEN_EVERY_S, FIRST_COMPLETED)
            while not news.empty():
                name, arguments = news.get()
                getattr(listener, name)(*arguments)
            for future in finished:
                method, seconds[method] = future.result()
                if waiting:
                    running.add(next_one())


@contextmanager
def _closing(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """End all workers however the block ends, and say in one line that one was killed."""
    try:
        yield pool
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process was killed, perhaps because memory ran out (fewer --workers need less); what is "
            "finished is kept, the same command goes on from here"
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _longest(waiting: "list[Unit]", seconds: Mapping[str, float]) -> "Unit":
    """Take out the unit that may take longest: of a method that was not seen yet, else by what its cells took."""
    unit = max(waiting, key=lambda unit: (seconds.get(unit.method, inf) * unit.size, unit.size))
    waiting.remove(unit)
    return unit


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Processes started here never see Ctrl-C, not even while they import: the one that plans stops them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ------------------------------------------------------------------------------------------------- inside a worker


@dataclass(frozen=True)
class _News:
    """Tells the process that plans what a `Listener` is told."""

    queue: "SimpleQueue[tuple[str, tuple[object, ...]]]"

    def starts(self, what: str) -> None:
        self.queue.put(("starts", (what,)))

    def done(self, kind: str, seconds: float) -> None:
        self.queue.put(("done", (kind, seconds)))


@dataclass
class _Worker:
    """This process."""

    device: str
    news: _News
    bench: "Bench | None" = None


_worker: _Worker


def _start(places: "SimpleQueue[str]", news: "SimpleQueue[tuple[str, tuple[object, ...]]]") -> None:
    """Make this process a worker."""
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(1)
    _worker = _Worker(places.get(), _News(news))


def _end_with_parent() -> None:
    """Without this a worker would wait for work for ever when the process that plans is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(open_bench: "Callable[[str], Bench]", unit: "Unit") -> tuple[str, float]:
    """Do a unit and return its method and seconds a cell; the first one loads networks, so that errors are told."""
    if _worker.bench is None:
        _worker.bench = open_bench(_worker.device)
    start = time.perf_counter()
    _worker.bench.work(unit, _worker.news)
    return unit.method, (time.perf_counter() - start) / unit.size
