"""Which claims hold again on other references."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from reports.analysis.outcomes import outcome
from reports.replication import main, replication_page
from reports.results import measure
from reports.run_folder import RunError, load_run
from reports.tables.formats import CLAIMS, claims_csv

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]
VERDICTS = ("beats", "is beaten by", "equal within 0.05", "no difference shown", "not claimed: the run is incomplete")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose claims are made up, since six references allow none."""
    folder = make_run(tmp_path_factory.mktemp("run") / "run", targets=1, videos=False)
    (folder / CLAIMS).write_text(claims_csv(measure(load_run(folder)).claims))
    pd.read_csv(folder / CLAIMS).assign(verdict=VERDICTS).to_csv(folder / CLAIMS, index=False)
    return folder


def repeated(first: Path, folder: Path, change: Callable[[dict], object] = lambda info: None) -> Path:
    """A copy of a published run with other references and seeds, and a change of run.json."""
    info = json.loads((first / "run.json").read_text())
    for case in info["cases"].values():
        case["digests"] = {"reference": f"{case['reference_id']} in {folder.name}"}
    info["seeds"] = [seed + 3 for seed in info["seeds"]]
    change(info)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    (folder / CLAIMS).write_bytes((first / CLAIMS).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("before", "after", "sign", "said"),
    [
        ("beats", "beats", 1, "holds again"),
        ("equal within 0.05", "equal within 0.05", -1, "holds again"),
        ("beats", "is beaten by", -1, "contradicted"),
        ("equal within 0.05", "beats", 1, "another claim"),
        ("beats", "equal within 0.05", 1, "another claim"),
        ("beats", "no difference shown", 1, "same sign, not shown"),
        ("beats", "no difference shown", -1, "not shown"),
        ("equal within 0.05", "no difference shown", 1, "not shown"),
        ("beats", "not claimed: the run is incomplete", 1, "not tested"),
        ("no difference shown", "is beaten by", -1, "new"),
        ("not claimed: 1 seed", "no difference shown", 1, "open in both"),
    ],
)
def test_what_becomes_of_a_pair(before: str, after: str, sign: int, said: str) -> None:
    row = {"verdict": before, "mean": 0.2, "verdict_again": after, "mean_again": 0.1 * sign}
    assert outcome(pd.Series(row)) == said


def test_the_page_counts_claims_and_shows_every_pair(first: Path, tmp_path: Path, capsys) -> None:
    again = repeated(first, tmp_path / "again")
    claims = pd.read_csv(again / CLAIMS).assign(p=0.01, p_equal=0.99)
    claims = claims.assign(verdict=["no difference shown", *VERDICTS[1:]])[::-1]
    claims.to_csv(again / CLAIMS, index=False)
    assert main([str(first), str(again), "--publish", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "replication.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out
    assert "2 of 3 claims hold again" in page
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if " − " in line]
    assert [row[1] for row in cells] == list(claims["name"] + " − " + claims["minus"])[::-1]
    assert [row[5] for row in cells] == ["0.010", "0.010", "0.990", "0.010", "0.010"]
    assert [row[-2] for row in cells] == ["same sign, not shown", "holds again", "holds again", *["open in both"] * 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info: info["seeds"].pop(), "differ in number of seeds"),
        (lambda info: info.update(seeds=[2, 3, 4]), "share seeds"),
        (lambda info: info.update(truth={"version": 99}), "differ in truth"),
        (lambda info: info["methods"]["flexiact"].update(version=99), "differ in settings of flexiact,"),
        (lambda info: info["methods"].pop("i2v"), "differ in settings of i2v,"),
        (lambda info: [m.update(version=99) for m in info["metrics"].values()], "differ in headline"),
        (lambda info: [m.update(headline=False) for m in info["metrics"].values()], "lacks its headline"),
    ],
)
def test_only_cases_and_seeds_may_differ(first: Path, tmp_path: Path, change, said: str) -> None:
    with pytest.raises(RunError, match=said):
        replication_page(first, repeated(first, tmp_path / "again", change))


def test_a_new_text_is_no_new_setting(first: Path, tmp_path: Path) -> None:
    again = repeated(first, tmp_path / "again", lambda info: info["methods"]["flexiact"].update(summary="said anew"))
    assert "3 of 3 claims hold again" in replication_page(first, again)


def test_a_run_does_not_repeat_itself_and_no_pair_is_left_out(first: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="share references and seeds"):
        replication_page(first, first)
    again = repeated(first, tmp_path / "again")
    claims = pd.read_csv(again / CLAIMS)
    for one, other in ((first, again), (again, first)):
        claims[1:].to_csv(again / CLAIMS, index=False)
        with pytest.raises(RunError, match=f"again: lacks 1 of the pairs, such as {claims['name'][0]} and "):
            replication_page(one, other)
    claims.drop(columns="verdict").to_csv(again / CLAIMS, index=False)
    with pytest.raises(RunError, match="lacks verdict"):
        replication_page(first, again)
    (again / CLAIMS).unlink()
    with pytest.raises(RunError, match=r"has no claims\.csv"):
        replication_page(first, again)
