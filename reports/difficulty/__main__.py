"""Difficulty curves and claims over runs: `python -m reports.difficulty RUN [RUN ...] --publish DIR`."""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(
        prog="python -m reports.difficulty",
        description="Difficulty curves and claims over runs of puppets-easy and the suites that vary one axis.",
    )
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories, one a suite, in any order")
    p.add_argument("--publish", type=Path, required=True, metavar="DIR", help="where to write")
    return p


def _publish(options: argparse.Namespace) -> None:
    from reports.difficulty.curves import publish

    print(publish(options.runs, options.publish))


main = command(parser, _publish)

if __name__ == "__main__":
    sys.exit(main())
