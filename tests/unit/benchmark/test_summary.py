"""What a run ends with on the terminal: five columns that fit 80 characters with nothing cut."""

import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from benchmark.bounds.bounds import BOUNDS
from benchmark.console.summary import print_summary, tell_changes
from benchmark.planning.methods import METHODS


def shown(folder: Path, headline: str, metrics: tuple[str, ...]) -> str:
    """The summary of a run of every entry, one video each, all metrics 0.125."""
    names = [*METHODS, *BOUNDS]
    samples = pd.DataFrame({"method": names, "status": "ok", "transfer_s": 123.4})
    scores = pd.DataFrame([(n, m, "one", "ok", 0.125) for n in names for m in metrics])
    return printed(folder, headline, samples, scores, {"one": {"reference_id": "r"}})


def printed(folder: Path, headline: str, samples: pd.DataFrame, scores: pd.DataFrame, cases: dict) -> str:
    scores.columns = ["method", "metric", "case_id", "status", "value"]
    samples.to_parquet(folder / "samples.parquet")
    scores.to_parquet(folder / "scores.parquet")
    (folder / "run.json").write_text(json.dumps({"cases": cases}))
    out = StringIO()
    request = SimpleNamespace(suite="puppets", out=folder, headline=headline, submissions=())
    print_summary(request, SimpleNamespace(made=2, scored=3), Console(file=out, width=80))
    return out.getvalue()


def test_references_weigh_the_same_as_in_the_report(tmp_path: Path) -> None:
    values = {"a": [1.0, 0.0], "b": [0.0], "c": [0.875]}
    rows = [("i2v", "pck", case, "ok", value) for case, given in values.items() for value in given]
    rows.append(("i2v", "pck", "c", "failed", None))
    samples = pd.DataFrame({"method": ["i2v"] * 5, "status": "ok", "transfer_s": 1.0})
    cases = {"a": {"reference_id": "r"}, "b": {"reference_id": "r"}, "c": {"reference_id": "s"}}
    text = printed(tmp_path, "pck", samples, pd.DataFrame(rows), cases)
    assert ["i2v", "0.562", "5/5", "1.000"] in [line.split() for line in text.splitlines()]


def test_every_entry_fits_80_columns_with_nothing_cut(tmp_path: Path) -> None:
    text = shown(tmp_path, "motion_agreement_centred", ("motion_agreement_centred", "true_appearance_error", "pck"))
    first, *table = text.splitlines()
    assert "2 videos made, 3 measured" in first
    assert max(map(len, table)) <= 80 and "…" not in text
    rows = {line.split()[0]: line.split()[1:] for line in table if line.split()}
    assert all(rows[name] == ["0.125", "0.125", "1/1", "123"] for name in (*METHODS, *BOUNDS))


def test_without_truth_the_papers_appearance_stands_beside_the_headline(tmp_path: Path) -> None:
    text = shown(tmp_path, "motion_fidelity", ("motion_fidelity", "appearance_consistency"))
    assert "fidelity" in text and "consistency" in text


def test_a_headline_that_was_measured_nowhere_has_no_column(tmp_path: Path) -> None:
    assert "agreement" not in shown(tmp_path, "motion_agreement", ("appearance_consistency",))


def test_what_was_changed_in_submitted_videos_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["is resized; is cut", "is resized", None, *(f"is {number}" for number in range(5))]
    samples = pd.DataFrame({"method": "mine", "changed": changes})
    others = pd.DataFrame({"method": "i2v", "changed": [None]})
    pd.concat([samples, others]).to_parquet(tmp_path / "samples.parquet")
    tell_changes(SimpleNamespace(out=tmp_path, submissions=(SimpleNamespace(name="mine"),)))
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "note: mine (2 of 8 videos) is resized"
    assert len(others) == 5
    assert others[-1] == "note: mine is changed in 2 more ways: samples.parquet, `changed`"
