"""Test whether the signals of guided methods know the action: `python -m benchmark.guiding RUN --out FILE.md`."""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.guiding", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="run directory with the methods and all bounds")
    p.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help="guided methods: names or patterns")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="Markdown file to write")
    p.add_argument("--threads", type=int, metavar="N")
    return p


def _write(options: argparse.Namespace) -> None:
    from benchmark.guiding.signals import page
    from benchmark.workers.load import set_threads

    set_threads(options.threads)
    text = page(options.run, options.methods)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)


main = command(parser, _write)

if __name__ == "__main__":
    sys.exit(main())
