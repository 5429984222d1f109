"""The whole thing, from the command to the page: started, killed, started again."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.methods import METHODS
from tests.support.harness import tree

ROOT = Path(__file__).parents[1]
MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]
SMOKE = ("--suite", "puppets-smoke", "--device", "cpu")
PARTS = ("backbone", "refadapter", "control", "clip", "pose", "pose_driver")

pytestmark = pytest.mark.slow


def run(*command: object) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)


def tables(out: Path) -> list[pd.DataFrame]:
    samples = pd.read_parquet(out / "samples.parquet").drop(columns=MEASURED)
    return [samples, pd.read_parquet(out / "scores.parquet")]


def test_killed_anywhere_and_started_again_ends_as_if_never_killed(tmp_path: Path) -> None:
    # One child dies at the first file, others among inputs, videos, fits, records, features, scores and tables.
    kills = ["0", "3", "6", "1", "4", "20", "7", "15", "25", "5", "2"]
    killed = run("tests.support.harm.killed_run", tmp_path / "killed", *kills)
    assert killed.stdout.split("\n")[:-1] == ["killed"] * len(kills) + ["ended with 0"], killed.stderr
    whole = run("tests.support.harm.killed_run", tmp_path / "whole")
    assert whole.stdout == "ended with 0\n", whole.stderr
    for one, other in zip(tables(tmp_path / "killed"), tables(tmp_path / "whole"), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert set(tree(tmp_path / "killed")) == set(tree(tmp_path / "whole"))
    assert not list((tmp_path / "killed").rglob("*.partial"))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("smoke") / "run"
    return out, run("benchmark.run", "--methods", "all", *SMOKE, "--workers", 2, "--out", out)


def test_the_smoke_suite_makes_videos_tables_and_a_page(smoke) -> None:
    out, done = smoke
    assert done.returncode == 0, done.stderr
    samples, scores = tables(out)
    assert set(samples["method"]) == {*METHODS, *BOUNDS}
    assert set(samples["status"]) == {"ok"}
    assert set(scores["status"]) <= {"ok", "skipped"}
    assert f"report: {out / 'report' / 'leaderboard.html'}" in done.stdout
    for name in (*(f"leaderboard.{kind}" for kind in ("html", "md", "csv", "tex")), "claims.csv", "contact_sheet.png"):
        assert (out / "report" / name).stat().st_size > 0
    origin = json.loads((out / "run.json").read_text())["provenance"]
    assert set(origin["weights"]) == set(PARTS)
    assert (origin["threads"], origin["workers"]) == (1, 2) and origin["flags"]["deterministic_algorithms"]


def test_the_smoke_suites_bounds_are_where_they_belong(smoke) -> None:
    out, _ = smoke
    scores = tables(out)[1]
    agreement = scores[scores["metric"] == "motion_agreement"].groupby("method")["value"].mean()
    # The pose judge's card: about .82 is what it gives to the truth itself on average; these are two cases only.
    assert agreement["oracle"] > 0.7
    assert agreement["oracle-codec"] > 0.55
    assert agreement["still"] == 0
    assert agreement["wrong-action"] < agreement["oracle-codec"] - 0.2


def test_started_again_the_command_changes_nothing(smoke) -> None:
    out, first = smoke
    before = {name: file for name, file in tree(out).items() if not name.startswith("report/")}
    again = run("benchmark.run", "--methods", "all", *SMOKE, "--workers", 2, "--out", out)
    assert again.returncode == 0, again.stderr
    assert {name: file for name, file in tree(out).items() if not name.startswith("report/")} == before
    assert "nothing to do in this session" in again.stdout


def test_one_worker_makes_the_same_videos_and_scores(smoke, tmp_path: Path) -> None:
    some = ("i2v", "smm", *BOUNDS)
    done = run("benchmark.run", "--methods", "i2v", "smm", *SMOKE, "--workers", 1, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    for two, one in zip(tables(smoke[0]), tables(tmp_path / "one"), strict=True):
        chosen = two[two["method"].isin(some)]
        keys = [name for name in ("method", "case_id", "metric") if name in one]
        pd.testing.assert_frame_equal(*(rows.sort_values(keys, ignore_index=True) for rows in (chosen, one)))
