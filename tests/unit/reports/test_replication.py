"""Which claims hold again on other references."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from reports.replication import main, outcome, replication_page
from reports.results import measure
from reports.run_folder import RunError, load_run
from reports.tables.formats import CLAIMS, claims_csv

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]


VERDICTS = ("beats", "is beaten by", "equal within 0.05", "no difference shown", "not claimed: the run is incomplete")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("run") / "run", targets=1, videos=False)
    (folder / CLAIMS).write_text(claims_csv(measure(load_run(folder)).claims))
    claims = pd.read_csv(folder / CLAIMS)
    claims.assign(verdict=VERDICTS).to_csv(folder / CLAIMS, index=False)  # six references allow no claim
    return folder


def of_other_references(published: Path, folder: Path, **changes: object) -> Path:
    """A copy of a published run on other references, with changes of run.json."""
    info = json.loads((published / "run.json").read_text())
    for case in info["cases"].values():
        case["digests"] = {"reference": f"{case['reference_id']} in {folder.name}"}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info | changes))
    (folder / CLAIMS).write_bytes((published / CLAIMS).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("before", "after", "sign", "said"),
    [
        ("beats", "beats", 1, "holds again"),
        ("equal within 0.05", "equal within 0.05", -1, "holds again"),
        ("beats", "is beaten by", -1, "contradicted"),
        ("equal within 0.05", "beats", 1, "contradicted"),
        ("beats", "no difference shown", 1, "same sign, not shown"),
        ("beats", "not claimed: 1 seed", -1, "not shown"),
        ("equal within 0.05", "no difference shown", 1, "not shown"),
        ("no difference shown", "is beaten by", -1, "new"),
        ("not claimed: 1 seed", "no difference shown", 1, "open in both"),
    ],
)
def test_what_becomes_of_a_pair(before: str, after: str, sign: int, said: str) -> None:
    row = {"verdict": before, "mean": 0.2, "verdict_again": after, "mean_again": 0.1 * sign}
    assert outcome(pd.Series(row)) == said


def test_the_page_counts_claims_and_shows_every_pair(published: Path, tmp_path: Path, capsys) -> None:
    first, again = (of_other_references(published, tmp_path / name) for name in ("first", "again"))
    claims = pd.read_csv(again / CLAIMS)
    claims.assign(verdict=["no difference shown", *VERDICTS[1:]]).to_csv(again / CLAIMS, index=False)
    assert main([str(first), str(again), "--publish", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "replication.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out
    assert "2 of 3 claims hold again" in page
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if " − " in line]
    assert [row[1] for row in cells] == list(claims["name"] + " − " + claims["minus"])
    assert [row[-2] for row in cells] == ["same sign, not shown", "holds again", "holds again", *["open in both"] * 2]


def test_only_the_cases_may_differ(published: Path, tmp_path: Path) -> None:
    first = of_other_references(published, tmp_path / "first")
    with pytest.raises(RunError, match="share references"):
        replication_page(first, first)
    info = json.loads((first / "run.json").read_text())
    tuned = {name: {**entry, "transfer_config": {"tuned": True}} for name, entry in info["methods"].items()}
    measured_anew = {name: {**entry, "version": 99} for name, entry in info["metrics"].items()}
    for name, changes, said in (
        ("seeds", {"seeds": [0, 1]}, "differ in seeds"),
        ("tuned", {"methods": tuned}, "settings of .*flexiact"),
        ("metric", {"metrics": measured_anew}, "differ in headline"),
    ):
        again = of_other_references(published, tmp_path / name, **changes)
        with pytest.raises(RunError, match=said):
            replication_page(first, again)
    (first / CLAIMS).unlink()
    with pytest.raises(RunError, match="has no claims.csv"):
        replication_page(first, again)
