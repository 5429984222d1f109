"""Distribute units of work over a Ray cluster, whose machines share the run directory.

Ray starts workers, finds lost ones and knows which machine has a free GPU. Every worker loads the networks once. At any
time each worker has one unit, so that a plan of a million cells stays here. Results are files, as with local workers,
and their digests are the same.
"""

import argparse
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmark.planning.selection import UsageError
from benchmark.workers.local import WorkerError, physical_cores
from benchmark.workers.pool import Cluster, Pool, reason_of
from benchmark.workers.stopping import Asked

if TYPE_CHECKING:
    from benchmark.stages.bench import Bench, Listener, Unit


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


def share_out_on(
    cluster: Cluster,
    units: "Sequence[Unit]",
    open_bench: "Callable[[str], Bench]",
    listener: "Listener",
    keeper: "Bench",
    asked: Asked = lambda: 0,
) -> None:
    """Let workers of a cluster do the units.

    What a lost worker left of its unit goes to another one. A video or fit is given up once
    `benchmark.workers.pool.ATTEMPTS` workers were lost over it, or when the time of its unit is over.

    Arguments are those of `benchmark.workers.local.share_out`, and `keeper`, which reads and writes results here. The
    listener hears of whole units, and workers that are asked to end finish theirs.

    Raises:
        UsageError: If Ray is not installed, there is no cluster at the address, or it is too small for one worker.
        WorkerError: If workers cannot be started.
    """
    if not units:
        return
    with _connected(cluster) as ray:
        Pool(ray, cluster, open_bench, listener, keeper, list(units), asked).run()


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise UsageError("executor: ray is not installed; pip install 'flexiact-suite[ray]'") from None
    own: dict[str, Any] = {"num_cpus": cluster.workers, "include_dashboard": False}
    try:
        _knock(cluster.address)
    except OSError as error:
        raise UsageError(f"address: no Ray cluster answers at {cluster.address}") from error
    try:
        more = {} if cluster.address else own
        with _own_signals():
            ray.init(cluster.address or "local", log_to_driver=False, logging_level=logging.ERROR, **more)
    except ConnectionError as error:
        raise UsageError(f"address: no Ray cluster answers at {cluster.address}") from error
    except Exception as error:  # Ray raises plain ones, for example if this machine is too busy to start it in time
        raise WorkerError(f"Ray could not be started: {reason_of(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()  # workers end with the process that plans


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from taking SIGTERM, which asks a run to end after the videos in work."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
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
