"""Colours and settings of plots for light and dark pages, and SVG files that are the same on every build."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")


@dataclass(frozen=True)
class Theme:
    """Colours of plots on light or on dark pages."""

    suffix: str
    paper: str
    ink: str
    faint: str
    accent: str
    second: str
    steps: tuple[str, str, str]
    methods: tuple[str, ...]


# Method colours: tints of Okabe and Ito's palette, which people with colour-blindness can distinguish.
LIGHT = Theme(
    "", "#ffffff", "#1f2430", "#9aa1ad", "#0b62a4", "#c2571a", ("#8fbfe0", "#3f88c0", "#0b3d66"),
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f7f7f", "#000000"),
)  # fmt: skip
DARK = Theme(
    "-dark", "#171a21", "#e6e9ef", "#6f7886", "#6cb4ee", "#f0965a", ("#3d6d94", "#6cb4ee", "#d3ebff"),
    ("#56b4e9", "#f0823c", "#2ec4a0", "#e39ac3", "#e0c341", "#8fd0ff", "#a9a9a9", "#ffffff"),
)  # fmt: skip

_MARKERS = "osD^vPX*"


def save_themed(name: str, draw: Callable[[Theme], Figure | None], folder: Path) -> bool:
    """Draw a plot in every theme as `<name>.svg` and `<name>-dark.svg`; return False if there is nothing to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    layout: _Layout | None = None
    for theme in (LIGHT, DARK):
        # With a fixed salt and no date the same numbers give the same bytes.
        with matplotlib.rc_context({**style(theme), "svg.hashsalt": name, "svg.fonttype": "path"}):
            figure = draw(theme)
            if figure is None:
                return False
            # Themes differ in colours alone, so that one layout serves both.
            layout = layout or _laid_out(figure)
            _settle(figure, layout)
            path = folder / f"{name}{theme.suffix}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor=theme.paper, dpi=110)
    return True


@dataclass(frozen=True)
class _Layout:
    """Places of a figure's panels (left, bottom, width, height) and of its own texts (x, y)."""

    panels: list[tuple[float, float, float, float]]
    texts: list[tuple[float, float]]


def _laid_out(figure: Figure) -> _Layout:
    """Lay the panels out and round their places: the last bits of the layout's solver depend on memory addresses."""
    figure.draw_without_rendering()
    panels = []
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position().bounds
        panels.append((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))
    return _Layout(panels, [text.get_position() for text in figure.texts])


def _settle(figure: Figure, layout: _Layout) -> None:
    figure.set_layout_engine("none")
    for axes, place in zip(figure.axes, layout.panels, strict=True):
        axes.set_position(place)
    for text, point in zip(figure.texts, layout.texts, strict=True):
        text.set_position(point)


def mark(theme: Theme, index: int) -> tuple[str, str]:
    """Colour and marker of the method at an index; no two of the first 64 share both."""
    rounds, place = divmod(index, len(theme.methods))
    return theme.methods[place], _MARKERS[(place + rounds) % len(_MARKERS)]


def style(theme: Theme) -> dict[Any, Any]:
    """Matplotlib settings of a theme."""
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor")
    return dict.fromkeys(inked, theme.ink) | {
        "font.size": 10,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.faint,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "grid.color": theme.faint,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.12,
        "figure.constrained_layout.h_pad": 0.08,
    }
