"""Options that the commands of the suite share, and what they name: suites, seeds, processes and networks."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.planning.selection import UsageError, unknown
from benchmark.suites.case import Suite
from benchmark.suites.case_table import table_suite
from benchmark.suites.davis import davis_suite
from benchmark.suites.flexiact import flexiact_suite
from benchmark.suites.folder import folder_suite
from benchmark.suites.puppets import load_suite, suite_names
from benchmark.workers.cluster import add_cluster_options
from benchmark.workers.load import Networks
from flexiact.terminal.cli import BACKBONE_HELP, add_device_options

FILE_SUITES: dict[str, Callable[[str], Suite]] = {
    "flexiact": flexiact_suite,
    "davis": davis_suite,
    "folder": folder_suite,
    "table": table_suite,
}
"""Suites of real material: the word before the colon of `--suite`, and the function that reads the place after it."""


def add_run_options(p: argparse.ArgumentParser, suite: str | None = "puppets", out: str = "runs/<suite>") -> None:
    """Add all options but those that name methods; `suite` is used and `out` is said where none is given."""
    add_suite_options(p, suite, out)
    p.add_argument("--seeds", nargs="+", default=["0"], metavar="N", help="seeds, e.g. 0 1 2 or 0-2 (0)")
    apart = "seeds of fits, each with every one of --seeds (a fit takes the seed of its video)"
    p.add_argument("--fit-seeds", nargs="+", metavar="N", help=apart)
    taken = "run directories to copy fits from, where method, settings, weights, reference, text and seed are equal"
    p.add_argument("--fits-from", nargs="+", type=Path, default=(), metavar="RUN", help=taken)
    p.add_argument("--refadapter", type=Path, metavar="DIR", help="RefAdapter in peft's format (the backbone's own)")
    p.add_argument("--control", type=Path, metavar="DIR", help="weights for control videos (the backbone's own)")


def add_suite_options(p: argparse.ArgumentParser, suite: str | None = "puppets", out: str = "runs/<suite>") -> None:
    """Add the options that bounds and measuring need, too: suite, metrics, networks, processes."""
    real = "flexiact:FOLDER or flexiact:hub@COMMIT (the authors' benchmark), davis:FOLDER (with transfers.csv), "
    real += "folder:FOLDER (reference.mp4 or reference/, images/), table:FILE.csv (case, reference, target, prompt)"
    suites = f"{', '.join(suite_names())}; real material: {real} ({suite or 'its own'})"
    p.add_argument("--suite", default=suite, metavar="NAME", help=suites)
    p.add_argument("--cases", nargs="+", default=["all"], metavar="NAME", help="cases of the suite: names or patterns")
    p.add_argument("--metrics", nargs="+", default=["all"], metavar="NAME", help="metrics: names or patterns")
    p.add_argument("--steps", type=int, metavar="N", help="sampler steps (the suite's or the backbone's own number)")
    p.add_argument("--out", type=Path, metavar="DIR", help=f"run directory ({out})")
    p.add_argument("--backbone", metavar="NAME", help=f"{BACKBONE_HELP} (puppets)")
    p.set_defaults(format=None)  # of a run without a backbone; only `benchmark.score` can do without
    p.add_argument("--image-encoder", metavar="NAME", help="open_clip folder, ViT-B-32, or model/weights (embedded)")
    p.add_argument("--shard", metavar="I/N", help="part I of N alone, for jobs of a cluster (docs/cluster.md)")
    add_device_options(p)
    shared = p.add_mutually_exclusive_group()
    workers = "processes of one thread each, any number gives the same digests; auto: one a GPU or core (auto)"
    shared.add_argument("--workers", default="auto", metavar="N", help=workers)
    threads = "one process of N threads on the CPU instead: another number can give other last bits, so other digests"
    shared.add_argument("--threads", type=int, metavar="N", help=threads)
    add_cluster_options(p.add_argument_group("on a Ray cluster"))
    p.add_argument(
        "--retry-failed", action="store_true", help="make videos and compute metrics again that failed before"
    )


def parse_seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """Seeds from `0 1 2`, `0,1,2` or `0-2`: ascending, without duplicates.

    Raises:
        UsageError: If a text has none of these forms, or a seed is too large.
    """
    seeds: set[int] = set()
    for text in (part for item in texts for part in item.split(",")):
        first, _, last = text.strip().partition("-")
        try:
            low, high = int(first), int(last or first)
        except ValueError:
            raise UsageError(f"seeds: expected numbers from 0 such as 0 1 2 or 0-2, got '{text}'") from None
        if not 0 <= low <= high < 2**63 or high - low >= 1000:
            raise UsageError(f"seeds: expected an ascending range of at most 1000 seeds from 0, got '{text}'")
        seeds.update(range(low, high + 1))
    return tuple(sorted(seeds))


def parse_workers(text: str) -> int | None:
    """Number of workers; None for `auto`.

    Raises:
        UsageError: If the text is neither a number nor `auto`.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or not int(text):
        raise UsageError(f"workers: expected auto or a number above 0, got '{text}'")
    return int(text)


def open_suite(args: argparse.Namespace) -> Suite:
    """Open the suite that the arguments name.

    Raises:
        UsageError: If there is no suite of that name or in that place; or if the puppets' model would animate real
            material, or their image encoder judge it, because the user named no other one.
        CaseError: If a file of the suite is invalid.
    """
    kind, colon, place = args.suite.partition(":")
    if not colon:
        return load_suite(args.suite)
    if kind not in FILE_SUITES:
        raise UsageError(unknown(kind, list(FILE_SUITES), "kind of suite"))
    if not place:
        raise UsageError(f"suite: expected a folder after the colon, as in {kind}:FOLDER")
    absent = [] if args.backbone or args.format else ["--backbone NAME (the built-in model knows puppets alone)"]
    absent += [] if args.image_encoder else ["--image-encoder ViT-B-32 (the embedded one was trained on puppets)"]
    if absent:
        raise UsageError(f"suite {kind}: real material needs {' and '.join(absent)}")
    return FILE_SUITES[kind](place)


def networks_of(args: argparse.Namespace, suite: Suite, puppets: bool) -> Networks:
    """Names of the networks that the options ask for; `puppets` is True if the videos show puppets."""
    from flexiact.backbone.loading import Savings

    steps, savings = args.steps or suite.num_inference_steps, Savings(args.offload, args.quantise, args.dtype)
    return Networks(
        args.backbone or "puppets",
        args.refadapter,
        steps,
        args.control,
        savings,
        args.image_encoder,
        puppets,
        suite.fit_share,
        args.format,
    )
