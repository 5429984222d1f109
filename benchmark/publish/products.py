"""The published results: the commands that make each, and the suites, methods and weights that it depends on."""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.planning.methods import METHODS
from benchmark.suites.puppets import HEADLINE, REPLICATION

PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
CLAIMED = PUBLISHED / "claims"
"""Results with the claims that the replication repeats."""
JUDGES = ("clip", "pose")
WEIGHTS = ("backbone", "refadapter", "control", "pose_driver", *JUDGES)
COMPARED = (
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
    methods: tuple[str, ...] = COMPARED
    weights: tuple[str, ...] = WEIGHTS


def _variance(suite: str) -> Product:
    made = f"benchmark.run --suite {suite} --methods {' '.join(COMPARED)} --seeds 0-1 --fit-seeds 0-1"
    return Product((f"{made} --out {{runs}}/variance", "reports.power {runs}/variance --publish {out}"), (suite,))


def _suite(name: str, seeds: str = "0", methods: tuple[str, ...] = COMPARED) -> Product:
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


def _difficulty(seeds: str, *axes: str) -> Product:
    # All of these suites have the same references. The curves are of the headline alone, so nothing else is measured.
    names = [f"puppets-{name}" for name in ("easy", *axes)]
    first, *others = (f"{_suite(name, seeds).steps[0]} --metrics {HEADLINE}" for name in names)
    steps = [first, *(f"{step} --fits-from {{runs}}/{names[0]}" for step in others)]
    runs = " ".join(f"{{runs}}/{name}" for name in names)
    steps.append(f"reports.difficulty {runs} --publish {{out}}")
    return Product(tuple(steps), tuple(names), weights=("backbone", "refadapter", "control", "pose_driver", "pose"))


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
    "difficulty-pose": _difficulty("0-2", "pose"),
    "difficulty": _difficulty("0", "layout", "viewpoint", "skeleton", "crossed"),
    "puppets-words": _suite("puppets-words"),
    "puppets-self": _self_transfer(),
    "fae-schedule": _ablation("fae-schedule", "puppets-dev", "flexiact", "flexiact-principled", "i2v"),
    "refadapter": _ablation("refadapter", "puppets-dev-pose", "flexiact", "base-embedding"),
    "refadapter-training": _training(),
    "fit-budget": _ablation("fit-budget", "puppets-dev", "flexiact", "motion_inversion", "motion_director"),
    REPLICATION: _replication(),
}
"""Everything that one command can make; tuning and speed have commands of their own."""


def commands_of(product: Product) -> list[str]:
    """Commands of a result for people, with words for the folders."""
    return [f"python -m {step.format(runs='runs', out='DIR', claims='CLAIMS')}" for step in product.steps]
