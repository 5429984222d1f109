"""Draw the paired differences of every two methods on the headline as one figure instead of a long table."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reports.pictures.themes import Theme
from reports.results import Results
from reports.wording import broken, heading, label, row_height

_MOST_WRITTEN = 30
"""Largest number of methods whose cells have room for numbers."""


def draw_matrix(results: Results, theme: Theme) -> Figure | None:
    """Row minus column for every two methods; bold if the 95% interval, without any correction, excludes 0."""
    names = results.order
    if len(names) < 2 or not any(item.estimate.cases for item in results.pairs):
        return None
    means, clear = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for item in results.pairs:
        row, column = names.index(item.first), names.index(item.second)
        found = item.estimate
        means[row, column], means[column, row] = found.mean, -found.mean
        clear[row, column] = clear[column, row] = found.low > 0 or found.high < 0
    labels = [broken(name) for name in names]
    side = 1.6 + row_height(labels, 0.46) * len(names)
    figure = Figure(figsize=(side + 1.2, side))
    axes = figure.subplots()
    reach = float(np.nanmax(np.abs(means))) or 1.0
    colours = LinearSegmentedColormap.from_list("signed", [theme.second, theme.paper, theme.accent])
    image = axes.imshow(means, cmap=colours, vmin=-reach, vmax=reach)
    if len(names) <= _MOST_WRITTEN:
        for row, column in np.argwhere(np.isfinite(means)):
            weight = "bold" if clear[row, column] else "normal"
            text = f"{means[row, column]:+.2f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, fontweight=weight, color=theme.ink)
    axes.set_xticks(range(len(names)), labels, rotation=90)
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(length=0)
    axes.set_title(heading(results.run, results.run.headline))
    figure.colorbar(image, shrink=0.7, label="row minus column")
    return figure


def text_of_matrix(results: Results) -> str:
    """The figure's alternative text."""
    apart = sum(item.estimate.low > 0 or item.estimate.high < 0 for item in results.pairs)
    return (
        f"Matrix of paired differences in {label(results.run.headline)} between every two methods. The interval of "
        f"{apart} of {len(results.pairs)} excludes 0, uncorrected: about one in twenty would by chance."
    )
