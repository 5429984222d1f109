"""List which published results are stale, and make those anew: `python -m benchmark.publish [NAME ...] [--make]`.

A result is stale when something that it was made from has changed: its commands, a suite, weights, the plan of an
ablation, the settings or version of a method or bound, the version of a metric, of features or corruptions, the
renderer. Each result keeps this in `made.json`, with the time of all commands in its directory, those that failed or
were stopped included, and the peak memory of one of their processes. The replication's suite has to be drawn after
everything that claims are about (`benchmark.curate.replication`).

What has been made so far lies in DIR/NAME-DIGEST, where the digest is that of all these inputs: the same command goes
on there, and nothing of other inputs gets in. If what changed is only the version of a metric, the old directory may be
renamed to the name that is printed; then its videos are only measured again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.planning.methods import METHODS
from benchmark.planning.selection import select
from benchmark.suites.puppets import HEADLINE as METRIC
from benchmark.suites.puppets import REPLICATION, load_suite
from flexiact import PUPPET_WEIGHTS
from flexiact.terminal.cli import OneLineParser, command

MADE = "made.json"
SPENT = "spent.txt"
"""File of a result's directory: seconds and peak memory (KiB) of every command that ran there, one a line."""
PUBLISHED = Path(__file__).parents[1] / "reports" / "published"
CLAIMED = PUBLISHED / "claims"
"""Results with the claims that the replication repeats."""
PLANS = Path(__file__).parent / "ablate"
JUDGES = ("clip", "pose")
WEIGHTS = ("backbone", "refadapter", "control", "pose_driver", *JUDGES)
HEADLINE = (
    "flexiact", "flexiact-no-schedule", "flexiact-no-refadapter", "base-embedding", "motion_director",
    "motion_inversion", "ditflow", "smm", "motion_clone", "pose_guided", "i2v",
)  # fmt: skip
"""Methods of every suite; only the default suite has all entries."""
TRAINED = (
    ("paper", 3125, ""),
    ("first", 3125, " --condition first"),
    ("kept", 3125, " --keep-first"),
    ("rank-64", 3125, " --rank 64"),
    ("identity", 3125, " --identity-weight 0.1"),
    ("longer", 6250, ""),
)
"""RefAdapters of the ablation of its training: name, steps of 8 clips, options."""
_BETWEEN = """
import resource, signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
begun = time.monotonic()
code = subprocess.call([sys.executable, *sys.argv[2:]])
with open(sys.argv[1], "a") as file:
    print(f"{time.monotonic() - begun:.1f}", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Product:
    """One published result, a folder of its own.

    Attributes:
        steps: Commands by which it is made: words after `python -m`, where {runs} is the folder of its runs (see
            `place_of`), {out} that of the result, and {claims} `CLAIMED`.
        suites: Names of the suites that it depends on.
        methods: Names of the methods that it depends on.
        weights: Names of the weights that it depends on.
    """

    steps: tuple[str, ...]
    suites: tuple[str, ...]
    methods: tuple[str, ...] = HEADLINE
    weights: tuple[str, ...] = WEIGHTS


def _variance(suite: str) -> Product:
    made = f"benchmark.run --suite {suite} --methods {' '.join(HEADLINE)} --seeds 0-1 --fit-seeds 0-1"
    return Product((f"{made} --out {{runs}}/variance", "reports.power {runs}/variance --publish {out}"), (suite,))


def _suite(name: str, seeds: str = "0", methods: tuple[str, ...] = HEADLINE) -> Product:
    asked = "all" if methods == tuple(METHODS) else " ".join(methods)
    made = f"benchmark.run --suite {name} --methods {asked} --seeds {seeds} --out {{runs}}/{name}"
    return Product((made, f"reports.build {{runs}}/{name} --publish {{out}}"), (name,), methods)


def _self_transfer() -> Product:
    made = _suite("puppets-self")
    # Beside the scores stands why a guided method fails on its own reference.
    signals = "benchmark.guiding {runs}/puppets-self --threads 2 --out {out}/guiding.md"
    return replace(made, steps=(*made.steps, signals))


def _replication() -> Product:
    made = _suite(REPLICATION, seeds="3-5")  # as many as the claims' run has, and none of its own
    return replace(made, steps=(*made.steps, "reports.replication {claims} {out} --publish {out}"))


def _difficulty() -> Product:
    seeds = {"puppets-easy": "0-2", "puppets-pose": "0-2"}
    names = ("puppets-easy", *(f"puppets-{axis}" for axis in ("layout", "viewpoint", "skeleton", "pose", "crossed")))
    # All of these suites have the same references.
    first, *others = (_suite(name, seeds.get(name, "0")).steps[0] for name in names)
    steps = [first, *(f"{step} --fits-from {{runs}}/{names[0]}" for step in others)]
    runs = " ".join(f"{{runs}}/{name}" for name in names)
    return Product((*steps, f"reports.difficulty {runs} --publish {{out}}"), names)


def _ablation(name: str, suite: str, *methods: str) -> Product:
    made = f"benchmark.ablate {name} --suite {suite} --out {{runs}}/ablate-{name} --publish {{out}}"
    # The plans compare FlexiAct and methods that are fitted, none of which is guided by poses.
    return Product((made,), (suite,), methods, ("backbone", "refadapter", *JUDGES))


def _training() -> Product:
    ablated = _ablation("refadapter-training", "puppets-dev-pose", "flexiact")
    made = "flexiact.puppets.train refadapter --device cpu --processes 2 --compile --out {runs}/adapters"
    # A state goes on only to more steps, so a longer training has its own: the same commands can be given again.
    steps = (f"{made}/{name} --state {{runs}}/state-{n} --steps {n}{options}" for name, n, options in TRAINED)
    (last,) = ablated.steps
    return replace(ablated, steps=(*steps, f"{last} --adapters {{runs}}/adapters"))


PRODUCTS: dict[str, Product] = {
    "study": Product(("benchmark.study --features {runs}/features --publish {out}",), ("puppets",), (), JUDGES),
    "attention": Product(
        ("benchmark.study attention --references 12 --fits {runs}/fits --publish {out}",),
        ("puppets-dev",),
        ("flexiact",),
        ("backbone", "refadapter"),
    ),
    "puppets": _suite("puppets", methods=tuple(METHODS)),
    "claims": _suite("puppets", seeds="0-2"),
    "variance": _variance("puppets-dev"),
    "difficulty": _difficulty(),
    "puppets-words": _suite("puppets-words"),
    "puppets-self": _self_transfer(),
    "fae-schedule": _ablation("fae-schedule", "puppets-dev", "flexiact", "flexiact-principled", "i2v"),
    "refadapter": _ablation("refadapter", "puppets-dev-pose", "flexiact", "base-embedding"),
    "refadapter-training": _training(),
    "fit-budget": _ablation("fit-budget", "puppets-dev", "flexiact", "motion_inversion", "motion_director"),
    REPLICATION: _replication(),
}
"""Everything that one command can make; tuning and speed have commands of their own."""
NAME_WIDTH = max(map(len, PRODUCTS)) + 2


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.publish", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("names", nargs="*", default=["all"], metavar="NAME", help=f"results: {', '.join(PRODUCTS)} (all)")
    p.add_argument("--make", action="store_true", help="make what is missing or stale, one after the other")
    p.add_argument(
        "--runs", type=Path, default=Path("runs/publish"), metavar="DIR", help="run directories (%(default)s)"
    )
    p.add_argument("--out", type=Path, default=PUBLISHED, metavar="DIR", help="published results")
    return p


def _publish(options: argparse.Namespace) -> int:
    for name in select(options.names, list(PRODUCTS), "result"):
        inputs = inputs_of(PRODUCTS[name])
        obstacles = obstacles_to(PRODUCTS[name])
        reasons = obstacles + stale(options.out / name, inputs, commands_of(PRODUCTS[name]))
        print(f"{name:{NAME_WIDTH}}{'; '.join(reasons) or 'up to date'}", flush=True)
        if options.make and obstacles:
            raise ValueError(f"{name}: {obstacles[0]}")
        if options.make and reasons:
            make(PRODUCTS[name], options.out / name, options.runs, inputs)
    return 0


def inputs_of(product: Product) -> dict[str, str]:
    """Version or digest of everything that a result depends on, by a name for people."""
    from benchmark.planning.keys import method_key
    from benchmark.store.provenance import weights_digest
    from benchmark.suites.truth import TRUTH_VERSION
    from flexiact.backbone.backbone import load_backbone
    from flexiact.puppets.world.render import RENDERER_VERSION

    found = {"renderer": str(RENDERER_VERSION), "truth": str(TRUTH_VERSION)}
    found |= {f"suite {name}": str(load_suite(name).digest) for name in product.suites}
    found |= {f"weights {name}": weights_digest(PUPPET_WEIGHTS / name) or "none" for name in product.weights}
    for step in product.steps:
        found |= read_by(step)
    backbone = load_backbone("puppets", "cpu")
    for name in product.methods:
        found[f"method {name}"] = method_key(METHODS[name].build(backbone))
    return found


def read_by(step: str) -> dict[str, str]:
    """Inputs that a command has whatever methods and weights its product names."""
    from benchmark.bounds.bounds import BOUNDS
    from benchmark.planning.keys import key
    from benchmark.store.schema.rows import FEATURES_VERSION
    from benchmark.study.corruptions import VERSION
    from flexiact.media.digests import file_digest, json_digest
    from flexiact.puppets.recipes.clip_shards import CLIPS_VERSION
    from metrics import METRICS
    from reports.analysis.claims import family, margin

    program, first = step.split()[:2]
    runs, spoils = program in ("benchmark.run", "benchmark.ablate"), step.startswith("benchmark.study --")
    found = {"corruptions": str(VERSION)} if spoils else {}
    if runs or spoils:
        found |= {"features": str(FEATURES_VERSION)}
        found |= {f"metric {name}": str(metric.version) for name, metric in METRICS.items()}
    if runs:
        said = {name: {"version": bound.version, "config": bound.config()} for name, bound in BOUNDS.items()}
        found |= {f"bound {name}": key("bound", settings) for name, settings in said.items()}
    if program == "flexiact.puppets.train":
        found["training clips"] = str(CLIPS_VERSION)
    if program in ("reports.build", "reports.power", "reports.difficulty"):
        found["claims"] = json_digest([family(), margin(METRIC)])
    if program == "reports.replication":
        found["claims to repeat"] = file_digest(_claims_file()) if _claims_file().is_file() else "none"
    if program == "benchmark.ablate":
        found[f"plan {first}"] = file_digest(PLANS / f"{first}.toml")
    return found


def commands_of(product: Product) -> list[str]:
    """Commands of a result for people, with words for the folders."""
    return [f"python -m {step.format(runs='runs', out='DIR', claims='CLAIMS')}" for step in product.steps]


def place_of(name: str, runs: Path, inputs: dict[str, str], commands: list[str]) -> Path:
    """Folder in which a result is made: its name and 12 hex digits, the digest of its inputs and commands."""
    from flexiact.media.digests import json_digest

    return runs / f"{name}-{json_digest({'inputs': inputs, 'commands': commands})[:12]}"


def stale(folder: Path, inputs: dict[str, str], commands: list[str]) -> list[str]:
    """Reasons why a result has to be made anew; none if it is up to date."""
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        before = {**made["inputs"], "commands": made["commands"]}
    except (OSError, ValueError, KeyError, TypeError):
        return [f"no {MADE}: made before it was kept" if folder.is_dir() else "missing"]
    now = {**inputs, "commands": commands}
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    kinds = dict.fromkeys(name.partition(" ")[0] for name in changed)
    return [f"changed: {_listed([name for name in changed if name.partition(' ')[0] == kind])}" for kind in kinds]


def obstacles_to(product: Product) -> list[str]:
    """Reasons why a replication cannot be made yet, and what to do first; none for anything else."""
    from benchmark.curate.replication import is_outdated

    if REPLICATION not in product.suites:
        return []
    said = "something that claims are about was changed after the draw; first python -m benchmark.curate"
    found = [f"{said} {REPLICATION}"] if is_outdated() else []
    if not _claims_file().is_file():
        found.append("there are no claims to repeat; first python -m benchmark.publish claims --make")
    return found


def _claims_file() -> Path:
    from reports.tables.formats import CLAIMS

    return CLAIMED / CLAIMS


def _listed(names: list[str]) -> str:
    rest = len(names) - 2
    return ", ".join(names[:2]) + (f" and {rest} more" if rest > 0 else "")


def make(product: Product, folder: Path, runs: Path, inputs: dict[str, str]) -> None:
    """Run the commands of a result, then store what it was made from.

    Raises:
        ValueError: If a command fails; its own message stands above.
    """
    place = place_of(folder.name, runs, inputs, commands_of(product))
    print(f"made in {place}", flush=True)
    place.mkdir(parents=True, exist_ok=True)
    for step in product.steps:
        folders = {"runs": _near(place), "out": _near(folder), "claims": _near(CLAIMED)}
        words = ["-m", *(word.format(**folders) for word in step.split())]
        print(command := f"python {shlex.join(words)}", flush=True)
        if code := _ran(words, place / SPENT):
            raise ValueError(f"{command}: ended with {code}; the same command goes on when that is mended")
    folder.mkdir(parents=True, exist_ok=True)
    seconds, kib = zip(*(map(float, line.split()) for line in (place / SPENT).read_text().splitlines()), strict=True)
    made: dict[str, Any] = {
        "commands": commands_of(product),
        "minutes": round(sum(seconds) / 60, 1),
        "peak_memory_gib_of_a_process": round(max(kib) / 2**20, 2),
        "inputs": inputs,
    }
    (folder / MADE).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _near(path: Path) -> Path:
    """The path from the working directory if it lies below, since results tell the command that made them."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _ran(words: Sequence[str], spent: Path) -> int:
    """Run Python with these words; return the exit code, and add a line to `SPENT`.

    A small process stands between, because Linux counts to a process the memory of the one that starts it.
    """
    process = subprocess.Popen([sys.executable, "-S", "-c", _BETWEEN, spent, *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the command has heard, too: it ends after what is in work
        process.wait()
        raise


main = command(parser, _publish)

if __name__ == "__main__":
    sys.exit(main())
