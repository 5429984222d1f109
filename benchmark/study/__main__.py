"""Study which corruptions of true answers each metric notices: `python -m benchmark.study --publish DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.suites.puppets import load_suite
from flexiact.cli import OneLineParser, run

FEATURES = Path("runs/study")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.study", description=__doc__)
    p.add_argument("--suite", default="puppets", metavar="NAME", help="puppet suite (puppets)")
    p.add_argument("--seed", type=int, default=0, help="of corruptions that draw something (0)")
    p.add_argument("--features", type=Path, default=FEATURES, metavar="DIR", help=f"kept features ({FEATURES})")
    p.add_argument("--publish", type=Path, required=True, metavar="DIR", help="folder to write to")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="of the processor (1)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run(parser(), _study, arguments)


def _study(options: argparse.Namespace) -> None:
    from benchmark.load import set_threads

    set_threads(options.threads)
    from benchmark.study.measure import measured
    from reports.metric_study import publish

    suite = load_suite(options.suite)
    values = measured(suite, options.features, options.seed)
    print(publish(values, _facts(options), options.publish))


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmark.load import load_judges
    from benchmark.study.corruptions import CORRUPTIONS, VERSION
    from benchmark.study.measure import GRADES
    from flexiact.puppets.world.render import RENDERER_VERSION
    from metrics import METRICS

    suite = load_suite(options.suite)
    backends = load_judges(None, torch.device("cpu")).backends
    made = {
        "suite": f"{suite.name}, version {suite.version}, digest {suite.digest[:12]}",
        "corruptions": f"version {VERSION}, seed {options.seed}",
        "renderer": f"version {RENDERER_VERSION}",
        **{name.replace("_", " "): backend for name, backend in backends.items() if not backend.startswith("none")},
    }
    return {
        "suite": suite.name,
        "grades": len(GRADES),
        "command": f"python -m benchmark.study --suite {suite.name} --seed {options.seed} --publish DIR",
        "corruptions": {name: {"summary": c.summary, "harms": c.harms} for name, c in CORRUPTIONS.items()},
        "metrics": {name: metric.higher_is_better for name, metric in METRICS.items()},
        "facts": made,
    }


if __name__ == "__main__":
    sys.exit(main())
