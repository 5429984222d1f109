"""Run an ablation: `python -m benchmark.ablate NAME`. It is a run of variants, so the same command resumes it.

The run directory gets the usual report, and in `ablation` the table and figure of the ablation.
"""

import argparse
import sys
from pathlib import Path

from benchmark.options import add_run_options
from benchmark.planning.selection import UsageError
from benchmark.run import RESUMES, run_methods
from flexiact.terminal.cli import OneLineParser, command

_FOLDER = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.ablate", description=(__doc__ or "").split("\n\n")[0])
    names = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.toml")))
    p.add_argument("name", metavar="NAME", help=f"{names}, or a file of that form that ends in .toml")
    p.add_argument("--adapters", type=Path, metavar="DIR", help="trained RefAdapters, each in ADAPTER/refadapter")
    p.add_argument("--publish", type=Path, metavar="DIR", help="folder of table and figure (ablation in --out)")
    add_run_options(p, suite=None, out="runs/ablate-NAME")
    return p


def _ablate(args: argparse.Namespace) -> int:
    from benchmark.ablate.plans import ablation_of, load_plan
    from reports.run_folder import load_run
    from reports.studies.ablation import publish
    from reports.studies.sessions import Session, joined

    plan = load_plan(args.name)
    ablation = ablation_of(plan)
    args.suite = args.suite or plan.suite
    args.out = args.out or Path("runs") / f"ablate-{Path(args.name).stem}"
    sessions: list[Session] = []
    worst = 0
    # All share one directory. It ends as that of the backbone's own RefAdapter, with the baseline and the bounds.
    adapters = sorted({row.adapter for row in ablation.rows}, reverse=True)
    if adapters != [""] and args.adapters is None:
        raise UsageError(f"{args.name} compares trained RefAdapters: give their folder by --adapters DIR")
    for adapter in adapters:
        mine = [row for row in ablation.rows if row.adapter == adapter]
        names = dict.fromkeys([*(row.method for row in mine if not adapter), *(row.name for row in mine)])
        given = {"refadapter": args.adapters / adapter / "refadapter"} if adapter else {}
        code = run_methods(argparse.Namespace(**{**vars(args), **given}), tuple(names))
        if code > 2:  # stopped
            return code
        worst = max(worst, code)
        if not args.shard:
            sessions.append(Session(adapter, load_run(args.out), tuple(names)))
    if not args.shard:  # the ablation needs all videos
        page = publish(joined(sessions), ablation, args.publish or args.out / "ablation", args.command)
        print(f"ablation: {page}")
    return worst


main = command(parser, _ablate, interrupted=RESUMES)

if __name__ == "__main__":
    sys.exit(main())
