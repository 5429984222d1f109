"""The main job: `python -m benchmark.run --methods all` makes a suite's videos, measures them and builds the report.

Exit codes: 0 done; 1 done, but some videos failed or were not measured; 2 not started or not
finished, with the reason in one line on standard error; 130 and 143 stopped by Ctrl-C and by SIGTERM, after the videos
in work. The same command, started again, resumes the run.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.bounds.bounds import BOUNDS
from benchmark.options import add_run_options, networks_of, open_suite, parse_seeds, parse_workers
from benchmark.planning.job_shards import parse_shard
from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError, select, unknown
from benchmark.planning.variants import entry_of, variant_name
from benchmark.store.folder import RunFolder
from benchmark.suites.case import Suite
from benchmark.workers.cluster import check_cluster_options, cluster_of
from benchmark.workers.load import set_threads
from benchmark.workers.local import affordable, worker_devices
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from benchmark.stages.session import Outcome, RunRequest
    from benchmark.submissions.submission import Submission
    from benchmark.suites.case import Case
    from flexiact.backbone.specs import BackboneSpec

Submitted = Callable[["Suite", "Sequence[Case]"], "tuple[Submission, ...]"]
"""Function that finds submissions for cases of a suite."""

RESUMES = "stopped; the same command goes on from here"
WEIGHTS = ("backbone", "refadapter", "control", "clip", "pose", "pose_driver")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.run", description=(__doc__ or "").split("\n\n")[0])
    names = "names, patterns like 'flexiact*', or all; several may be given"
    p.add_argument("--methods", nargs="+", metavar="NAME", help=f"{names}: {', '.join(METHODS)} (all; see --set)")
    variant = "a variant, as in flexiact.schedule.alpha=2; repeat --set for more; without --methods nothing else runs"
    p.add_argument("--set", nargs="+", action="append", default=[], metavar="METHOD.SETTING=VALUE", help=variant)
    add_run_options(p)
    return p


def _run(args: argparse.Namespace) -> int:
    """Run the methods and variants that the arguments name."""
    variants = tuple(dict.fromkeys(variant_name(settings) for settings in args.set))
    methods = args.methods or ([] if variants else ["all"])
    chosen = select(methods, [*METHODS, *BOUNDS], "method") if methods else []
    return run_methods(args, (*(name for name in chosen if name in METHODS), *variants))


def run_methods(args: argparse.Namespace, methods: tuple[str, ...], submitted: "Submitted | None" = None) -> int:
    """Make, measure and report what the options of `add_run_options` say; return the exit code.

    The run has the seeds of the videos that `submitted` finds, if the options name none.

    Raises:
        UsageError: If an option makes no sense.
        CaseError: If a case is invalid.
    """
    seeds = parse_seeds(args.seeds)
    for name in ("steps", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"{name}: expected a number above 0, got {getattr(args, name)}")
    check_cluster_options(args)
    workers, shard = parse_workers(args.workers), parse_shard(args.shard)
    suite = open_suite(args)
    cases = suite.chosen(select(args.cases, suite.case_ids, f"case of suite {suite.name}"))
    out = args.out or Path("runs") / suite.name
    RunFolder(out).check()
    givers = tuple(map(_giver, args.fits_from))
    submissions = submitted(suite, cases) if submitted else ()
    set_threads(args.threads or 1)

    # From here on networks are loaded, which takes seconds.
    from benchmark.stages.session import RunRequest
    from metrics import METRICS

    if suite.headline not in METRICS:
        raise UsageError(f"suite {suite.name}: {unknown(suite.headline, list(METRICS), 'headline')}")
    suite.check_readable(case.case_id for case in cases)
    request = RunRequest(
        suite=suite.name,
        cases=cases,
        methods=methods,
        seeds=seeds or tuple(sorted({seed for submission in submissions for _, seed in submission.videos})),
        metrics=tuple(select(args.metrics, list(METRICS), "metric")),
        out=out,
        headline=suite.headline,
        suite_version=suite.version,
        suite_digest=suite.digest,
        retry_failed=args.retry_failed,
        command=args.command,
        shard=shard,
        submissions=submissions,
        fit_seeds=None if args.fit_seeds is None else list(parse_seeds(args.fit_seeds)),
        fits_from=givers,
    )
    return _report(request, _session(request, args, suite, 1 if args.threads else workers))


def _giver(path: Path) -> RunFolder:
    """Run directory that fits are copied from.

    Raises:
        UsageError: If there is none at this path, or it cannot be read.
    """
    folder = RunFolder(path)
    try:
        is_run = folder.read_run() is not None
    except UsageError:
        is_run = False
    if not is_run:
        raise UsageError(f"fits-from: {path} holds no run that this code can read")
    return folder


def _session(request: "RunRequest", args: argparse.Namespace, suite: Suite, workers: int | None) -> "Outcome":
    from benchmark.stages.session import Workers, run_session
    from benchmark.store.provenance import provenance
    from flexiact import PUPPET_WEIGHTS
    from flexiact.backbone.specs import find_spec

    if args.format is None:
        _refuse_lacking(request.methods, find_spec(args.backbone or "puppets")[1], args)
    networks = networks_of(args, suite, all(case.truth_known for case in request.cases))
    on_ray = args.executor == "ray"
    devices = worker_devices(1 if on_ray else workers, args.device)
    # With several GPUs or a cluster this process only describes the networks and should not fill the first GPU.
    shy = replace(networks, savings=replace(networks.savings, offload=True))
    here = shy if len(set(devices)) > 1 or (on_ray and devices[0] != "cpu") else networks
    backbone, perception = here.load(devices[0])
    cluster = cluster_of(args, workers, backbone.device.type)
    devices = devices if workers or cluster else affordable(devices)
    number = cluster.workers if cluster else len(devices)
    origin = provenance(backbone.device, [PUPPET_WEIGHTS / name for name in WEIGHTS], number)
    others = Workers(devices, networks.load, cluster) if len(devices) > 1 or cluster else None
    return run_session(request, backbone, perception, origin, others)


def _refuse_lacking(methods: Sequence[str], spec: "BackboneSpec", args: argparse.Namespace) -> None:
    """Refuse methods whose weights are not given, before the backbone's own weights are fetched or read."""
    absent = {part for part in ("refadapter", "control") if not (getattr(args, part) or getattr(spec, part))}
    lacking = {name: sorted(absent & set(entry_of(name).needs)) for name in methods}
    for name, parts in lacking.items():
        if parts:
            options = " and ".join(f"--{part} DIR" for part in parts)
            others = ",".join(other for other in methods if not lacking[other])
            rest = f", or leave it out: --methods {others}" if others else ""
            raise UsageError(f"method {name} needs weights that the backbone does not come with: give {options}{rest}")


def _report(request: "RunRequest", outcome: "Outcome") -> int:
    from benchmark.console.summary import print_summary, tell_changes
    from reports.build import build

    if outcome.stopped:
        print(f"stopped after {outcome.scored} videos; this goes on: {request.command}", file=sys.stderr)
        return 128 + outcome.stopped
    if request.shard:
        print(f"shard {request.shard}: {outcome.made} videos made, {outcome.scored} measured; results in {request.out}")
        print("once all shards are done, the same command without --shard makes the tables and the report")
        return _failures(outcome)
    page = build(request.out, request.out / "report")
    tell_changes(request)
    print_summary(request, outcome)
    print(f"report: {page}")
    return _failures(outcome)


def _failures(outcome: "Outcome") -> int:
    """Tell the first of the failed videos and the number of unmeasured ones; return the exit code."""
    if outcome.failed:
        first = outcome.failed[0]
        where = f"{first.method} on {first.case_id}: {first.error}"
        print(f"{len(outcome.failed)} videos failed, the first one {where}", file=sys.stderr)
    if outcome.unmeasured:
        print(f"{outcome.unmeasured} videos were not measured; the same command measures them", file=sys.stderr)
    return int(bool(outcome.failed or outcome.unmeasured))


main = command(parser, _run, interrupted=RESUMES)

if __name__ == "__main__":
    sys.exit(main())
