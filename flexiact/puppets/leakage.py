"""Distances of training from tested actions: `python -m flexiact.puppets.leakage` prints docs/puppets.md's figures."""

import argparse
import sys

from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """The command line; reading it loads no network library."""
    p = OneLineParser(prog="python -m flexiact.puppets.leakage", description=__doc__)
    p.add_argument("--actions", type=int, default=20_000, metavar="N", help="training actions to draw (%(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (%(default)s)")
    return p


def _print(options: argparse.Namespace) -> None:
    from flexiact.puppets.cards.splits import as_markdown

    print(as_markdown(options.actions, options.seed))


main = command(parser, _print)

if __name__ == "__main__":
    sys.exit(main())
