"""The report of difficulty, for runs of the suites that vary it.

The report has a figure and a table of the headline over strength for each factor that a suite varies, with intervals,
and the claims on the easy suite. As in `reports.build`, files are written to a temporary folder, then moved.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.analysis.statistics import by_reference, estimate
from reports.analysis.strengths import BASELINE, COPY, EASY, FACTORS, FLOOR, STRENGTHS, Difficulty, together
from reports.build import Staging
from reports.pictures.themes import Theme, mark, save_themed
from reports.run_folder import AXES, STATUSES, load_run
from reports.tables.cells import Cell, Number, Table
from reports.tables.formats import CLAIMS, claims_csv, latex_table, markdown_table
from reports.tables.sections import claims_table, mean_cell
from reports.wording import NOTHING, backbone_size, count, heading, is_variant, label, number, scope, signed

FIGURE = "difficulty-curves"
_OPTIONAL = (CLAIMS, f"figures/{FIGURE}.svg", f"figures/{FIGURE}-dark.svg")
"""Files that not every report has."""
_LABEL_STEP = 0.05
"""Smallest distance between the names of two bounds, in units of the headline."""


def curve_table(found: Difficulty, factor: str) -> Table:
    """The headline of every method and bound at every strength of a factor."""
    mine = found.curves[found.curves["factor"] == factor]
    strengths = sorted(set(mine["strength"]))
    cells = mine.set_index(["method", "strength"])
    rows = tuple(
        (name, *(mean_cell(cells.loc[name, s]) if (name, s) in cells.index else NOTHING for s in strengths))
        for name in found.order
    )
    columns = ("name", *(_place(mine, factor, strength) for strength in strengths))
    sizes = [_size(found, factor if strength else EASY, strength) for strength in strengths]
    note = (
        f"Means over references of {heading(found.run, found.run.headline)}; Student's 95% interval in brackets. "
        "Strength 0 is the easy suite: the same body, layout, viewpoint and pose. The mean distance stands in round "
        f"brackets. {', '.join(sizes)}. Rows are sorted by their means over all of these suites."
    )
    return Table(f"{label(found.run.headline).capitalize()} over strength: {factor}", columns, rows, note)


def gain_table(found: Difficulty) -> Table:
    """Paired differences of each method from the baseline and from a still image, on the easy suite."""
    rows: list[tuple[Cell, ...]] = []
    for left, right in found.gains:
        gains = (mean_cell(vars(item.estimate), signed) for item in (left, right))
        rows.append((left.first, *gains, left.estimate.cases, left.estimate.references))
    columns = ("name", f"minus {BASELINE}", f"minus {FLOOR}", "cases", "references")
    note = (
        f"Paired differences in {label(found.run.headline)} over the videos that both have, with Student's 95% "
        f"intervals over references. Exploratory: no correction for the number of rows. {BASELINE} never sees the "
        f"reference; {FLOOR} is the target image repeated.{_copying(found)}"
    )
    return Table("Gains on the easy suite", columns, tuple(rows), note)


def reference_table(found: Difficulty) -> Table:
    """The easy suite by reference: the means behind the intervals of the claims."""
    easy = found.rows[found.rows["factor"] == EASY]
    made = set(easy["method"])
    means = pd.DataFrame({name: by_reference(easy[easy["method"] == name]) for name in found.order if name in made})
    rows = tuple((name, *map(Number, means[name])) for name in means)
    note = f"Means of {heading(found.run, found.run.headline)} over the cases and seeds of each reference."
    return Table("The easy suite by reference", ("name", *map(str, means.index)), rows, note)


def fall_table(found: Difficulty) -> Table:
    """The loss of each method from the easy suite to the farthest strength of every factor."""
    cells = found.falls.set_index(["method", "factor"])
    factors = [factor for factor in found.factors if factor in set(found.falls["factor"])]
    rows = tuple(
        (name, *(mean_cell(cells.loc[name, f], signed) if (name, f) in cells.index else NOTHING for f in factors))
        for name in found.order
        if name in set(found.falls["method"])
    )
    references = sorted(set(found.falls["references"]))
    note = (
        f"{label(found.run.headline).capitalize()} at strength {STRENGTHS[-1]} minus that of the easy suite, paired by "
        f"reference ({', '.join(map(str, references))} of them); Student's 95% intervals over references. Where "
        "the interval holds 0 neither a fall nor a rise is shown."
    )
    return Table("From easy to farthest", ("name", *factors), rows, note)


def gaps_table(found: Difficulty) -> Table:
    """The values that each suite lacks, and the rows that were left out while reading."""
    rows: list[tuple[Cell, ...]] = []
    for factor in (name for name in (EASY, *FACTORS) if name in found.runs):
        states = found.rows.loc[found.rows["factor"] == factor, "status"]
        absent = [(name, int((states == name).sum())) for name in STATUSES if name != "ok"]
        said = ", ".join(f"{number_of} {name}" for name, number_of in absent if number_of)
        rows += [(factor, f"of {count(len(states), 'value')} {said}")] * bool(said)
        rows += [(factor, note) for note in found.runs[factor].notes]
    note = "Means are over what is there. A method that fails on hard cases can look better for it."
    return Table("What is not there", ("suite", "what"), tuple(rows), note)


def _copying(found: Difficulty) -> str:
    """A note with the score of a copied reference: bodies are alike here, so movement alone does not expose a copy."""
    rows = found.rows[(found.rows["factor"] == EASY) & (found.rows["method"] == COPY)]
    if not rows["value"].notna().any():
        return ""
    return f" The reference itself scores {number(estimate(rows).mean)} here: read errors in appearance beside this."


def _size(found: Difficulty, factor: str, strength: int) -> str:
    """Cases, seeds and references at a strength, in words."""
    rows = found.rows[(found.rows["factor"] == factor) & (found.rows["strength"] == strength)]
    cases, seeds, references = (int(rows[column].nunique()) for column in ("case_id", "seed", "reference_id"))
    return f"{strength}: {count(cases, 'case')} of {count(references, 'reference')} x {count(seeds, 'seed')}"


def _place(curves: pd.DataFrame, factor: str, strength: int) -> str:
    """A strength, with the mean distance if one axis is varied."""
    if factor not in AXES or strength == 0:
        return str(strength)
    value = curves.loc[curves["strength"] == strength, "distance"].mean()
    return f"{strength} ({value:.0f}°)" if factor == "viewpoint" else f"{strength} ({value:.2f})"


def draw_curves(found: Difficulty, theme: Theme) -> Figure | None:
    """One panel per factor with a line and intervals per method and grey lines for bounds; None without a factor.

    Variants of a method (its name and `+...` or `-...`) are only in the tables: their lines would hide the others.
    """
    if not found.factors:
        return None
    names = [name for name in found.order if name in set(found.curves["method"])]
    methods = [name for name in names if (found.curves.loc[found.curves["method"] == name, "kind"] == "method").all()]
    bounds = [name for name in names if name not in methods]
    leads = [name for name in methods if not is_variant(name, methods)]
    columns = min(2, len(found.factors))
    lines = -(-len(found.factors) // columns)
    figure = Figure(figsize=(2.6 + 4.1 * columns, 0.8 + 3.6 * lines))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(found.factors) :]:
        panel.set_visible(False)
    for panel, factor in zip(panels, found.factors, strict=False):
        mine = found.curves[found.curves["factor"] == factor]
        _draw_bounds(panel, mine, bounds, theme)
        _draw_methods(panel, mine, leads, theme)
        panel.set_title(factor)
        panel.set_xticks(STRENGTHS, [_place(mine, factor, s).replace(" ", "\n") for s in STRENGTHS])
        panel.set_xlim(-0.35, STRENGTHS[-1] + 0.35)
        panel.grid(axis="y")
    figure.supylabel(heading(found.run, found.run.headline), fontsize=10)
    figure.supxlabel("strength, and how far apart reference and target are; 95% intervals", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure


def _draw_bounds(panel: Axes, mine: pd.DataFrame, bounds: Sequence[str], theme: Theme) -> None:
    """Draw grey lines with their names at the right end, moved apart where they would overlap."""
    lines = {name: mine[mine["method"] == name] for name in bounds}
    ends = sorted((line["mean"].iloc[-1], name) for name, line in lines.items() if len(line))
    lowest = -math.inf
    for end, name in ends:
        line = lines[name]
        panel.plot(line["strength"], line["mean"], color=theme.faint, linewidth=1.2, linestyle=(0, (4, 3)))
        lowest = max(end, lowest + _LABEL_STEP)
        panel.annotate(
            name, (line["strength"].iloc[-1], lowest), (14, 0), textcoords="offset points", fontsize=7,
            color=theme.ink, va="center", annotation_clip=False,
        )  # fmt: skip


def _draw_methods(panel: Axes, mine: pd.DataFrame, methods: Sequence[str], theme: Theme) -> None:
    """Draw lines with markers and intervals, side by side at every strength so that intervals do not overlap."""
    for index, name in enumerate(methods):
        line = mine[mine["method"] == name]
        at = line["strength"] + 0.4 * ((index + 0.5) / len(methods) - 0.5)
        colour, marker = mark(theme, index)
        panel.vlines(at, line["low"], line["high"], color=colour, linewidth=1.2, alpha=0.6)
        panel.plot(at, line["mean"], marker=marker, color=colour, markersize=4.5, linewidth=1.3, label=name)


def csv(found: Difficulty) -> str:
    """The curves: columns factor, strength, distance, name, kind, mean, low, high, cases, references."""
    table = found.curves.rename(columns={"method": "name"})
    return str(table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def publish(run_dirs: Sequence[Path], folder: Path) -> Path:
    """Write difficulty.{md,csv,tex}, claims.csv and the figure; return the path to difficulty.md.

    Raises:
        ValueError: If the runs cannot be read or compared (reports.run_folder.RunError).
        OSError: If a file cannot be written.
    """
    found = together([load_run(Path(path)) for path in run_dirs])
    tables = [claims_table(found.claims, found.run, " on the easy suite")] if found.claims else []
    tables += [gain_table(found), reference_table(found)] if found.gains else []
    tables += [fall_table(found)] * bool(len(found.falls))
    tables += [curve_table(found, factor) for factor in found.factors]
    gaps = gaps_table(found)
    tables += [gaps] * bool(gaps.rows)
    title = f"Difficulty on {found.run.info['backbone']['name']} ({backbone_size(found.run.info['backbone'])})"
    with Staging(folder, _OPTIONAL) as staging:
        drawn = save_themed(FIGURE, lambda theme: draw_curves(found, theme), staging / "figures")
        picture = [f"![{label(found.run.headline)} over strength, as in the tables](figures/{FIGURE}.svg)"] * drawn
        parts = [f"# {title}", scope(found.run), *picture, *map(markdown_table, tables)]
        (staging / "difficulty.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        (staging / "difficulty.csv").write_text(csv(found), encoding="utf-8")
        (staging / "difficulty.tex").write_text("\n".join(latex_table(table) for table in tables), encoding="utf-8")
        if found.claims:
            (staging / CLAIMS).write_text(claims_csv(found.claims), encoding="utf-8")
    return folder / "difficulty.md"
