"""The few lines that a run ends with on the terminal; the report has everything else."""

from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from benchmark.bounds.table import BOUNDS

if TYPE_CHECKING:
    from benchmark.session import Outcome, RunRequest

_MOST_COLUMNS = 4


def print_summary(request: "RunRequest", outcome: "Outcome", console: Console | None = None) -> None:
    """Print what was done and the means of the most telling metrics."""
    console = console or Console()
    done = (
        f"{outcome.made} videos made, {outcome.scored} measured" if outcome.made or outcome.scored else "nothing to do"
    )
    console.print(
        f"suite {request.suite}: {done} in this session; results in {request.out}", highlight=False, soft_wrap=True
    )
    scores = pd.read_parquet(request.out / "scores.parquet")
    samples = pd.read_parquet(request.out / "samples.parquet")
    columns = told(request.metrics, scores)
    table = Table(Column("method", no_wrap=True), box=SIMPLE, pad_edge=False)
    for name in (*columns, "videos", "fit_s", "transfer_s"):
        table.add_column(name.replace("_", " "), justify="right")
    for method in samples["method"].unique():
        made = samples[samples["method"] == method]
        values = [_mean(scores, method, metric) for metric in columns]
        ok = f"{(made['status'] == 'ok').sum()}/{len(made)}"
        if method == next(iter(BOUNDS)):
            table.add_section()
        table.add_row(method, *values, ok, _number(made["fit_s"].mean()), _number(made["transfer_s"].mean()))
    console.print(table)


def told(asked: tuple[str, ...], scores: pd.DataFrame) -> list[str]:
    """The metrics worth a column: those with values and a better end, without the upstream forms."""
    from metrics import METRICS

    measured = set(scores.loc[scores["status"] == "ok", "metric"])
    names = [n for n in asked if n in measured and METRICS[n].higher_is_better is not None]
    return [name for name in names if not name.endswith("_upstream")][:_MOST_COLUMNS]


def _mean(scores: pd.DataFrame, method: str, metric: str) -> str:
    chosen = scores[(scores["method"] == method) & (scores["metric"] == metric) & (scores["status"] == "ok")]
    return _number(chosen["value"].mean())


def _number(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
