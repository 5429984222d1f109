"""Draw the plot of `benchmark.speed`: the time of each variant as a multiple of its rival's time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from reports.pictures.themes import LIGHT, Theme, style
from reports.wording import duration, label, number


def write_plot(stored: Mapping[str, Any], path: Path) -> bool:
    """Draw the content of `reports.speed.times.load_speed` as a PNG; return False if there is nothing to draw."""
    with matplotlib.rc_context(style(LIGHT)):
        figure = draw(stored, LIGHT)
        if figure is None:
            return False
        # Without the name of the drawing program the same numbers give the same bytes.
        figure.savefig(path, metadata={"Software": None}, facecolor=LIGHT.paper, dpi=120)
    return True


def draw(stored: Mapping[str, Any], theme: Theme) -> Figure | None:
    """One panel per comparison and row per variant: median and quartiles of its ratio to the first rival, log axis."""
    shown = [item for item in stored["comparisons"].values() if item["rivals"]]
    if not shown:
        return None
    rows = [len(item["variants"]) for item in shown]
    figure = Figure(figsize=(9.0, 0.7 + 0.85 * len(shown) + 0.3 * sum(rows)))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[count + 0.6 for count in rows])[:, 0]
    for panel, item in zip(panels, shown, strict=True):
        _panel(panel, item, theme)
    figure.suptitle(f"Speed on {stored['device']}", x=0.01, ha="left", fontsize=11)
    figure.supxlabel("time as a multiple of the rival's: median of the rounds' ratios, and quartiles", fontsize=10)
    return figure


def _panel(panel: Any, comparison: Mapping[str, Any], theme: Theme) -> None:
    rival, variants = comparison["rivals"][0], comparison["variants"]
    panel.axvline(1, color=theme.faint, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
    ends = [1.0]
    for place, (name, variant) in enumerate(variants.items()):
        ratio = variant["ratios"].get(rival, {"median": 1.0, "low": 1.0, "high": 1.0})
        colour = theme.second if name == rival else theme.accent
        panel.plot([ratio["low"], ratio["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="round")
        panel.plot(ratio["median"], place, "o", color=colour, markersize=6)
        ends += [ratio["low"], ratio["high"]]
        panel.annotate(
            _beside(variant), (1, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    panel.set_xscale("log")
    panel.set_xlim(min(min(ends) / 1.15, 0.8), max(max(ends) * 1.15, 1.25))
    low, high = panel.get_xlim()
    near = [step / 10 for step in range(1, 20) if low <= step / 10 <= high]
    panel.xaxis.set_major_locator(FixedLocator(near) if high < 2 * low else LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.set_yticks(range(len(variants)), list(variants))
    panel.set_ylim(len(variants) - 0.4, -0.6)
    panel.set_title(f"{comparison['title']}, × {rival}")
    panel.grid(axis="x")


def _beside(variant: Mapping[str, Any]) -> str:
    """Time, memory and scores of a variant in a few words."""
    words = [duration(variant["seconds"]["median"])]
    if variant["peak_gib"] is not None:
        words.append(f"{variant['peak_gib']:.2f} GiB")
    words += [f"{label(name)} {number(value)}" for name, value in variant["figures"].items() if not name.endswith("_s")]
    return "\n".join(", ".join(part) for part in (words[:2], words[2:]) if part)
