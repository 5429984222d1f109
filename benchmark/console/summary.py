"""Print the few lines that end a run on the terminal; the report has all other results."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from benchmark.bounds.bounds import BOUNDS
from benchmark.store.folder import load_json
from flexiact.terminal.notes import note

if TYPE_CHECKING:
    from benchmark.stages.session import Outcome, RunRequest

_CHANGES = 5  # those that are printed; the table has all

LOOKS = ("true_appearance_error", "appearance_consistency")
"""Appearance metrics that may be shown next to the headline; the first of them that was measured is shown."""


def print_summary(request: "RunRequest", outcome: "Outcome", console: Console | None = None) -> None:
    """Print the number of videos made and failed, and the means of the most telling metrics, as in the report."""
    console = console or Console()
    made = "made or taken in" if request.submissions else "made"
    done = (
        f"{outcome.made} videos {made}, {outcome.scored} measured"
        if outcome.made or outcome.scored
        else "nothing to do"
    )
    console.print(
        f"suite {request.suite}: {done} in this session; results in {request.out}", highlight=False, soft_wrap=True
    )
    scores = pd.read_parquet(request.out / "scores.parquet")
    samples = pd.read_parquet(request.out / "samples.parquet")
    references = {name: case["reference_id"] for name, case in load_json(request.out / "run.json")["cases"].items()}
    columns = told(request.headline, scores)
    table = Table(Column("method", no_wrap=True), box=SIMPLE, pad_edge=False)
    for name in (*columns, "videos", "seconds a transfer"):
        table.add_column(name.replace("_", "\n", 1).replace("_", " "), justify="right")
    for method in samples["method"].unique():
        made = samples[samples["method"] == method]
        values = [_mean(scores[scores["method"] == method], metric, references) for metric in columns]
        ok = f"{(made['status'] == 'ok').sum()}/{len(made)}"
        if method == next(iter(BOUNDS)):
            table.add_section()
        table.add_row(escape(method), *values, ok, _number(made["transfer_s"].mean()))
    console.print(table)


def tell_changes(request: "RunRequest") -> None:
    """Print a note for each thing that was changed in the videos of a submission, the most frequent ones first."""
    if not request.submissions:
        return
    samples = pd.read_parquet(request.out / "samples.parquet")
    for name in (submission.name for submission in request.submissions):
        rows = samples[samples["method"] == name]
        changes = rows["changed"].dropna().str.split("; ").explode().value_counts()
        for what, videos in changes.head(_CHANGES).items():
            note(f"{name} ({videos} of {len(rows)} videos)", what)
        if len(changes) > _CHANGES:
            note(name, f"is changed in {len(changes) - _CHANGES} more ways: samples.parquet, `changed`")


def told(headline: str, scores: pd.DataFrame) -> list[str]:
    """Names of the metrics that get a column, if they were measured: the headline and one of `LOOKS`."""
    measured = set(scores.loc[scores["status"] == "ok", "metric"])
    looks = [name for name in LOOKS if name in measured][:1]
    return [name for name in (headline, *looks) if name in measured]


def _mean(scores: pd.DataFrame, metric: str, references: dict[str, str]) -> str:
    """Mean over the seeds of a case, then over the cases of a reference, then over references."""
    chosen = scores[(scores["metric"] == metric) & (scores["status"] == "ok")]
    per_case = chosen.groupby("case_id")["value"].mean()
    return _number(per_case.groupby(references).mean().mean())


def _number(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
