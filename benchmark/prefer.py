"""Ask people which videos they prefer: `python -m benchmark.prefer RUN`, then again with `--votes FILE ...`.

The first call writes one HTML file of blind pairs, which works from disk and saves votes as a CSV file. The second one
says how often each method is preferred, how far people agree, and which metrics agree with them. Both need the same
run and options.
"""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, command

PAIRS = 60


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(prog="python -m benchmark.prefer", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("run", type=Path, metavar="RUN", help="run directory, with its videos")
    p.add_argument("--votes", type=Path, nargs="+", metavar="FILE", help="saved votes, one file a person")
    p.add_argument("--methods", nargs="+", metavar="NAME", help="methods to compare (the run's best four)")
    p.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help="number of pairs (%(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of pairs, sides and order (%(default)s)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/prefer)")
    return p


def _prefer(options: argparse.Namespace) -> None:
    from reports.build import Staging
    from reports.prefer.analysis import agreement_table, preference_table, read_votes
    from reports.prefer.pairs import plan
    from reports.prefer.people import rater_table, strength_table
    from reports.prefer.sheet import render_sheet
    from reports.results import measure
    from reports.run_folder import load_run
    from reports.tables.formats import markdown_table
    from reports.wording import title

    if options.pairs < 1:
        raise ValueError(f"--pairs: expected 1 or more, got {options.pairs}")
    stored = load_run(options.run)
    results = measure(stored)
    methods = options.methods or list(results.order[:4])
    trials = plan(stored, methods, options.pairs, options.seed)
    out = options.out or options.run / "prefer"
    if options.votes is None:
        name, text = "sheet.html", render_sheet(stored, trials)
    else:
        votes = read_votes(options.votes, results, trials)
        people = strength_table(votes, results), rater_table(votes)
        tables = preference_table(votes, results), *people, agreement_table(votes, results)
        parts = [f"# Preferences: {title(stored)}", *map(markdown_table, tables)]
        name, text = "preferences.md", "\n\n".join(parts) + "\n"
    with Staging(out) as staging:
        (staging / name).write_text(text, encoding="utf-8")
    print(out / name)


main = command(parser, _prefer)

if __name__ == "__main__":
    sys.exit(main())
