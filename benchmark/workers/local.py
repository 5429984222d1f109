"""Distribute units of work over processes. Each process has one thread; with GPUs there is one process per GPU.

The parent process holds the lock of the run directory, shows the progress, and writes no file that workers write.
Workers write the files of `benchmark.stages.bench.Bench`. No two of them write the same record, video, fit or scores,
since cells that share a key share a unit. Two may write the same features: the bytes are equal and each file appears
whole.
"""

import multiprocessing
import os
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

from benchmark.planning.selection import UsageError
from benchmark.workers.load import set_threads
from benchmark.workers.stopping import Asked, unheard

if TYPE_CHECKING:  # importing torch takes seconds, which an error in the arguments should not cost
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event as Mark

    from benchmark.stages.bench import Bench, Listener, Unit

_LISTEN_EVERY_S = 0.5
_GROWTH = 2.0
"""A busy worker needs about this many times the memory that networks and libraries alone take."""


class WorkerError(ChildProcessError):
    """A worker process was killed; the message is one line and says what to do."""


def worker_devices(asked: int | None, device: str) -> tuple[str, ...]:
    """Device of every worker.

    Args:
        asked: Number of workers; None: one per GPU. Without GPUs: as many as cores and memory allow, measured once the
            networks are loaded in this process (see `affordable`).
        device: Name for `flexiact.backbone.loading.resolve_device`; a GPU with a number means that GPU alone.

    Raises:
        UsageError: If there are fewer GPUs than requested workers.
        BackboneError: If the device is unknown or missing.
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
    """Number of cores that this process may use; two threads of one core count once."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def affordable(devices: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the CPU workers as free memory holds, at least one; call it once networks are loaded here."""
    held = psutil.Process().memory_info().rss
    fitting = int(psutil.virtual_memory().available / (_GROWTH * held))
    return devices[: max(1, fitting)] if devices[0] == "cpu" else devices


def share_out(
    units: "Sequence[Unit]",
    devices: Sequence[str],
    open_bench: "Callable[[str], Bench]",
    listener: "Listener",
    asked: Asked = lambda: 0,
) -> None:
    """Let one process per device do the units; their distribution changes no result.

    Args:
        units: Units of one run.
        devices: Devices of the workers; "cpu" may occur several times.
        open_bench: Picklable function that loads networks onto a device; every worker calls it once.
        listener: Listener that hears of the work of all workers.
        asked: Function that says whether to end; then workers finish the videos in work, and no others begin.

    Raises:
        WorkerError: If a worker was killed. The other workers are stopped; finished cells are kept.
    """
    if not units:
        return
    devices = devices[: len(units)]
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and the state of CUDA
    news, places, end = context.SimpleQueue(), context.SimpleQueue(), context.Event()
    for device in devices:
        places.put(device)
    waiting, seconds = list(units), dict[str, float]()
    with _closing(ProcessPoolExecutor(len(devices), context, _start, (places, news, end))) as pool:

        def next_one() -> "Future[tuple[str, float]]":
            return pool.submit(_work, open_bench, longest(waiting, seconds))

        with unheard():  # not even during their imports
            running = {next_one() for _ in devices}
            pool.submit(os.getpid)  # makes the pool update its watch list, which lacks the process started last
        while running:
            finished, running = wait(running, _LISTEN_EVERY_S, FIRST_COMPLETED)
            if asked():
                end.set()
                waiting.clear()
            while not news.empty():
                name, arguments = news.get()
                getattr(listener, name)(*arguments)
            for future in finished:
                method, seconds[method] = future.result()
                if waiting:
                    running.add(next_one())


@contextmanager
def _closing(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """End all workers when the block ends or raises; report a killed worker in one line."""
    try:
        yield pool
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.kill()  # they do not hear SIGTERM, which the pool itself would send
        if isinstance(error, BrokenProcessPool):
            raise WorkerError(
                "a worker process was killed, perhaps because memory ran out (fewer --workers need less); what is "
                "finished is kept, the same command goes on from here"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def longest(waiting: "list[Unit]", seconds: Mapping[str, float]) -> "Unit":
    """Take out the unit expected to take longest: first of methods not seen yet, then by measured seconds per cell."""
    unit = max(waiting, key=lambda unit: (seconds.get(unit[0].method, inf) * len(unit), len(unit)))
    waiting.remove(unit)
    return unit


# ------------------------------------------------------------------------------------------------- inside a worker


Event = tuple[str, tuple[object, ...]]
"""Name of a method of a listener, and its arguments."""


@dataclass(frozen=True)
class Forwarding:
    """Listener inside a worker that passes everything on as events."""

    send: Callable[[Event], object]

    def starts(self, what: str) -> None:
        """Pass on the piece of work that starts."""
        self.send(("starts", (what,)))

    def done(self, kind: str, seconds: float) -> None:
        """Pass on one finished piece."""
        self.send(("done", (kind, seconds)))


@dataclass
class _Worker:
    """State of this worker process."""

    device: str
    news: Forwarding
    end: "Mark"
    bench: "Bench | None" = None


_worker: _Worker


def _start(places: "SimpleQueue[str]", news: "SimpleQueue[Event]", end: "Mark") -> None:
    """Initialise this process as a worker."""
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(1)
    _worker = _Worker(places.get(), Forwarding(news.put), end)


def _end_with_parent() -> None:
    """End this process with its parent; a worker would otherwise wait forever after its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(open_bench: "Callable[[str], Bench]", unit: "Unit") -> tuple[str, float]:
    """Do a unit; return its method and seconds per cell. The first call loads networks, so that errors are reported."""
    if _worker.bench is None:
        _worker.bench = open_bench(_worker.device)
    start = time.perf_counter()
    _worker.bench.work(unit, _worker.news, _worker.end.is_set)
    return unit[0].method, (time.perf_counter() - start) / len(unit)
