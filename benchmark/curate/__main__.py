"""Write the suites of puppet cases: `python -m benchmark.curate [SUITE ...]`."""

import argparse
import sys

from benchmark.planning.selection import select
from benchmark.suites.puppets import suite_names
from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.curate", description=__doc__)
    p.add_argument("suites", nargs="*", default=["all"], metavar="SUITE", help=", ".join(suite_names()))
    return p


def _curate(options: argparse.Namespace) -> None:
    from benchmark.curate.files import write_suite
    from benchmark.curate.recipes import RECIPES, curate

    for name in select(options.suites, list(RECIPES), "suite"):
        suite, cases = curate(name)
        write_suite(suite, cases)
        print(f"{name}: {len(cases)} cases, edges {dict(suite.edges)}")


main = command(parser, _curate)

if __name__ == "__main__":
    sys.exit(main())
