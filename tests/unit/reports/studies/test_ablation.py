"""The page of an ablation: its numbers are those of the run, and rows that are missing are refused."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from reports.analysis.statistics import compare, tidy
from reports.run_folder import RunError, load_run
from reports.studies.ablation import Ablation, Row, name_in_run, publish, value_of
from reports.studies.sessions import Session, joined

make_run = runpy.run_path(str(Path(__file__).parents[3] / "golden" / "report" / "fake_run.py"))["make_run"]

ROWS = (
    Row("without the schedule", "flexiact-no-schedule", "flexiact-no-schedule"),
    Row("alpha: as set", "flexiact", "flexiact", "alpha", None, "schedule.alpha"),
    Row("alpha: 0.5", "flexiact", "flexiact[schedule.alpha=0.5]", "alpha", 0.5, "schedule.alpha"),
    Row("alpha: 2", "flexiact", "flexiact[schedule.alpha=2]", "alpha", 2.0, "schedule.alpha"),
    Row("base: as set", "base-embedding", "base-embedding", "base", None, "fit_steps"),
)
OVER = {"alpha": "setting", "base": "fit_s"}
ABLATION = Ablation("Alpha", "How much?", "i2v", ROWS, ("pck", "no-such-metric"), "layout", OVER)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A made-up run in which flexiact-no-refadapter plays the variant with alpha 2."""
    folder = make_run(tmp_path / "run", videos=False)
    info = json.loads((folder / "run.json").read_text())
    for entry in info["methods"].values():
        entry["fit_config"] = {"fit_steps": 7}
        entry["transfer_config"] = {"schedule": {"alpha": 0.5}, "refadapter": None}
    rename = {"flexiact-no-refadapter": "flexiact[schedule.alpha=2]"}
    info["methods"] = {rename.get(name, name): entry for name, entry in info["methods"].items()}
    (folder / "run.json").write_text(json.dumps(info))
    for table in ("samples", "scores"):
        rows = pd.read_parquet(folder / f"{table}.parquet")
        rows.assign(method=rows["method"].replace(rename)).to_parquet(folder / f"{table}.parquet")
    return folder


def test_the_numbers_are_the_runs(run_dir: Path, tmp_path: Path) -> None:
    page = publish(load_run(run_dir), ABLATION, tmp_path / "out", "python -m benchmark.ablate alpha")
    stored = pd.read_csv(tmp_path / "out/ablation.csv").set_index("row")
    # The method's own alpha is .5: one point stands for both rows.
    assert list(stored.index) == ["without the schedule", "alpha: 0.5", "alpha: 2", "base: as set"]
    assert stored.loc[["alpha: 0.5", "alpha: 2"], "place"].tolist() == [0.5, 2.0]
    assert stored.loc["base: as set", "place"] == pytest.approx(21, rel=0.1)
    run = load_run(run_dir)
    expected = compare(tidy(run), run.headline, "flexiact[schedule.alpha=2]", "i2v").estimate
    assert stored.loc["alpha: 2", ["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [expected.mean, expected.low, expected.high], abs=1e-6
    )
    text = page.read_text()
    assert "## Minus i2v, by layout" in text and "no-such-metric" not in text
    again = publish(load_run(run_dir), ABLATION, tmp_path / "again", "python -m benchmark.ablate alpha")
    for path in page.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes()


def test_a_session_with_another_refadapter_adds_what_it_was_asked_for(run_dir: Path, tmp_path: Path) -> None:
    own, other = load_run(run_dir), load_run(make_run(tmp_path / "other", videos=False))
    for table in (other.samples, other.scores):  # videos of other methods are those of the run itself
        table.loc[table["method"] == "flexiact", "key"] += "+"
    other.scores.loc[other.scores["method"] == "flexiact", "value"] += 1
    both = joined([Session("longer", other, ("flexiact",)), Session("", own, ("i2v", "flexiact"))])
    assert sorted(both.methods) == ["flexiact", "flexiact (longer)", "i2v"]
    assert both.bounds == own.bounds and both.folder == own.folder
    assert name_in_run(both, Row("", "flexiact", "flexiact", adapter="longer")) == "flexiact (longer)"
    with pytest.raises(RunError, match=r"lacks flexiact \(first\)"):
        name_in_run(both, Row("", "flexiact", "flexiact", adapter="first"))
    both.info["methods"]["flexiact (longer)"]["transfer_config"] = {"refadapter": "0123456789abcdef"}
    plan = replace(ABLATION, rows=(Row("longer", "flexiact", "flexiact", adapter="longer"), Row("none", "i2v", "i2v")))
    page = publish(both, plan, tmp_path / "page", "python -m benchmark.ablate longer").read_text()
    assert "| RefAdapter's digest |" in page and " 0123456789ab |" in page and page.count(" – |\n") == 1
    rows, before = tidy(both), tidy(own)
    assert not rows.duplicated(["method", "case_id", "seed", "metric"]).any()
    assert len(rows[rows["method"] == "i2v"]) == len(before[before["method"] == "i2v"])
    headline = [frame[frame["metric"] == own.headline].set_index("method")["value"] for frame in (rows, before)]
    gained = headline[0]["flexiact (longer)"].to_numpy() - headline[1]["flexiact"].to_numpy()
    assert gained[~pd.isna(gained)] == pytest.approx(1) and len(gained[~pd.isna(gained)])


def test_a_row_that_the_run_lacks_is_named(run_dir: Path) -> None:
    run = load_run(run_dir)
    with pytest.raises(RunError, match=r"lacks flexiact\[schedule.alpha=4\]"):
        name_in_run(run, Row("", "flexiact", "flexiact[schedule.alpha=4]"))
    with pytest.raises(RunError, match="lacks smm"):
        name_in_run(run, Row("", "smm", "smm"))


def test_a_factor_that_changes_nothing_is_the_method_itself(run_dir: Path) -> None:
    run = load_run(run_dir)
    for settings in ("fit_steps=x1", "fit_steps=x1.0,schedule.alpha=x1", "fit_steps=x1.01"):  # of 7, which stays whole
        assert name_in_run(run, Row("", "flexiact", f"flexiact[{settings}]")) == "flexiact"
    for settings in ("fit_steps=x2", "schedule.alpha=x1.01", "schedule.alpha=none"):
        with pytest.raises(RunError, match=r"lacks flexiact\["):
            name_in_run(run, Row("", "flexiact", f"flexiact[{settings}]"))


def test_settings_are_found_by_dotted_names(run_dir: Path) -> None:
    run = load_run(run_dir)
    assert value_of(run, "flexiact", "schedule.alpha") == 0.5
    assert value_of(run, "flexiact", "refadapter.scale") is None  # no adapter, so no scale of one
    assert value_of(run, "flexiact", "initial_std") == 0  # neutral, so run.json leaves it out
    assert name_in_run(run, Row("", "flexiact", "flexiact[initial_std=0.0]")) == "flexiact"
    run.info["methods"]["flexiact"]["fit_config"]["initial_std"] = 0.1
    assert value_of(run, "flexiact", "initial_std") == 0.1
    with pytest.raises(RunError, match="no setting schedule.beta"):
        value_of(run, "flexiact", "schedule.beta")
