"""Score videos that were made elsewhere: `python -m benchmark.score --videos DIR` for the cases of a suite.

The result is a run directory with tables and a report, as of a run. The submitted methods stand beside the suite's
floors and ceilings, and beside the methods that the directory already holds. Exit codes: 0 done; 1 done, but videos are
missing or cannot be read; 2 not done, with the reason in one line on standard error; 130 interrupted.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.options import add_suite_options, parse_seeds
from benchmark.planning.selection import UsageError
from benchmark.run import RESUMES, run_methods
from benchmark.suites.case import Suite
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:  # reading videos loads slow libraries, which --help should not cost
    from benchmark.submissions.submission import Submission
    from benchmark.suites.case import Case


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.score", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder of CASE.mp4 or CASE-seed1.mp4")
    p.add_argument("--manifest", type=Path, metavar="FILE", help="CSV of video, case and, if need be, seed and method")
    p.add_argument("--name", metavar="NAME", help="name of the method in tables (the folder's name)")
    p.add_argument("--summary", default="", metavar="TEXT", help="one line on the method, for the report")
    p.add_argument("--supervision", default="", metavar="TEXT", help="what it was given that others were not")
    seeds = "seeds that every case should have, e.g. 0-2 (those that are found)"
    p.add_argument("--seeds", nargs="+", default=[], metavar="N", help=seeds)
    form = "frames, height, width and rate of real material, instead of --backbone, as in 49x480x720@8"
    p.add_argument("--format", type=_format, metavar="TxHxW@FPS", help=form)
    add_suite_options(p)
    p.set_defaults(refadapter=None, control=None, fit_seeds=None, fits_from=())
    return p


def _format(text: str) -> tuple[int, int, int, float]:
    """Frames (two or more), height, width and rate of a text such as 49x480x720@8."""
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})x(\d{1,4})@(\d{1,3}(?:\.\d{1,3})?)", text, re.ASCII)
    numbers = [int(found[place]) for place in (1, 2, 3)] if found else []
    if not found or numbers[0] < 2 or not all(numbers) or not float(found[4]):
        raise argparse.ArgumentTypeError(f"expected frames x height x width @ rate, as in 49x480x720@8, got '{text}'")
    return numbers[0], numbers[1], numbers[2], float(found[4])


def _score(args: argparse.Namespace) -> int:
    real = ":" in args.suite
    if real and not args.backbone and not args.format:
        raise UsageError("format: real material has none of its own: give --format, as in 49x480x720@8")
    if args.format and (args.backbone or not real):
        raise UsageError("format: is that of the backbone; leave --format out")
    return run_methods(args, (), partial(_submitted, args))


def _submitted(args: argparse.Namespace, suite: Suite, cases: "Sequence[Case]") -> "tuple[Submission, ...]":
    """Submissions that the arguments name, for cases of a suite."""
    from benchmark.submissions.found import Cases, by_name, by_table, submissions_of
    from benchmark.suites.file_cases import file_name

    ids = Cases(tuple(case.case_id for case in cases), suite.case_ids)
    name = args.name or file_name(args.videos.resolve().name)
    if args.manifest is None:
        found = {name: by_name(args.videos, ids)}
    else:
        found = by_table(args.manifest, args.videos, ids)
        if args.name and set(found) != {""}:
            raise UsageError(f"name: {args.manifest} names the methods itself, in its column 'method'")
        found = {method or name: videos for method, videos in found.items()}
    return submissions_of(found, args.videos, ids, parse_seeds(args.seeds), args.summary, args.supervision)


main = command(parser, _score, interrupted=RESUMES)

if __name__ == "__main__":
    sys.exit(main())
