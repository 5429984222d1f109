"""Study the measuring, or the model: `python -m benchmark.study metrics|attention --publish DIR`.

metrics (also without a word): which graded corruptions of true answers each metric notices. attention: whether videos
attend to FlexiAct's embedding where things move and early, and whether low frequencies settle first.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.suites.puppets import PuppetSuite, load_suite
from flexiact.ranges import check_seed
from flexiact.terminal.cli import OneLineParser, run

FEATURES, FITS = Path("runs/study"), Path("runs/study/fits")
SUBJECTS = {
    "metrics": "which faults of a video each metric notices",
    "attention": "where and when videos attend to FlexiAct's embedding",
}

_RECORDED = ("suite", "references", "targets", "seed", "fit_steps", "steps", "backbone")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.study", description=(__doc__ or "").split("\n\n")[0])
    subjects = p.add_subparsers(dest="subject", required=True, metavar="metrics|attention")
    metrics, attention = (subjects.add_parser(name, help=text, description=text) for name, text in SUBJECTS.items())
    for sub, suite in ((metrics, "puppets"), (attention, "puppets-dev")):
        sub.add_argument("--suite", default=suite, metavar="NAME", help="puppet suite (%(default)s)")
        sub.add_argument("--publish", type=Path, required=sub is attention, metavar="DIR", help="folder to write to")
        sub.add_argument("--threads", type=int, default=1, metavar="N", help="of the processor (1)")
    metrics.add_argument(
        "--seed", type=int, help="of corruptions that draw something (0; with --answers the videos' own)"
    )
    metrics.add_argument("--features", type=Path, default=FEATURES, metavar="DIR", help=f"kept features ({FEATURES})")
    metrics.add_argument(
        "--judge", type=Path, metavar="DIR", help="write the videos for a judge there; with --answers: where they are"
    )
    metrics.add_argument(
        "--answers", type=Path, nargs="+", default=[], metavar="FILE", help="what the judge said of them"
    )
    metrics.add_argument("--evaluator", metavar="TEXT", help="who wrote answers that are VBench's JSON")
    attention.add_argument("--references", type=int, default=6, metavar="N", help="the first N (6)")
    attention.add_argument("--targets", type=int, default=1, metavar="N", help="of each reference (1)")
    attention.add_argument("--seed", type=int, default=0, help="of fits and transfers (0)")
    attention.add_argument("--fit-steps", type=int, metavar="N", help="instead of the preset's")
    attention.add_argument("--steps", type=int, metavar="N", help="of the sampler; default: the suite's")
    attention.add_argument("--backbone", default="puppets", metavar="NAME", help="name or folder (puppets)")
    attention.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (cpu)")
    attention.add_argument("--fits", type=Path, default=FITS, metavar="DIR", help=f"kept fits ({FITS})")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "metrics")
    return run(parser(), _study, words)


def _study(options: argparse.Namespace) -> None:
    from benchmark.workers.load import set_threads

    set_threads(options.threads)
    {"metrics": _study_metrics, "attention": _study_attention}[options.subject](options)


def _study_metrics(options: argparse.Namespace) -> None:
    import pandas as pd

    from benchmark.study.corrupted import measured
    from benchmark.study.judge_answers import read_answers, scales_of
    from reports.studies.metric_study import publish

    check_seed(options.seed or 0)
    suite = load_suite(options.suite)
    if options.evaluator and not options.answers:
        raise ValueError("evaluator: says who wrote --answers; give them, too")
    if options.judge and not options.answers:
        if options.publish:
            raise ValueError("publish: --judge alone writes videos and no page; give --answers, too")
        from benchmark.study.judges import export

        print(export(suite, options.judge, options.seed or 0))
        return
    options.seed = _seed(options, suite)
    if options.publish is None:
        raise ValueError("publish: give the folder to write to")
    facts = _facts(options)
    answers = [answer for path in options.answers for answer in read_answers(path, options.evaluator)]
    scales = scales_of(answers)
    values = measured(suite, options.features, options.seed)
    if answers:
        from benchmark.study.corruptions import FOR_JUDGES
        from benchmark.study.judges import answered

        values = pd.concat([values, answered(suite, answers)], ignore_index=True)
        facts["metrics"] |= {name: scale.higher_is_better for name, scale in scales.items()}
        facts["facts"] |= {name: scale.evaluator for name, scale in scales.items()}
        facts["corruptions"] |= {name: {"summary": c.summary, "harms": c.harms} for name, c in FOR_JUDGES.items()}
        words = ["--judge", "VIDEOS", "--answers", *map(str, options.answers)]
        words += ["--evaluator", options.evaluator] if options.evaluator else []
        facts["command"] += f" {shlex.join(words)}"
    print(publish(values, facts, options.publish))


def _seed(options: argparse.Namespace, suite: PuppetSuite) -> int:
    """Seed of the corruptions: with answers, that of the videos which the judge saw."""
    if not options.answers:
        return options.seed or 0
    from benchmark.study.judges import exported_seed

    if not options.judge:
        raise ValueError("judge: give the folder of the videos that the answers are about")
    seed = exported_seed(suite, options.judge)
    if options.seed not in (None, seed):
        raise ValueError(f"seed: the videos in {options.judge} were made with {seed}, not {options.seed}")
    return seed


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from benchmark.study.corrupted import GRADES
    from benchmark.study.corruptions import CORRUPTIONS, VERSION
    from benchmark.workers.load import load_judges
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


def _study_attention(options: argparse.Namespace) -> None:
    from benchmark.study.attention import Plan, described, measured
    from benchmark.workers.load import load
    from flexiact.fits import FitFolder
    from reports.studies.attention_study import publish

    suite = load_suite(options.suite)
    plan = Plan(options.references, options.targets, options.fit_steps, options.seed)
    backbone = load(options.backbone, options.device, None, options.steps or suite.num_inference_steps)
    shares, settled = measured(suite, backbone, FitFolder(options.fits), plan)
    given = {name: getattr(options, name) for name in _RECORDED if getattr(options, name) is not None}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = f"python -m benchmark.study attention {shlex.join(words)} --publish DIR"
    print(publish(shares, settled, described(suite, backbone, plan) | {"command": command}, options.publish))


if __name__ == "__main__":
    sys.exit(main())
