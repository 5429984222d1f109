"""Difficulty curves and claims over runs: `python -m reports.difficulty RUN [RUN ...] --publish DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, run


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(
        prog="python -m reports.difficulty",
        description="Difficulty curves and claims over runs of puppets-easy and the suites that vary one axis.",
    )
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories, one a suite, in any order")
    p.add_argument("--publish", type=Path, required=True, metavar="DIR", help="where to write")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run(parser(), _publish, arguments)


def _publish(options: argparse.Namespace) -> None:
    from reports.difficulty.curves import publish

    print(publish(options.runs, options.publish))


if __name__ == "__main__":
    sys.exit(main())
