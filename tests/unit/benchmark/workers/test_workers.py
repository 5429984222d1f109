"""Work in several processes: nothing is lost, nothing is different, and nobody stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch

from benchmark.planning.selection import UsageError
from benchmark.stages.session import Workers
from benchmark.store.folder import StoreError
from benchmark.workers.local import WorkerError, affordable, physical_cores, share_out, worker_devices
from benchmark.workers.pool import Cluster, Pool
from flexiact.backbone.backbone import Backbone
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harm.killed_run import dying, loading
from tests.support.harness import MEASURED, assert_same_runs, quick_flexiact, session, tree
from tests.support.quick_help import ROOT
from tests.support.shared_work import Heard, opened, unit


def shared(folder: Path, *units, devices: tuple[str, ...] = ("cpu", "cpu")) -> Heard:
    heard = Heard([], [])
    share_out(units, devices, opened(folder), heard)
    return heard


def test_every_unit_is_done_once_by_processes_of_one_thread_each_on_its_own_device(tmp_path: Path) -> None:
    units = [unit("slow", f"u{i}") for i in range(6)]
    heard = shared(tmp_path, *units, devices=("cuda:0", "cuda:1"))
    entries = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(entries) == 6
    places = {(process, device) for _, process, device, _ in entries}
    assert len(places) == 2 and {device for _, device in places} == {"cuda:0", "cuda:1"}
    assert str(os.getpid()) not in {process for process, _ in places}
    assert {threads for *_, threads in entries} == {"1"}
    assert (heard.begun, heard.finished) == (["slow"] * 6, [("work", 1.5)] * 6)
    assert not multiprocessing.active_children()


def test_a_method_that_is_not_known_comes_first_and_then_the_longest(tmp_path: Path) -> None:
    units = [unit("quick", "a"), unit("quick", "b"), unit("slow", "c"), unit("slow", "d", size=3), unit("slow", "e", 2)]
    shared(tmp_path, *units, devices=("cpu",))
    order = sorted(tmp_path.iterdir(), key=lambda path: int(path.read_text().split()[0]))
    assert [path.name for path in order] == ["d", "a", "e", "c", "b"]


def test_a_killed_worker_ends_all_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match="^a worker process was killed, .*the same command goes on from here$"
    ) as told:
        shared(tmp_path, unit("waits", "a"), unit("dies", "b"), unit("slow", "c"))
    assert "\n" not in str(told.value)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "c").exists()


def test_what_a_worker_cannot_do_is_told_here(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="^disk: full$"):
        shared(tmp_path, unit("waits", "a"), unit("cannot write", "b"))
    assert not multiprocessing.active_children()


@pytest.fixture(params=["waits"])
def at_work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A process whose two workers are at work, in a group of their own as a terminal gives them."""
    command = [sys.executable, "-m", "tests.support.shared_work", str(tmp_path), request.param]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # xdist's processes ignore it, and so would this one
    parent = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) >= 2)
        yield parent, psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()  # and its workers with it, as a test below holds
        parent.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_the_second_signal_ends_the_workers_at_once(at_work) -> None:
    parent, family = at_work
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.stderr.readline() + parent.stderr.readline() == "\nstops after the videos in work (again: now)\n"
    os.killpg(parent.pid, signal.SIGINT)
    assert (parent.wait(120), parent.stderr.read()) == (130, "")
    wait_for(lambda: not any(process.is_running() for process in family))


@pytest.mark.parametrize("at_work", ["slow"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_workers_finish_what_they_do(at_work, number: int, tmp_path: Path) -> None:
    parent, family = at_work
    os.killpg(parent.pid, number)
    assert parent.wait(120) == 128 + number
    begun, finished = map(int, parent.stdout.read().split())
    assert 2 <= begun == finished == len(list(tmp_path.iterdir())) < 200
    wait_for(lambda: not any(process.is_running() for process in family))


def test_workers_end_with_the_process_that_plans(at_work) -> None:
    parent, family = at_work
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(process.is_running() for process in family))


# ------------------------------------------------------------------------------------------------------ how many


def cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    def resolved(name: str) -> torch.device:  # without trying the device, which is not there
        return torch.device(("cuda" if count else "cpu") if name == "auto" else name)

    monkeypatch.setattr("flexiact.backbone.loading.resolve_device", resolved)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "asked", "device", "expected"),
    [
        (0, 3, "auto", ("cpu",) * 3),
        (2, 3, "cpu", ("cpu",) * 3),
        (1, None, "auto", ("cuda",)),
        (3, None, "auto", ("cuda:0", "cuda:1", "cuda:2")),
        (3, 2, "cuda", ("cuda:0", "cuda:1")),
        (3, None, "cuda:1", ("cuda:1",)),
    ],
)
def test_one_worker_a_gpu(monkeypatch, count: int, asked: int | None, device: str, expected: tuple) -> None:
    cards(monkeypatch, count)
    assert worker_devices(asked, device) == expected


@pytest.mark.parametrize(("asked", "device", "most"), [(4, "auto", 3), (2, "cuda:1", 1)])
def test_gpus_are_not_shared(monkeypatch, asked: int, device: str, most: int) -> None:
    cards(monkeypatch, 3)
    with pytest.raises(UsageError, match=f"workers: expected at most {most}, one a GPU, got {asked}"):
        worker_devices(asked, device)


def test_without_gpus_one_worker_a_core_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for found, cores in ((4, 4), (None, 8), (16, 8)):  # two threads a core; not known; other processes have the rest
        monkeypatch.setattr(psutil, "cpu_count", lambda logical, found=found: found)
        assert physical_cores() == cores and worker_devices(None, "auto") == ("cpu",) * cores


def test_no_more_workers_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    held = psutil.Process().memory_info().rss
    for free, count in ((0.5, 1), (4.5, 2), (100.0, 4)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free * held * 1.05))
        assert len(affordable(("cpu",) * 4)) == count
        assert affordable(("cuda:0", "cuda:1")) == ("cuda:0", "cuda:1")


def test_workers_of_a_cluster_are_counted_as_local_ones_are() -> None:
    assert Workers(("cpu", "cpu"), loading(Path())).number == 2
    assert Workers(("cpu",), loading(Path()), Cluster(None, 3)).number == 3


# ------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As each worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """What `loading` gives a worker, in this process, which other tests share."""
    quick_flexiact(monkeypatch)
    return tiny_backbone(refadapter=adapter)


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(tmp_path: Path, adapter: Path, tiny: Backbone) -> None:
    workers = Workers(("cpu", "cpu"), loading(adapter))
    session(tmp_path / "one", tiny)
    outcome = session(tmp_path / "two", tiny, workers=workers)
    assert (outcome.made, outcome.scored, outcome.failed) == (28, 28, ())
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    rows = pd.read_parquet(tmp_path / "two" / "samples.parquet")
    made = rows[rows["fit_key"].notna()]
    assert (made[MEASURED] > 0).all(axis=None)
    before = tree(tmp_path / "two")
    assert session(tmp_path / "two", tiny, workers=workers).made == 0
    assert tree(tmp_path / "two") == before


@pytest.mark.slow
def test_a_run_goes_on_after_a_worker_was_killed(tmp_path: Path, adapter: Path, tiny: Backbone) -> None:
    for number, writes in enumerate((0, 6)):
        claim = tmp_path / f"claim{number}"
        with pytest.raises(WorkerError):
            session(tmp_path / "killed", tiny, workers=Workers(("cpu", "cpu"), dying(adapter, writes, claim)))
        assert list((tmp_path / "killed").rglob("*.partial"))
    records = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "records").glob("*/*.json")}
    assert records
    session(tmp_path / "killed", tiny, workers=Workers(("cpu", "cpu"), loading(adapter)))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "records").glob("*/*.json")}
    assert records.items() <= after.items()
    session(tmp_path / "whole", tiny)
    assert_same_runs(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    ("each", "resources", "expected"),
    [
        (0, {"CPU": 3.0}, 3),
        (0.5, {"CPU": 8.0, "GPU": 2.0}, 4),
        (1, {"CPU": 2.0, "GPU": 8.0}, 2),
        (0, {"memory": 1.0}, "a worker needs a core, but the cluster has 0"),
        (1, {"CPU": 0.5, "GPU": 8.0}, "a worker needs a core, but the cluster has 0.5"),
        (2, {"CPU": 8.0, "GPU": 1.0}, "gpus-per-worker: 2, but the cluster has 1 GPUs"),
    ],
)
def test_a_cluster_has_workers_for_its_cores_and_gpus_or_says_which_are_short(
    each: float, resources: dict[str, float], expected: int | str
) -> None:
    ray = SimpleNamespace(cluster_resources=lambda: resources)
    pool = Pool(ray, Cluster(None, 9, each), opened(Path()), Heard([], []), None, [], lambda: 0)
    if isinstance(expected, int):
        assert pool._fitting() == expected
    else:
        with pytest.raises(UsageError, match=expected):
            pool._fitting()
