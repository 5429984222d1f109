"""A signal ends a session after the video in work, with what is finished in the tables; the next one goes on."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

import benchmark.run as command
from benchmark.console.run_progress import Progress
from benchmark.planning.job_shards import Shard
from benchmark.stages.bench import Bench, Unit
from benchmark.stages.session import Outcome, RunRequest, Workers
from benchmark.workers.pool import Cluster
from benchmark.workers.stopping import ASKS, unheard, until_asked
from tests.support.harness import CASES, METRICS, quick_flexiact, session
from tests.support.shared_work import Heard, never_opened

MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]
ASKED = {"cases": CASES[:1], "methods": ("base-embedding", "i2v")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_session_keeps_what_is_finished_and_goes_on(
    backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    quick_flexiact(monkeypatch)
    heard: list[str] = []
    done = Progress.done

    def signalled(self: Progress, kind: str, seconds: float) -> None:
        done(self, kind, seconds)
        heard.append(kind)
        if len(heard) == after:
            os.kill(os.getpid(), number)

    out, before = tmp_path / "run", signal.getsignal(number)  # under xdist another one than Python's own
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "done", signalled)
        outcome = session(out, backbone, **ASKED)
    assert outcome.stopped == number and len(heard) == after
    samples = pd.read_parquet(out / "samples.parquet")
    made = {path.stem for path in (out / "records").glob("*/*.json")}
    assert set(samples[samples["status"] == "ok"]["key"]) == made and 0 < len(made) < len(samples)
    assert f"ends      stopped by {signal.Signals(number).name}" in (out / "log.txt").read_text()
    assert signal.getsignal(number) is before

    assert session(out, backbone, **ASKED).stopped == 0
    session(tmp_path / "whole", backbone, **ASKED)
    for name in ("samples", "scores"):
        one, other = (pd.read_parquet(folder / f"{name}.parquet") for folder in (out, tmp_path / "whole"))
        drop = MEASURED if name == "samples" else []
        pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_second_signal_ends_at_once(number: int, ending: type[BaseException]) -> None:
    with pytest.raises(ending) as ended, until_asked() as asked:
        os.kill(os.getpid(), number)
        assert asked() == number
        os.kill(os.getpid(), number)
    assert ending is KeyboardInterrupt or ended.value.code == 143


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    def seen() -> list[object]:
        with until_asked() as asked, unheard():
            return [asked(), *map(signal.getsignal, ASKS)]

    before = [signal.getsignal(number) for number in ASKS]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(seen).result() == [0, *before]
    with unheard():
        assert [signal.getsignal(number) for number in ASKS] == [signal.SIG_IGN] * 2
    assert [signal.getsignal(number) for number in ASKS] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_it_goes_on(number: int, code: int, tmp_path: Path, capsys) -> None:
    request = RunRequest("small", CASES, ("i2v",), (0,), METRICS, tmp_path, command="python -m benchmark.run --seeds 0")
    assert command._report(request, Outcome(3, 3, (), number)) == code
    assert capsys.readouterr().err == "stopped after 3 videos; this goes on: python -m benchmark.run --seeds 0\n"
    assert not any(tmp_path.iterdir())


def test_videos_that_nobody_could_measure_are_told_by_the_exit_code(tiny, tmp_path: Path, monkeypatch, capsys) -> None:
    """As on a cluster: units are given up while their videos, which are made, are measured."""

    def lost(cluster: Cluster, units: list[Unit], opened: object, listener: Heard, bench: Bench, asked: object) -> None:
        for unit in units:
            with monkeypatch.context() as patch:
                patch.setattr(bench.scorer, "score", lambda cell, row: None)
                bench.work(unit, listener)
            bench.give_up(unit, "3 workers were lost over it")

    monkeypatch.setattr("benchmark.stages.session.share_out_on", lost)
    asked = {"cases": CASES[:1], "methods": ("i2v",), "shard": Shard(1, 1)}
    outcome = session(tmp_path, tiny, workers=Workers(("cpu",), never_opened, Cluster(None, 1)), **asked)
    assert outcome.failed == () and outcome.scored == 0 < outcome.made == outcome.unmeasured
    assert command._failures(outcome) == 1
    assert f"{outcome.made} videos were not measured" in capsys.readouterr().err
    again = session(tmp_path, tiny, **asked)
    assert (again.made, again.scored, again.unmeasured) == (0, outcome.made, 0)
    assert command._failures(again) == 0
