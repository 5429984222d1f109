"""Tables of a study of metrics: which corruptions of true answers each notices, and so what to believe it for.

For a metric and a corruption there are two numbers. *Order* is Kendall's tau between grade and the metric's fall, mean
over references: 1 if each grade is worse than the one before in every case. *Fall* is how much worse the worst grade is
than the true answer, as a share of the metric's largest mean fall over all corruptions. A metric notices a corruption
if order and fall are large, and is blind to it if its fall is small. A large fall by a corruption of something else
than what the metric is for is a confusion.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy import stats

from reports.analysis.inference import student_interval
from reports.pictures.themes import Theme, save_themed
from reports.tables.cells import Number, Table
from reports.tables.formats import markdown_table
from reports.wording import label, number

NOTICED_ORDER, NOTICED_FALL = 0.6, 0.25
"""Smallest order and fall with which a corruption is noticed."""
BLIND_FALL = 0.1
"""Largest fall of a metric that is blind to a corruption."""
FIGURE = "metric-study"


def study_table(values: pd.DataFrame, directions: dict[str, bool | None]) -> pd.DataFrame:
    """Order and fall of every metric under every corruption.

    Args:
        values: Columns case_id, reference_id, corruption, grade, metric, value; grade 0 is the true answer.
        directions: Whether more is better, by metric. Metrics where neither end is good are left out.

    Returns:
        Columns metric, corruption, order, order_low, order_high (95% interval over references), fall, at_truth,
        at_worst (means over references) and references. NaN where a metric has no value, and for the fall of one that
        some corruption raises and none lowers.
    """
    records = []
    for metric, higher in directions.items():
        mine = values[values["metric"] == metric].dropna(subset="value")
        if higher is None or mine.empty:
            continue
        truth = mine[mine["grade"] == 0].set_index("case_id")["value"]
        worse = -1.0 if higher else 1.0
        found = [_response(rows, truth, worse) for _, rows in mine[mine["grade"] > 0].groupby("corruption", sort=False)]
        largest = max((item["fall"] for item in found if np.isfinite(item["fall"])), default=0.0)
        for item in found:
            still = 0.0 if item["fall"] == 0 else float("nan")  # of a metric that nothing makes worse
            fall = item["fall"] / largest if largest > 0 else still
            records.append({"metric": metric, **item, "fall": fall})
    return pd.DataFrame.from_records(records)


def _response(rows: pd.DataFrame, truth: pd.Series, worse: float) -> dict[str, Any]:
    """Order and absolute fall of one metric under one corruption, from the rows of its grades above 0."""
    orders: dict[str, list[float]] = {}
    ends: dict[str, list[tuple[float, float]]] = {}
    for case_id, case in rows[rows["case_id"].isin(truth.index)].groupby("case_id"):
        case, reference = case.sort_values("grade"), case["reference_id"].iloc[0]
        course = np.array([truth[case_id], *case["value"]])
        if case["grade"].iloc[-1] == rows["grade"].max():
            ends.setdefault(reference, []).append((course[0], course[-1]))
        if len(course) > 2:
            flat = np.ptp(course) < 1e-9  # a metric that does not move puts the grades in no order
            tau = 0.0 if flat else stats.kendalltau(np.arange(len(course)), worse * course).statistic
            orders.setdefault(reference, []).append(float(tau))
    order = np.array([np.mean(found) for found in orders.values()])
    both = np.array([np.mean(found, axis=0) for found in ends.values()]).reshape(-1, 2).mean(axis=0)
    low, high = np.clip(student_interval(order), -1.0, 1.0)
    return {
        "corruption": rows["corruption"].iloc[0],
        "order": float(order.mean()) if len(order) else float("nan"),
        "order_low": float(low),
        "order_high": float(high),
        "fall": float(worse * (both[1] - both[0])),
        "at_truth": float(both[0]),
        "at_worst": float(both[1]),
        "references": len(orders),
    }


def belief_of(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Names of the corruptions that a metric notices, and of those it is blind to, from its rows of `study_table`."""
    noticed = rows[(rows["order"] >= NOTICED_ORDER) & (rows["fall"] >= NOTICED_FALL)]
    blind = rows[rows["fall"].abs() <= BLIND_FALL]
    by_fall = noticed.sort_values("fall", ascending=False, kind="stable")
    return list(by_fall["corruption"]), list(blind["corruption"])


def publish(values: pd.DataFrame, study: dict[str, Any], folder: Path) -> Path:
    """Write the study as Markdown, CSV and figures; return the page.

    Args:
        values: Values, see `study_table`.
        study: Facts of the study: `suite`, `grades`, `command`, `facts`, and `corruptions` (name to summary and
            harm) and `metrics` (name to direction).
        folder: Folder to write to.
    """
    table = study_table(values, study["metrics"])
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{FIGURE}.csv", index=False, float_format="%.6f", lineterminator="\n")
    save_themed(FIGURE, lambda theme: draw(table, study, theme), folder)
    page = folder / f"{FIGURE}.md"
    page.write_text(_page(table, study), encoding="utf-8")
    return page


def _page(table: pd.DataFrame, study: dict[str, Any]) -> str:
    references = int(table["references"].max())
    kinds = Table(
        "Corruptions",
        ("corruption", "spoils", "what happens from grade 0 to 1"),
        tuple((name, item["harms"], item["summary"]) for name, item in study["corruptions"].items()),
    )
    beliefs, cells = [], []
    for metric, rows in table.groupby("metric", sort=False):
        noticed, blind = belief_of(rows)
        beliefs.append((str(metric), ", ".join(noticed) or "nothing", ", ".join(blind) or "none"))
        for row in rows.itertuples():
            falls = (Number(row.at_truth), Number(row.at_worst), Number(row.fall, write=number))
            cells.append((str(metric), row.corruption, Number(row.order, row.order_low, row.order_high), *falls))
    believed = Table(
        "What each metric notices",
        ("metric", "notices, most first", "is blind to"),
        tuple(beliefs),
        f"Noticed: order at least {NOTICED_ORDER:g} and fall at least {NOTICED_FALL:g}. Blind: fall at most "
        f"{BLIND_FALL:g} either way.",
    )
    columns = ("metric", "corruption", "order", "at the truth", "at the worst grade", "fall")
    every = Table("All numbers", columns, tuple(cells), "Order: mean over references with Student's 95% interval.")
    head = (
        "# What the metrics notice\n\n"
        f"True answers of {references} references of suite {study['suite']}, one target each, corrupted in "
        f"{len(study['corruptions'])} ways at {study['grades']} grades. Made by `{study['command']}`.\n\n"
        f"![Fall of each metric under each corruption]({FIGURE}.svg)\n\n" + (__doc__ or "").split("\n\n", 1)[1].strip()
    )
    facts = "\n".join(f"- {name}: {value}" for name, value in study["facts"].items())
    return "\n\n".join([head, *map(markdown_table, (believed, kinds, every)), f"## Made with\n\n{facts}"]) + "\n"


def draw(table: pd.DataFrame, study: dict[str, Any], theme: Theme) -> Figure:
    """Heat map of falls, one row a metric and one column a corruption, grouped by what it spoils."""
    columns = sorted(study["corruptions"], key=lambda name: study["corruptions"][name]["harms"])
    wide = table.pivot(index="metric", columns="corruption", values="fall")
    wide = wide.reindex(index=list(dict.fromkeys(table["metric"])), columns=columns)
    figure = Figure(figsize=(3.4 + 0.5 * len(columns), 2.0 + 0.27 * len(wide)))
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("signed", [theme.second, theme.paper, theme.accent])
    image = axes.imshow(wide, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for row, column in np.argwhere(np.isfinite(wide.to_numpy())):
        value = wide.iloc[row, column]
        if abs(value) > BLIND_FALL:
            colour = theme.paper if abs(value) > 0.6 else theme.ink
            text = f"{value:.1f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    names = [f"{name} ({study['corruptions'][name]['harms']})" for name in columns]
    axes.set_xticks(range(len(columns)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(wide)), [label(name) for name in wide.index])
    axes.tick_params(length=0)
    axes.set_title("Fall from the true answer to the worst grade, as a share of the metric's largest")
    figure.colorbar(image, shrink=0.7)
    return figure
