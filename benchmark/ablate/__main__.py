"""Run an ablation: `python -m benchmark.ablate NAME`. It is a run of variants, so the same command resumes it.

The run directory gets the usual report, and in `ablation` the table and figure of the ablation.
"""

import argparse
import sys
from pathlib import Path

from benchmark.run import RESUMES, add_run_options, run_methods
from flexiact.terminal.cli import OneLineParser, command

_FOLDER = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.ablate", description=(__doc__ or "").split("\n\n")[0])
    names = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.toml")))
    p.add_argument("name", metavar="NAME", help=f"{names}, or a file of that form that ends in .toml")
    p.add_argument("--publish", type=Path, metavar="DIR", help="folder of table and figure (ablation in --out)")
    add_run_options(p, suite=None, out="runs/ablate-NAME")
    return p


def _ablate(args: argparse.Namespace) -> int:
    from benchmark.ablate.plans import ablation_of, load_plan
    from reports.studies.ablation import publish

    plan = load_plan(args.name)
    ablation = ablation_of(plan)
    args.suite = args.suite or plan.suite
    args.out = args.out or Path("runs") / f"ablate-{Path(args.name).stem}"
    names = dict.fromkeys([plan.baseline, *(row.method for row in ablation.rows), *(row.name for row in ablation.rows)])
    code = run_methods(args, tuple(names))
    if args.shard or code > 2:  # the ablation needs all videos
        return code
    print(f"ablation: {publish(args.out, ablation, args.publish or args.out / 'ablation', args.command)}")
    return code


main = command(parser, _ablate, interrupted=RESUMES)

if __name__ == "__main__":
    sys.exit(main())
