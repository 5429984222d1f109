"""Table, curves and page of an ablation: how the headline changes with single settings of a method.

Everything here is exploratory. Rows have intervals over references and paired differences from one baseline, and no
verdicts: an ablation looks at many differences, and none of them was fixed before the results.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flexiact.recorded import NEUTRAL
from reports.analysis.statistics import Comparison, compare, costs, estimate, tidy
from reports.pictures.themes import Theme, mark, save_themed
from reports.run_folder import TERCILES, RunError, StoredRun
from reports.studies.sessions import with_adapter
from reports.tables.cells import Cell, Number, Table
from reports.tables.formats import markdown_table
from reports.wording import NOTHING, heading, label, measured, scope, seconds, signed

FIGURE = "ablation"
_FACTOR = re.compile(r"x(\d+(?:\.\d+)?)", re.ASCII)
OVER = {"setting": "value of the setting", "fit_s": "seconds of a fit (median)"}


@dataclass(frozen=True)
class Row:
    """One row of an ablation.

    Attributes:
        label: Text for people.
        method: Name of the method that it is a variant of.
        name: Name of the method or variant in the run.
        curve: Label of the curve that it is a point of; None for a single row.
        value: Value of the curve's setting; None: that of the method itself, which the run knows.
        setting: Dotted name of the curve's setting.
        adapter: Name of the RefAdapter that it runs with; "" for the backbone's own.
    """

    label: str
    method: str
    name: str
    curve: str | None = None
    value: float | None = None
    setting: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Ablation:
    """An ablation.

    Attributes:
        title: Heading.
        question: Question that it answers.
        baseline: Name of the method that all rows are compared with.
        rows: Rows.
        metrics: Names of metrics shown beside the headline.
        axis: Axis of difference by whose terciles the headline is split; "" for none.
        over: Horizontal axis by curve: a key of `OVER`.
    """

    title: str
    question: str
    baseline: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    axis: str
    over: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Measured:
    """A row with its numbers.

    Attributes:
        row: Row.
        name: Name in the run of the method whose videos it shows.
        headline: Mean, low, high over references.
        against: Paired difference from the baseline.
        place: Place on the horizontal axis of its curve; NaN for single rows.
    """

    row: Row
    name: str
    headline: Number
    against: Comparison
    place: float


def publish(run: StoredRun, ablation: Ablation, folder: Path, command: str) -> Path:
    """Write ablation.md, ablation.csv and the figure; return the page.

    Raises:
        RunError: If the run lacks a row.
    """
    rows, spent = tidy(run), costs(run)
    every = (_measured(run, rows, spent, ablation, row) for row in ablation.rows)
    # One of a curve's values may be the method's own: that point is shown once.
    found = list({(item.row.curve, item.name if item.row.curve else item.row.label): item for item in every}.values())
    folder.mkdir(parents=True, exist_ok=True)
    save_themed(FIGURE, lambda theme: draw(run, ablation, found, theme), folder)
    tables = [rows_table(run, rows, spent, ablation, found)]
    tables += [tercile_table(run, rows, ablation, found)] if ablation.axis else []
    _numbers(run, spent, found).to_csv(folder / f"{FIGURE}.csv", index=False, float_format="%.6f", lineterminator="\n")
    made = measured(run, len(run.samples), int((run.samples["status"] == "ok").sum()))
    parts = [f"# {ablation.title}", ablation.question, made, f"Made by `{command}`.", f"**{scope(run)}**"]
    parts += [f"![{label(run.headline)} of every row]({FIGURE}.svg)", *map(markdown_table, tables)]
    page = folder / f"{FIGURE}.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def _measured(run: StoredRun, rows: pd.DataFrame, spent: pd.DataFrame, ablation: Ablation, row: Row) -> Measured:
    name = name_in_run(run, row)
    mean = estimate(rows[(rows["method"] == name) & (rows["metric"] == run.headline)])
    place = float("nan")
    if row.curve is not None:
        at = value_of(run, name, row.setting) if row.value is None else row.value
        place = float(spent.loc[name, "fit_s"]) if ablation.over[row.curve] == "fit_s" else float(at)
    against = compare(rows, run.headline, name, ablation.baseline)
    return Measured(row, name, Number(mean.mean, mean.low, mean.high), against, place)


def name_in_run(run: StoredRun, row: Row) -> str:
    """Name of the row's method in the run; a variant with the method's own settings was not made a second time.

    Raises:
        RunError: If the run has neither.
    """
    name, method = (with_adapter(one, row.adapter) for one in (row.name, row.method))
    if name in run.info["methods"]:
        return name
    found = re.fullmatch(r"[^\[]+\[(.+)\]", row.name)
    settings = dict(part.split("=", 1) for part in found[1].split(",")) if found else {}
    if method in run.info["methods"] and all(
        _same(value_of(run, method, name), text) for name, text in settings.items()
    ):
        return method
    raise RunError(f"{run.folder}: lacks {name}; the ablation's own command makes it")


def value_of(run: StoredRun, method: str, setting: str) -> Any:
    """Value of a setting of a stored method by its dotted name; None if there is none.

    Raises:
        RunError: If the method has no such setting.
    """
    entry = run.info["methods"][method]
    value: Any = {**NEUTRAL, **entry["fit_config"], **entry["transfer_config"]}
    for part in setting.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise RunError(f"{run.folder}: {method} has no setting {setting}")
        value = value[part]
    return value


def _same(value: Any, text: str) -> bool:
    """Return True if a text of a variant's name means a value; `x2` is twice the value."""
    if value is None or isinstance(value, bool):
        return str(value).lower() == text
    if not isinstance(value, int | float):
        return str(value) == text
    factor = _FACTOR.fullmatch(text)
    if factor:
        times = value * float(factor[1])
        return value == (times if isinstance(value, float) else round(times))
    return text != "none" and float(text) == value


def rows_table(
    run: StoredRun, rows: pd.DataFrame, spent: pd.DataFrame, ablation: Ablation, found: Sequence[Measured]
) -> Table:
    """The headline of every row, its difference from the baseline, other metrics and costs."""
    metrics = [name for name in ablation.metrics if name in run.metrics]
    lines: list[tuple[Cell, ...]] = []
    trained = any(item.row.adapter for item in found)
    for item in found:
        difference = item.against.estimate
        mine = rows[rows["method"] == item.name]
        others = (Number(estimate(mine[mine["metric"] == metric]).mean) for metric in metrics)
        times = (Number(spent.loc[item.name, column], write=seconds) for column in ("fit_s", "transfer_s"))
        gain: Cell = Number(difference.mean, difference.low, difference.high, write=signed)
        if item.name == ablation.baseline:
            gain = ""
        weights = [_adapter_digest(run, item.name)] if trained else []
        lines.append((item.row.label, item.headline, gain, *others, *times, *weights))
    columns = ("row", heading(run, run.headline), f"minus {ablation.baseline}", *(heading(run, m) for m in metrics))
    note = (
        "Means over references with Student's 95% intervals; differences are paired. Exploratory: many differences, no "
        "verdict."
    )
    more = ["RefAdapter's digest"] if trained else []
    return Table("Rows", (*columns, "fit", "transfer", *more), tuple(lines), note)


def _adapter_digest(run: StoredRun, method: str) -> str:
    """First 12 hex digits of the digest of a method's RefAdapter, as in run.json; a dash if it has none."""
    return str(run.info["methods"][method]["transfer_config"].get("refadapter") or NOTHING)[:12]


def tercile_table(run: StoredRun, rows: pd.DataFrame, ablation: Ablation, found: Sequence[Measured]) -> Table:
    """Paired differences from the baseline for each tercile of the ablation's axis."""
    lines: list[tuple[Cell, ...]] = []
    for item in found:
        cells: list[Cell] = []
        for tercile in TERCILES:
            gain = compare(rows[rows[ablation.axis] == tercile], run.headline, item.name, ablation.baseline).estimate
            cells.append(Number(gain.mean, gain.low, gain.high, write=signed))
        lines.append((item.row.label, *cells))
    columns = ("row", *(f"{tercile} {ablation.axis}" for tercile in TERCILES))
    return Table(f"Minus {ablation.baseline}, by {ablation.axis}", columns, tuple(lines), "Paired differences.")


def _numbers(run: StoredRun, spent: pd.DataFrame, found: Sequence[Measured]) -> pd.DataFrame:
    records = []
    for item in found:
        gain = item.against.estimate
        mean = {"mean": item.headline.value, "low": item.headline.low, "high": item.headline.high}
        less = {"difference": gain.mean, "difference_low": gain.low, "difference_high": gain.high}
        facts = {"cases": gain.cases, "references": gain.references, "fit_s": spent.loc[item.name, "fit_s"]}
        what = {"row": item.row.label, "method": item.name, "curve": item.row.curve or "", "place": item.place}
        records.append(what | {"metric": run.headline} | mean | less | facts)
    return pd.DataFrame.from_records(records)


def draw(run: StoredRun, ablation: Ablation, found: Sequence[Measured], theme: Theme) -> Figure:
    """Single rows as dots in the first panel, and one panel for curves over each horizontal axis."""
    single = [item for item in found if item.row.curve is None and item.name != ablation.baseline]
    groups = _panels(ablation, found)
    heights = [0.9 + 0.32 * len(single)] * bool(single) + [3.0] * len(groups)
    figure = Figure(figsize=(8.0, sum(heights) + 0.6))
    panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if single:
        _dots(panels[0], single, theme)
        panels.pop(0).set_xlabel(f"{label(run.headline)} minus\n{ablation.baseline}, 95% interval")
    for panel, (over, curves) in zip(panels, groups, strict=True):
        for index, curve in enumerate(curves):
            points = sorted((item for item in found if item.row.curve == curve), key=lambda item: item.place)
            _curve(panel, points, curve, mark(theme, index))
        panel.set_xlabel(f"{curves[0]}: {OVER[over]}" if len(curves) == 1 else OVER[over])
        panel.set_ylabel(label(run.headline))
        panel.grid()
        if len(curves) > 1:
            panel.legend()
    figure.suptitle(ablation.title, x=0.01, ha="left", fontsize=11)
    return figure


def _panels(ablation: Ablation, found: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """Curves by panel: those over fit seconds share one, each other one has its own."""
    curves = list(dict.fromkeys(item.row.curve for item in found if item.row.curve is not None))
    timed = [curve for curve in curves if ablation.over[curve] == "fit_s"]
    return [("fit_s", timed)] * bool(timed) + [("setting", [curve]) for curve in curves if curve not in timed]


def _dots(panel: Any, items: Sequence[Measured], theme: Theme) -> None:
    panel.axvline(0, color=theme.faint, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
    for place, item in enumerate(items):
        gain = item.against.estimate
        if np.isfinite(gain.low):
            panel.plot([gain.low, gain.high], [place, place], color=theme.accent, linewidth=2, solid_capstyle="round")
        panel.plot(gain.mean, place, "o", color=theme.accent, markersize=6)
    panel.set_yticks(range(len(items)), [item.row.label for item in items])
    panel.set_ylim(len(items) - 0.5, -0.5)
    panel.grid(axis="x")


def _curve(panel: Any, points: Sequence[Measured], name: str, look: tuple[str, str]) -> None:
    places = [item.place for item in points]
    colour, marker = look
    panel.plot(places, [item.headline.value for item in points], marker + "-", color=colour, label=name)
    lows, highs = ([getattr(item.headline, end) for item in points] for end in ("low", "high"))
    if np.isfinite(lows).all():
        panel.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    if min(places) > 0 and max(places) >= 8 * min(places):
        panel.set_xscale("log")
        panel.set_xticks(places, [f"{place:.3g}" for place in places])
        panel.minorticks_off()
