"""Draw the plots (matplotlib, Agg), each for light and for dark pages, as SVG that is the same on every build."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from reports.analysis.belief import paired_values
from reports.pictures.matrix import draw_matrix, text_of_matrix
from reports.pictures.pareto import draw_pareto, text_of_pareto
from reports.pictures.themes import Theme, mark, save_themed
from reports.results import Results, headline_mean
from reports.run_folder import TERCILES
from reports.wording import broken, heading, label, row_height, signed

Draw = Callable[[Results, Theme], Figure | None]


def write_figures(results: Results, folder: Path) -> dict[str, str]:
    """Write all plots that the run has data for.

    Returns:
        Alternative text of each plot by name. Files are `<name>.svg` and `<name>-dark.svg`.
    """
    written = {}
    for name, draw, text in FIGURES:
        if save_themed(name, partial(draw, results), folder):
            written[name] = text(results)
    return written


def _headline(results: Results, theme: Theme) -> Figure | None:
    """Methods as dots with intervals, floors and ceilings as lines; beside them the ranks."""
    run, names = results.run, results.order
    labels = [broken(name) for name in names]
    figure = Figure(figsize=(10, 1.7 + row_height(labels, 0.36) * len(names)))
    axes, ranks = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    cells = results.summary[results.summary["metric"] == run.headline].set_index("method")
    for place, name in enumerate(names):
        _dot(axes, cells.loc[name], place, theme.accent)
        _dot(ranks, results.ranks.loc[name].rename({"rank": "mean"}), place, theme.second)
    _bounds(axes, results, theme)
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.3, -0.6)
    axes.set_xlabel(f"{heading(run, run.headline)}, mean over references, 95% interval")
    ranks.set_xlim(0.5, max(len(names), 1) + 0.5)
    ranks.xaxis.set_major_locator(MaxNLocator(integer=True))
    ranks.set_xlabel("rank, 95% interval")
    for panel in (axes, ranks):
        panel.grid(axis="x")
    return figure


def _dot(axes: Any, row: Any, place: float, colour: str, size: float = 6, marker: str = "o") -> None:
    """Draw a mean and its interval, unless they are NaN."""
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8, solid_capstyle="round")
    if np.isfinite(row["mean"]):
        axes.plot(row["mean"], place, marker, color=colour, markersize=size)


def _bounds(axes: Any, results: Results, theme: Theme) -> None:
    """Draw floors and ceilings as vertical lines, named above the plot."""
    means = [(headline_mean(results, name), name) for name in results.bound_order]
    means = sorted((mean, name) for mean, name in means if np.isfinite(mean))
    spread = 1.0
    if means:
        low, high = axes.get_xlim()
        low, high = min(low, means[0][0]), max(high, means[-1][0])
        spread = max(high - low, 1e-6)
        axes.set_xlim(low - 0.04 * spread, high + 0.04 * spread)
    last = -np.inf
    level = 0
    for mean, name in means:
        axes.axvline(mean, color=theme.faint, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
        # Names of lines that lie close together are stacked.
        level = (level + 1) % 6 if mean - last < 0.17 * spread else 0
        place = {"xy": (mean, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(name, xytext=(0, 3 + 12 * level), ha="center", fontsize=8.5, color=theme.ink, **place)
        last = mean


def _difficulty(results: Results, theme: Theme) -> Figure | None:
    """One panel per axis, one row per method, one dot per tercile."""
    table = results.terciles[results.terciles["kind"] == "method"]
    if table.empty:
        return None
    names = results.order
    labels = [broken(name) for name in names]
    figure = Figure(figsize=(10, 1.7 + row_height(labels, 0.5) * len(names)))
    panels = figure.subplots(1, len(results.run.axes), sharey=True, sharex=True, squeeze=False)[0]
    for panel, axis in zip(panels, results.run.axes, strict=True):
        for step, tercile in enumerate(TERCILES):
            mine = table[(table["axis"] == axis) & (table["tercile"] == tercile)].set_index("method")
            for place, name in enumerate(names):
                if name in mine.index:
                    height = place + 0.24 * (step - 1)
                    _dot(panel, mine.loc[name], height, theme.steps[step], size=5, marker="osD"[step])
        panel.set_title(f"apart in {axis}")
        panel.grid(axis="x")
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    marks = [Line2D([], [], color=c, marker=m, ls="", ms=5) for c, m in zip(theme.steps, "osD", strict=True)]
    figure.legend(marks, TERCILES, loc="outside upper right", ncols=3)
    figure.supxlabel(f"{heading(results.run, results.run.headline)}, 95% interval", fontsize=10)
    return figure


def _cost(results: Results, theme: Theme) -> Figure | None:
    """The headline over seconds per video: a further video (open), and the first one with its fit (filled)."""
    costs = results.costs.dropna(subset=["transfer_s"])
    cells = results.summary[results.summary["metric"] == results.run.headline].set_index("method")
    names = [name for name in results.order if name in costs.index and np.isfinite(cells.loc[name, "mean"])]
    if not names:
        return None
    labels = [broken(name) for name in names]
    figure = Figure(figsize=(8.4, max(4.4, 0.6 + row_height(labels, 0.2) * len(names))))
    axes = figure.subplots()
    for index, name in enumerate(names):
        (colour, marker), row = mark(theme, index), cells.loc[name]
        further = max(float(costs.loc[name, "transfer_s"]), 1e-3)
        first = further + float(np.nan_to_num(costs.loc[name, "fit_s"]))
        axes.plot([further, first], [row["mean"]] * 2, color=colour, linewidth=1.2, alpha=0.7)
        if np.isfinite(row["low"]):
            axes.plot([first] * 2, [row["low"], row["high"]], color=colour, linewidth=1.8, alpha=0.6)
        axes.plot(further, row["mean"], marker, markerfacecolor=theme.paper, color=colour, markersize=6)
        axes.plot(first, row["mean"], marker, color=colour, markersize=7, label=labels[index])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds a video (log): open = one more target, filled = first target, fit included")
    axes.set_ylabel(heading(results.run, results.run.headline))
    axes.grid()
    figure.legend(loc="outside right upper")
    return figure


def _belief(results: Results, theme: Theme) -> Figure | None:
    """Rank correlation of each truth-free metric with the headline."""
    table = results.belief
    if table.empty or not np.isfinite(table["rho"]).any():
        return None
    figure = Figure(figsize=(8.4, 1.6 + 0.38 * len(table)))
    axes = figure.subplots()
    axes.axvline(0, color=theme.ink, linewidth=1)
    for place, row in enumerate(table.to_dict("records")):
        _dot(axes, {**row, "mean": row["rho"]}, place, theme.accent)
        if np.isfinite(row["within_case"]):
            axes.plot(row["within_case"], place, "D", markerfacecolor="none", color=theme.second, markersize=6)
    axes.set_yticks(range(len(table)), [heading(results.run, name) for name in table["metric"]])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(-1.05, 1.05)
    meaning = "(1 follows the truth, 0 knows nothing, below 0 misleads)"
    axes.set_xlabel(f"Spearman with {label(results.run.headline)}\n{meaning}")
    axes.grid(axis="x")
    marks = [Line2D([], [], color=theme.accent, marker="o", lw=1.8)]
    marks += [Line2D([], [], color=theme.second, marker="D", markerfacecolor="none", ls="")]
    figure.legend(marks, ["over all videos, 95% interval", "inside a case, mean"], loc="outside upper right", ncols=2)
    return figure


def _belief_scatter(results: Results, theme: Theme) -> Figure | None:
    """Each truth-free metric over the headline, one point per video."""
    run = results.run
    pairs = {name: paired_values(run, results.rows, name, turned=False) for name in results.belief["metric"]}
    pairs = {name: found for name, found in pairs.items() if len(found)}
    if not pairs:
        return None
    columns = min(4, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(10, 0.7 + 2.5 * lines))
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for panel, (name, found) in zip(panels, pairs.items(), strict=False):
        panel.set_rasterization_zorder(1)  # one image a panel instead of one a method
        for index, method in enumerate(results.order):
            mine = found[found["method"] == method]
            colour, marker = mark(theme, index)
            panel.plot(
                mine["headline_value"], mine["metric_value"], marker, color=colour, markersize=2.5, alpha=0.7,
                label=broken(method), markeredgewidth=0, ls="", zorder=0.5,
            )  # fmt: skip
        panel.set_title(heading(run, name).replace(" (released", "\n(released"), fontsize=9)
        panel.grid()
    for panel in panels[len(pairs) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(pairs) - columns) : len(pairs)]:
        panel.tick_params(labelbottom=True)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)), markerscale=2.5)
    figure.supxlabel(heading(run, run.headline), fontsize=10)
    return figure


def _text_of_means(results: Results) -> str:
    means = ", ".join(f"{name} {headline_mean(results, name):.3f}" for name in results.order + results.bound_order)
    bounds = "floors and ceilings as dashed lines"
    return f"Dot plot of {label(results.run.headline)} and of ranks with 95% intervals; {bounds}. Means: {means}."


def _text_of_belief(results: Results) -> str:
    rows = results.belief.to_dict("records")
    values = ", ".join(f"{label(row['metric'])} {signed(row['rho'])}" for row in rows)
    return f"Rank correlation of each truth-free metric with {label(results.run.headline)}: {values}."


FIGURES: tuple[tuple[str, Draw, Callable[[Results], str]], ...] = (
    ("headline", _headline, _text_of_means),
    ("differences", draw_matrix, text_of_matrix),
    ("pareto", draw_pareto, text_of_pareto),
    (
        "difficulty",
        _difficulty,
        lambda results: f"{label(results.run.headline)} by tercile of {', '.join(results.run.axes)}, as in the table.",
    ),
    (
        "cost",
        _cost,
        lambda results: (
            f"{label(results.run.headline)} over seconds a video, with and without the fit, as in the table."
        ),
    ),
    ("belief", _belief, _text_of_belief),
    (
        "belief-scatter",
        _belief_scatter,
        lambda results: f"Scatter plots: each truth-free metric over {label(results.run.headline)}, one point a video.",
    ),
)
"""Name, drawing and alternative text of every plot, in the order of the page."""
