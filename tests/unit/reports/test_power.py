"""The command that says how many references a difference needs."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

from reports.power import main, power_page

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]


def test_a_page_names_pairs_and_asks_for_more_references_for_less(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    rows = [line.split(" | ") for line in power_page(tmp_path / "run", [0.05, 0.5]).splitlines() if " - " in line]
    assert rows
    for row in rows:
        few, many = int(row[-1].rstrip(" |")), int(row[-2])
        assert 2 <= few <= many


def test_more_references_than_are_tried_are_no_exact_number(tmp_path: Path) -> None:
    make_run(tmp_path / "run", references=2, targets=1, seeds=(0,), videos=False)
    rows = [line for line in power_page(tmp_path / "run", [1e-9]).splitlines() if " - " in line]
    assert rows and all(row.endswith(" 1000000 or more |") for row in rows)


def test_the_page_says_which_rows_were_left_out(tmp_path: Path) -> None:
    scores = make_run(tmp_path / "run", references=2, targets=1, seeds=(0,), videos=False) / "scores.parquet"
    table = pd.read_parquet(scores)
    table.assign(metric_version=1 + (table["metric"] == "pck")).to_parquet(scores)
    assert " rows of another metric version were left out (pck)." in power_page(tmp_path / "run", [0.1])


def test_a_published_page_is_the_printed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", videos=False)
    assert main([str(tmp_path / "run"), "--publish", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "power.md").read_text(encoding="utf-8") == capsys.readouterr().out


def test_differences_have_to_be_above_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--differences", "0"]) == 2
    assert capsys.readouterr().err == "error: differences: expected numbers above 0\n"
