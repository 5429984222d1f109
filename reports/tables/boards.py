"""The leaderboard's tables: methods by the headline, floors and ceilings, and all other metrics."""

import math

import pandas as pd

from reports.analysis.belief import needs_truth
from reports.analysis.claims import MIN_REFERENCES
from reports.results import Results
from reports.tables.cells import Cell, Number, Table
from reports.wording import NOTHING, heading, label, made_elsewhere, percent, seconds, signed

MOST_COLUMNS = 10
"""Largest number of columns of a table: more are not read."""


def methods_table(results: Results) -> Table:
    """Methods by the headline: how sure their order is, how far they lie apart, what they cost and were given."""
    run, names = results.run, results.order
    ranked = int(results.ranks["rank"].notna().sum())
    measured = not made_elsewhere(run)
    columns = (
        "name", heading(run, run.headline), f"minus {results.against}", f"rank of {ranked}", "comes first",
        *("fit", "transfer") * measured, "videos", "extra supervision",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for name, (value, difference, videos, given) in zip(names, _measured(results, names), strict=True):
        cost, place = results.costs.loc[name], results.ranks.loc[name]
        rank = Number(place["rank"], place["low"], place["high"], _whole), Number(place["first"], write=percent)
        times = [Number(cost[column], write=seconds) for column in ("fit_s", "transfer_s")] * measured
        rows.append((name, value, difference, *rank, *times, videos, given))
    note = (
        f"Sorted by {label(run.headline)}: means over references with Student's 95% intervals. Intervals of two rows "
        f"do not tell whether they differ; the paired differences from {results.against} do, and those of every two "
        "methods below. Whoever leads does so by a little luck as well, so that the lead is somewhat too large. Ranks "
        "are bootstrapped over references, with the same ones for all methods; comes first: share of the resamples. "
        f"There is no such interval with fewer than {MIN_REFERENCES} references, and no rank for a method that lacks "
        "one."
    )
    note += " Times are medians on one machine: a fit once for each reference, a transfer for each video." * measured
    note += " Submitted videos were made elsewhere: their costs were not measured." * bool(run.submissions)
    return Table("Methods", columns, tuple(rows), note)


def _whole(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else NOTHING


def bounds_table(results: Results) -> Table:
    """Floors and ceilings: videos made from the truth or from the inputs, not by a method."""
    run, names = results.run, results.bound_order
    columns = ("name", heading(run, run.headline), f"minus {results.against}", "videos", "extra supervision")
    rows = [(name, *cells) for name, cells in zip(names, _measured(results, names), strict=True)]
    note = "No methods: they see the truth or copy the input, and show what the metrics do with videos of known worth."
    return Table("Floors and ceilings", columns, tuple(rows), note)


def _measured(results: Results, names: tuple[str, ...]) -> list[tuple[Number, Number, str, str]]:
    """Headline, its paired difference from the leader, number of videos, and extra supervision."""
    run = results.run
    cells = results.summary[results.summary["metric"] == run.headline].set_index("method")
    apart = {item.first: item.estimate for item in results.comparisons}
    found = []
    for name in names:
        counts, cell = results.counts.loc[name], cells.loc[name]
        value = Number(cell["mean"], cell["low"], cell["high"], videos=_some(cell, counts))
        gap = apart.get(name)
        difference = Number(gap.mean, gap.low, gap.high, signed) if gap else Number(math.nan)
        given = str(run.info["methods"][name]["extra_supervision"] or "none")
        found.append((value, difference, f"{counts['ok']} of {counts['planned']}", given))
    return found


def _some(cell: pd.Series, counts: pd.Series) -> int | None:
    """Number of videos with a value, if some made videos have none."""
    return int(cell["ok"]) if 0 < cell["ok"] < counts["ok"] else None


def metric_tables(results: Results) -> list[Table]:
    """All metrics but the headline, of methods and bounds: those that read the truth, then the others."""
    run = results.run
    others = [name for name in run.metrics if name != run.headline]
    truth = [name for name in others if needs_truth(run.info["metrics"][name])]
    kinds = (("read the truth", truth), ("read no truth", [name for name in others if name not in truth]))
    made = []
    for kind, metrics in kinds:
        parts = -(-len(metrics) // (MOST_COLUMNS - 1))
        for part in range(parts):
            named = f"Metrics that {kind}" + (f", {part + 1} of {parts}" if parts > 1 else "")
            first, last = (len(metrics) * end // parts for end in (part, part + 1))
            made.append(_metric_table(named, results, metrics[first:last]))
    return made


def _metric_table(title: str, results: Results, metrics: list[str]) -> Table:
    cells = results.summary.set_index(["method", "metric"])
    rows: list[tuple[Cell, ...]] = []
    for name in results.order + results.bound_order:
        found = [cells.loc[(name, metric)] for metric in metrics]
        counts = results.counts.loc[name]
        rows.append((name, *(Number(cell["mean"], videos=_some(cell, counts)) for cell in found)))
    note = (
        "Methods by the headline, then floors and ceilings. Means over references. A number in round brackets counts "
        "the videos that have a value, where some have none."
    )
    return Table(title, ("name", *(heading(results.run, metric) for metric in metrics)), tuple(rows), note)


def cases_table(results: Results) -> Table:
    """A row for each case: how far apart its scenes are, how well methods do, and what failed."""
    run = results.run
    mine = results.rows[(results.rows["metric"] == run.headline) & (results.rows["kind"] == "method")]
    values = mine.pivot_table(index="case_id", columns="method", values="value", aggfunc="mean")
    values = values.reindex(index=list(run.info["cases"]), columns=list(results.order))
    lowest = run.info["metrics"][run.headline]["higher_is_better"] is False
    failed = run.samples[run.samples["status"].isin(("failed", "skipped"))].groupby("case_id").size()
    rows: list[tuple[Cell, ...]] = []
    for case_id, case in run.info["cases"].items():
        found = values.loc[case_id].dropna()
        best = str(found.idxmin() if lowest else found.idxmax()) if len(found) else NOTHING
        apart = (str(case["terciles"].get(axis) or NOTHING) for axis in run.axes)
        numbers = Number(found.mean()), best, Number(found.get(best, math.nan)), int(failed.get(case_id, 0))
        rows.append((case_id, str(case.get("action") or NOTHING), *apart, *numbers))
    columns = ("case", "action", *run.axes, "mean of methods", "best method", "its value", "failed or skipped")
    luck = "The best of many methods on one case is best partly by luck."
    note = f"{heading(run, run.headline)}, means over seeds. {luck}"
    return Table("Cases", columns, tuple(rows), note)
