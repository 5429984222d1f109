"""Compare two runs of one suite: `python -m benchmark.compare RUN RUN`.

For every method and metric that both have it prints the paired difference, second minus first, over the cells that both
have, with Student's 95 % interval over references. Then it says how far each metric moves, which methods change places,
and which cells differ. Values whose metric has another version or judge are not compared. Exit codes: 0 no cell
differs; 1 some do; 2 not compared, with the reason in one line on standard error; 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no table library."""
    p = OneLineParser(prog="python -m benchmark.compare", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("first", type=Path, metavar="RUN", help="run directory")
    p.add_argument("second", type=Path, metavar="RUN", help="another one, of the same suite")
    p.add_argument("--all", action="store_true", help="also print what is equal in every cell")
    p.add_argument("--csv", type=Path, metavar="FILE", help="write every cell that differs to a table")
    return p


def _compare(options: argparse.Namespace) -> int:
    from reports.run_folder import load_run
    from reports.two_runs import compared, text

    found = compared(load_run(options.first), load_run(options.second))
    print(text(found, everything=options.all))
    if options.csv is not None:
        found.cells.to_csv(options.csv, index=False)
    return 1 if len(found.cells) else 0


main = command(parser, _compare)

if __name__ == "__main__":
    sys.exit(main())
