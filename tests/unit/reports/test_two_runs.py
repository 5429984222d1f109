"""Two runs side by side: differences paired over references, and every cell that differs by name."""

import json
import math
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.compare import main
from reports.analysis.inference import student_interval
from reports.run_folder import RunError, load_run
from reports.two_runs import compared, swapped, text

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
make_run = runpy.run_path(str(GOLDEN / "fake_run.py"))["make_run"]
METHOD, METRIC = "flexiact", "motion_agreement"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "first", references=3, targets=2, seeds=(0, 1), videos=False)


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "second"))


def change_table(folder: Path, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = folder / f"{name}.parquet"
    edit(pd.read_parquet(path)).to_parquet(path)


def change_info(folder: Path, edit: Callable[[dict], object]) -> None:
    info = json.loads((folder / "run.json").read_text())
    edit(info)
    (folder / "run.json").write_text(json.dumps(info))


def added(amounts: dict[str, float]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Scores with an amount added to one method's metric, by reference."""

    def edit(table: pd.DataFrame) -> pd.DataFrame:
        mine = (table["method"] == METHOD) & (table["metric"] == METRIC)
        amount = table["case_id"].str.split("-").str[0].map(amounts)
        return table.assign(value=table["value"].where(~mine, table["value"] + amount))

    return edit


def test_a_run_equals_itself(run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), str(other)]) == 0
    shown = capsys.readouterr().out
    assert "no cell differs" in shown and "120 of 120 pairs of method and metric are equal everywhere" in shown
    assert "differ in" not in shown and "metric  " not in shown


def test_differences_are_paired_and_their_intervals_are_over_references(run: Path, other: Path) -> None:
    amounts = {"wave": 0.1, "jump": 0.4, "squat": 0.7}
    change_table(other, "scores", added(amounts))
    found = compared(load_run(run), load_run(other))
    (change,) = [change for change in found.changes if change.changed]
    assert (change.method, change.metric, change.cells, change.changed) == (METHOD, METRIC, 12, 12)
    assert change.difference.mean == pytest.approx(0.4)
    assert (change.difference.low, change.difference.high) == pytest.approx(
        student_interval(np.array([*amounts.values()]))
    )
    assert change.means[1] - change.means[0] == pytest.approx(0.4)
    assert change.difference.references == 3
    assert len(found.cells) == 12 and set(found.cells["what"]) == {METRIC}


def test_a_metric_moves_as_far_as_its_means_and_its_cells(run: Path, other: Path) -> None:
    def move(table: pd.DataFrame) -> pd.DataFrame:
        mine = table["metric"] == METRIC
        by_method = table["method"].map({METHOD: 0.1, "i2v": -0.4}).fillna(0)
        by_case = np.where(table["case_id"].str.startswith("wave"), 0.3, 0) * (table["method"] == METHOD)
        return table.assign(value=table["value"].where(~mine, table["value"] + by_method + by_case))

    change_table(other, "scores", move)
    found = compared(load_run(run), load_run(other))
    (moved,) = found.movements
    assert (moved.metric, moved.farthest) == (METRIC, "i2v")
    assert moved.of_means == pytest.approx(((0.2 + 0.4) / 2, 0.4))  # one of three references moves 0.3 more
    assert moved.of_cells[1] == pytest.approx(0.4) and 0.2 < moved.of_cells[0] < 0.4
    assert f"{METRIC:31}     0.3     0.4 " in text(found)


def test_methods_that_change_places_are_named(run: Path, other: Path) -> None:
    means = {change.method: change.means[0] for change in compared(load_run(run), load_run(run)).changes
             if change.metric == METRIC}  # fmt: skip
    methods = [name for name in load_run(run).methods if name in means]
    ahead = [name for name in methods if means[name] > means[METHOD]]
    behind = [name for name in methods if means[name] < means[METHOD]]
    assert behind
    change_table(other, "scores", added(dict.fromkeys(("wave", "jump", "squat"), -9.0)))
    found = compared(load_run(run), load_run(other))
    pairs, number_of = swapped(found, METRIC)
    assert {name for pair in pairs for name in pair} - {METHOD} == set(behind)
    assert (len(pairs), number_of) == (len(behind), math.comb(len(methods), 2)) and len(ahead) + len(behind) < number_of
    assert f"{len(behind)} of {number_of} pairs of methods change their order by {METRIC}: " in text(found)


def test_a_value_that_became_a_failure_and_another_video_are_differences(run: Path, other: Path) -> None:
    case = load_run(run).samples["case_id"].iloc[0]

    def fail(table: pd.DataFrame) -> pd.DataFrame:
        mine = (table["method"] == METHOD) & (table["metric"] == METRIC) & (table["case_id"] == case)
        return table.assign(status=table["status"].where(~mine, "failed"), value=table["value"].where(~mine))

    def film(table: pd.DataFrame) -> pd.DataFrame:
        mine = (table["method"] == "i2v") & (table["case_id"] == case) & (table["seed"] == 1)
        return table.assign(video_digest=table["video_digest"].where(~mine, "0" * 64))

    change_table(other, "scores", fail)
    change_table(other, "samples", film)
    found = compared(load_run(run), load_run(other))
    told = found.cells.set_index(["method", "what"]).sort_index()
    assert list(told.loc[(METHOD, METRIC), "second"]) == ["failed", "failed"]
    assert list(told.loc[[("i2v", "video")], "second"]) == ["0" * 64]
    (change,) = [change for change in found.changes if change.changed]
    assert (change.cells, change.changed, change.difference.mean) == (12, 2, 0)
    assert f"i2v on {case} at seed 1: its video" in text(found)


def test_videos_of_a_bound_without_seeds_are_compared_whatever_the_seeds(
    run: Path, other: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copytree(run, tmp_path / "first"))
    for folder in (first, other):
        change_info(folder, lambda info: info["methods"]["still"].update(sampled=False))
    change_info(other, lambda info: info.update(seeds=[1, 2]))
    change_table(other, "scores", lambda table: table.assign(seed=table["seed"] + 1))
    change_table(other, "samples", lambda table: table.assign(
        seed=table["seed"] + 1, video_digest=table["video_digest"].where(table["method"] != "still", "0" * 64),
    ))  # fmt: skip
    cells = compared(load_run(first), load_run(other)).cells
    stills = cells[(cells["method"] == "still") & (cells["what"] == "video")]
    assert list(stills["second"]) == ["0" * 64] * 6 and set(stills["seed"]) == {0}


def test_the_command_says_it_in_80_columns_and_exit_code_1(
    run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_table(other, "scores", added({"wave": -1234.5, "jump": 0.4, "squat": 0.7}))
    change_info(other, lambda info: info["methods"][METHOD].update(summary="x" * 300))
    assert main([str(run), str(other), "--all", "--csv", str(tmp_path / "cells.csv")]) == 1
    shown = capsys.readouterr().out
    body = shown.splitlines()[2:]  # the first two lines are paths
    assert max(map(len, body)) <= 80
    assert f"differ in methods.{METHOD}.summary" in shown
    assert "and 2 more (--csv lists all)" in shown
    assert shown.count("\nmetric ") == 11  # a table a method and bound, because of --all, and how far metrics move
    assert len(pd.read_csv(tmp_path / "cells.csv")) == 12


def test_settings_of_one_run_alone_are_listed_but_not_its_methods(run: Path, other: Path) -> None:
    change_info(other, lambda info: info["methods"][METHOD].update(crops=0))
    change_info(other, lambda info: info["backbone"].update(lent={"from": "elsewhere"}))
    change_info(other, lambda info: info["methods"].pop("i2v"))
    for pair in ((run, other), (other, run)):
        assert set(compared(*map(load_run, pair)).settings) == {f"methods.{METHOD}.crops", "backbone.lent"}


def test_rows_that_were_left_out_while_reading_are_said(run: Path, other: Path) -> None:
    rows = int((pd.read_parquet(run / "scores.parquet")["metric"] == "pck").sum())
    change_table(other, "scores", lambda table: table.assign(metric_version=1 + (table["metric"] == "pck")))
    shown = text(compared(load_run(run), load_run(other)))
    assert f"\nin the second: {rows} rows of another metric version were left out (pck).\n" in shown
    assert "in the first: " not in shown


def test_what_only_one_run_has_is_said_and_what_no_longer_compares_is_left_out(run: Path, other: Path) -> None:
    for table in ("samples", "scores"):
        change_table(other, table, lambda rows: rows[(rows["method"] != "i2v") & (rows["seed"] == 0)])
    change_info(other, lambda info: info["methods"].pop("i2v"))
    change_info(other, lambda info: info["metrics"][METRIC].update(version=2))
    change_table(other, "scores", lambda rows: rows.assign(
        metric_version=rows["metric_version"].where(rows["metric"] != METRIC, 2),
        backend=rows["backend"].where(rows["metric"] != "pck", "another judge"),
    ))  # fmt: skip
    found = compared(load_run(run), load_run(other))
    assert f"not compared: {METRIC}, whose versions are 1 and 2" in found.alone
    assert "not compared: pck, which was measured by mmpose/puppets and another judge" in found.alone
    assert "only in the first: 1 method, i2v" in found.alone
    assert "only in the first: 35 cells" in found.alone  # i2v's twelve, and seed 1 of four methods less a missing one
    assert not {METRIC, "pck"} & {change.metric for change in found.changes}
    assert not any(change.changed for change in found.changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda info: info.update(suite="others"), "suite is others, in .* it is "),
        (lambda info: info.update(suite_digest="f" * 64), "suite_digest is f"),
        (lambda info: [entry.update(version=9) for entry in info["metrics"].values()], "no cell and metric in common"),
    ],
)
def test_runs_that_do_not_compare_are_refused(run: Path, other: Path, edit, message: str) -> None:
    change_info(other, edit)
    with pytest.raises(RunError, match=message):
        compared(load_run(run), load_run(other))


def test_one_reference_has_no_interval(run: Path, other: Path) -> None:
    for folder in (run, other):
        assert load_run(folder).headline == METRIC
    change_table(other, "scores", lambda rows: rows[rows["case_id"].str.startswith("wave")])
    change_table(other, "samples", lambda rows: rows[rows["case_id"].str.startswith("wave")])
    change_table(other, "scores", added({"wave": 1.0}))
    found = compared(load_run(run), load_run(other))
    (change,) = [change for change in found.changes if change.changed]
    assert change.difference.mean == pytest.approx(1) and math.isnan(change.difference.low)
