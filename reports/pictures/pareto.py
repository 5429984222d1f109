"""Draw what methods trade: the headline, which measures movement, against a measure of appearance."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.pictures.themes import Theme, mark
from reports.results import Results
from reports.wording import broken, heading, label, row_height

LOOKS = ("true_appearance_error", "identity_masked", "appearance_consistency", "identity_embedded")
"""Measures of appearance, the most trustworthy first; the first one that has values is drawn."""

_NAMED_BOUNDS = 12
"""Largest number of floors and ceilings that have room for their names."""


def looks_of(results: Results) -> str | None:
    """The measure of appearance that is drawn; None if the run has none with a value."""
    known = set(results.summary.loc[results.summary["mean"].notna(), "metric"])
    return next((name for name in LOOKS if name in known and name != results.run.headline), None)


def unbeaten(values: np.ndarray) -> np.ndarray:
    """The Pareto front: what no other one equals or betters in both, and betters in one.

    Args:
        values: Two numbers of each thing, float [n, 2], more being better.

    Returns:
        True for each thing on the front, bool [n]; False where a number is missing.
    """
    known = np.isfinite(values).all(axis=1)
    better = (values[:, None] >= values).all(axis=2) & (values[:, None] > values).any(axis=2)
    return known & ~(better & known[:, None]).any(axis=0)


def front(results: Results) -> list[str]:
    """Names of the methods on the front of mean headline and mean appearance, best headline first."""
    places, signs = _places(results), _signs(results)
    return [name for name, on in zip(results.order, unbeaten(_means(places, results.order) * signs), strict=True) if on]


def _places(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `reports.analysis.statistics.summarise` by name, of appearance and of the headline."""
    metrics = (looks_of(results) or results.run.headline, results.run.headline)
    looks, motion = (results.summary[results.summary["metric"] == name].set_index("method") for name in metrics)
    return looks, motion


def _means(places: tuple[pd.DataFrame, pd.DataFrame], names: tuple[str, ...]) -> np.ndarray:
    return np.column_stack([table["mean"].reindex(list(names)).to_numpy(float) for table in places])


def _signs(results: Results) -> np.ndarray:
    entries = (results.run.info["metrics"][name] for name in (looks_of(results), results.run.headline))
    return np.array([-1.0 if entry["higher_is_better"] is False else 1.0 for entry in entries])


def draw_pareto(results: Results, theme: Theme) -> Figure | None:
    """Methods with intervals in both, the front as a line, floors and ceilings in grey; None without appearance."""
    looks = looks_of(results)
    if looks is None:
        return None
    places, names = _places(results), results.order
    means = _means(places, names)
    if np.isfinite(means).all(axis=1).sum() < 2:
        return None
    on_front = front(results)
    labels = [broken(name) + " *" * (name in on_front) for name in names]
    figure = Figure(figsize=(9.4, max(4.8, 1.2 + row_height(labels, 0.24) * len(names))))
    axes = figure.subplots()
    ends = means[[names.index(name) for name in on_front]]
    axes.plot(*ends[np.argsort(ends[:, 0])].T, color=theme.second, linewidth=1.4, linestyle=(0, (3, 2)), zorder=1)
    for index, name in enumerate(names):
        if np.isfinite(means[index]).all():
            colour, marker = mark(theme, index)
            x, y = means[index]
            spans = [table.loc[name, ["low", "high"]].to_numpy(float) for table in places]
            axes.plot(spans[0], [y, y], color=colour, linewidth=1.3, alpha=0.5)
            axes.plot([x, x], spans[1], color=colour, linewidth=1.3, alpha=0.5)
            axes.plot(x, y, marker, color=colour, markersize=7, label=labels[index])
    _draw_bounds(axes, results, theme)
    axes.set_xlabel(f"{heading(results.run, looks)}, mean over references, 95% interval")
    axes.set_ylabel(f"{heading(results.run, results.run.headline)}")
    if _signs(results)[0] < 0:
        axes.invert_xaxis()  # better is to the right
    if _signs(results)[1] < 0:
        axes.invert_yaxis()
    axes.grid()
    figure.legend(loc="outside right upper", title="* on the front", fontsize=8.5)
    return figure


def _draw_bounds(axes: Axes, results: Results, theme: Theme) -> None:
    """Draw floors and ceilings as grey crosses, named if they are few."""
    names = results.bound_order
    for name, (x, y) in zip(names, _means(_places(results), names), strict=True):
        if np.isfinite([x, y]).all():
            axes.plot(x, y, "x", color=theme.faint, markersize=6, zorder=0)
            if len(names) <= _NAMED_BOUNDS:
                at = (5, 4)
                axes.annotate(name, (x, y), at, textcoords="offset points", fontsize=7.5, color=theme.ink)


def text_of_pareto(results: Results) -> str:
    """The figure's alternative text."""
    looks, names = looks_of(results), ", ".join(front(results))
    assert looks is not None
    return (
        f"{label(results.run.headline).capitalize()} against {label(looks)}, means with 95% intervals; better is up "
        f"and to the right. By their means, no other method equals or betters these in both: {names}."
    )
