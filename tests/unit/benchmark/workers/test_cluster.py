"""Work on a Ray cluster: nothing is lost, and what cannot be done is given up with a reason."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.planning.selection import UsageError
from benchmark.run import parser
from benchmark.stages.bench import Bench, Unit
from benchmark.stages.session import Workers
from benchmark.store.folder import StoreError
from benchmark.workers.cluster import check_cluster_options, share_out_on
from benchmark.workers.local import WorkerError
from benchmark.workers.pool import Cluster
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harm.killed_run import loading
from tests.support.harness import assert_same_runs, quick_flexiact, session
from tests.support.shared_work import Heard, never_opened, opened, unit

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    yield
    assert not ray.is_initialized()


TWO = Cluster(None, 2)


@dataclass(frozen=True)
class Noted:
    """Keeper of work that leaves nothing when its worker is lost; notes what is given up."""

    given_up: dict[str, str] = field(default_factory=dict)

    def left(self, unit: Unit) -> tuple[Unit, Unit]:
        return unit, unit

    def give_up(self, unit: Unit, reason: str) -> None:
        self.given_up[unit[0].key] = reason


def shared(folder: Path, *units: Unit, cluster: Cluster = TWO) -> tuple[Heard, dict[str, str]]:
    heard, keeper = Heard([], []), Noted()
    share_out_on(cluster, units, opened(folder), heard, keeper)
    return heard, keeper.given_up


def test_every_unit_is_done_by_processes_of_one_thread_but_the_one_that_kills_them(tmp_path: Path) -> None:
    heard, given_up = shared(tmp_path, unit("dies", "a"), unit("dies once", "b"), unit("slow", "c"), unit("slow", "d"))
    assert list(given_up) == ["a"] and given_up["a"].startswith("3 workers were lost over it; the last one: ")
    entries = {path.name: path.read_text().split() for path in tmp_path.glob("[a-d]")}
    assert set(entries) == {"a", "b", "c", "d"}
    assert {tuple(rest) for _, _, *rest in entries.values()} == {("cpu", "1")}
    assert str(os.getpid()) not in {process for _, process, *_ in entries.values()}
    assert sorted(heard.begun) == ["dies once", "slow", "slow"] and heard.finished == [("work", 1.5)] * 3


def test_a_unit_that_hangs_is_stopped_after_its_time(tmp_path: Path) -> None:
    cluster = Cluster(None, 1, minutes=0.1)
    _, given_up = shared(tmp_path, unit("waits", "a"), unit("slow", "b"), cluster=cluster)
    assert given_up == {"a": "took longer than 0.1 minutes a video"}
    assert (tmp_path / "b").exists()


def test_what_a_worker_cannot_do_is_told_here(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="disk: full"):
        shared(tmp_path, unit("cannot write", "a"), unit("waits", "b"))


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Ray cluster answers at 127.0.0.1:1"):
        shared(tmp_path, unit("slow", "a"), cluster=Cluster("127.0.0.1:1", 1))


def test_a_cluster_that_cannot_be_started_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*words: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore lines.")

    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(WorkerError, match="^Ray could not be started: The current node timed out during startup.$"):
        shared(tmp_path, unit("slow", "a"))


def test_workers_that_are_killed_while_they_load_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # so that Ray kills every worker
    with pytest.raises(WorkerError, match=r"^3 workers in a row could not be started; the last: .* low on memory"):
        share_out_on(Cluster(None, 1), [unit("slow", "a")], never_opened, Heard([], []), Noted())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "auto"], "address: it needs --executor ray"),
        (["--executor", "ray", "--minutes-per-video", "0"], "minutes-per-video: expected a number above 0, got 0"),
        (["--executor", "ray", "--threads", "2"], "threads: workers on a Ray cluster have one thread each"),
    ],
)
def test_options_that_make_no_sense_are_named(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_cluster_options(parser().parse_args(words))


def test_a_run_on_a_cluster_makes_what_one_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())
    quick_flexiact(monkeypatch)
    tiny, before = tiny_backbone(refadapter=adapter), torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has
    try:
        session(tmp_path / "one", tiny)
    finally:
        torch.set_num_threads(before)
    outcome = session(tmp_path / "two", tiny, workers=Workers(("cpu",), loading(adapter), TWO))
    assert outcome.failed == () and outcome.made == outcome.scored
    assert_same_runs(tmp_path / "one", tmp_path / "two")


def test_cells_of_a_unit_that_was_given_up_are_failed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_flexiact(monkeypatch)
    adapter = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())

    def all_given_up(cluster: Cluster, units: list[Unit], opened: object, listener: object, *rest: Any) -> None:
        keeper: Bench = rest[0]
        for one in units:
            keeper.give_up(one, "took longer than 2 minutes a video")

    monkeypatch.setattr("benchmark.stages.session.share_out_on", all_given_up)
    workers = Workers(("cpu",), loading(adapter), TWO)
    outcome = session(tmp_path / "run", tiny_backbone(refadapter=adapter), workers=workers)
    assert {row.error for row in outcome.failed} == {"took longer than 2 minutes a video"}
    assert len(outcome.failed) == outcome.made
