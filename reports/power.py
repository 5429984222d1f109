"""Number of references that a difference needs: `python -m reports.power RUN`.

For every pair of the family of claims in a run this prints how much the paired difference varies between references,
the smallest difference that the run could have shown, and how many references it takes to show smaller ones. Numbers
are of a two-sided paired t-test with 80 % power, at 5 % divided by the number of pairs of the family: the strictest
level of Holm's correction. Below stand the parts of the scores' variance, and what more references, targets, seeds or
fit seeds (of a run with `--fit-seeds`) would buy. More of the last three make the variation between references
smaller, but not zero.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flexiact.media.files import make_folder, replacing
from flexiact.terminal.cli import OneLineParser, command, one_line

DIFFERENCES = (0.05, 0.1, 0.2)
"""Default differences, in units of the headline."""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(prog="python -m reports.power", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="run directory")
    p.add_argument("--publish", type=Path, metavar="DIR", help="write the page there, as power.md, too")
    p.add_argument("--differences", type=float, nargs="+", default=list(DIFFERENCES), metavar="D")
    return p


def _print(options: argparse.Namespace) -> None:
    if not all(difference > 0 for difference in options.differences):
        raise ValueError("differences: expected numbers above 0")
    page = power_page(options.run, options.differences)
    print(page)
    if options.publish:
        with replacing(make_folder("publish", options.publish) / "power.md") as partial:
            partial.write_text(f"{page}\n", encoding="utf-8")


def power_page(folder: Path, differences: Sequence[float]) -> str:
    """Tables of all pairs of the family that a run has, and of the split of variance, as Markdown.

    Raises:
        RunError: If the run cannot be read.
        ValueError: If it has no pair of the family with two references, or no two references with all values.
    """
    from reports.analysis.claims import family
    from reports.analysis.inference import ALPHA, detectable
    from reports.analysis.statistics import compare, tidy
    from reports.run_folder import load_run
    from reports.studies.variance import variance_tables
    from reports.tables.cells import Cell, Number, Table
    from reports.tables.formats import markdown_table
    from reports.wording import heading

    stored, pairs = load_run(folder), family()
    rows, level = tidy(stored), ALPHA / len(pairs)
    made = [compare(rows, stored.headline, *pair) for pair in pairs if set(pair) <= set(rows["method"])]
    lines: list[tuple[Cell, ...]] = []
    for item in made:
        count = len(item.by_reference)
        if count > 1:
            spread = float(item.by_reference.std(ddof=1))
            needed = _needed(spread, differences, level)
            name = f"{item.first} - {item.second}"
            lines.append((name, count, Number(spread), Number(detectable(spread, count, level=level)), *needed))
    if not lines:
        raise ValueError(f"{folder}: no pair of the family has two references in common; run more methods or cases")
    columns = ("pair", "references", "deviation", "seen", *(f"for {difference:g}" for difference in differences))
    note = (
        "Deviation: of the difference between references. Seen: smallest true difference that this run finds four "
        f"times in five, at a level of {level:.4f} ({ALPHA:.0%} over {len(pairs)} pairs). The last columns: references "
        "needed for a difference."
    )
    table = Table(f"Power: {heading(stored, stored.headline)}", columns, tuple(lines), " ".join((note, *stored.notes)))
    try:
        more = tuple(map(markdown_table, variance_tables(stored, rows, level)))
    except ValueError as error:  # the run is incomplete
        more = (f"The variance is not split: {one_line(error)}.",)
    return "\n\n".join((markdown_table(table), *more))


def _needed(spread: float, differences: Sequence[float], level: float) -> list[int | str]:
    """References that each difference needs, in words where they are too many to be computed."""
    from reports.analysis.inference import MANY, references_needed

    found = [references_needed(spread, difference, level) for difference in differences]
    return [f"{MANY} or more" if number == MANY else number for number in found]


main = command(parser, _print)

if __name__ == "__main__":
    sys.exit(main())
