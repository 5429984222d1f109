"""Write the suites of puppet cases: `python -m benchmark.curate [SUITE ...]`.

Deterministic: the same code writes the same files. Suites of all kinds of targets are made in
`benchmark.curate_balanced`, those that vary one axis at a time in `benchmark.curate_factors`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.cases import CASES_FOLDER, SUITE_FILE, Case, Suite, case_to_toml, suite_to_toml
from benchmark.curate_balanced import BalancedRecipe, balanced
from benchmark.curate_factors import VARIED, FactorRecipe, factored
from benchmark.selection import UsageError, select

RECIPES: dict[str, BalancedRecipe | FactorRecipe] = {
    "puppets": BalancedRecipe(
        "6 test actions x 5 targets, the default", "test", "test", 6, 5, seed=11, num_inference_steps=25
    ),
    "puppets-full": BalancedRecipe("25 test actions x 10 targets", "test", "test", None, 10, 12, 25, 48, large=False),
    "puppets-easy": FactorRecipe("8 test actions x 2 looks: same body, layout and viewpoint", ()),
    "puppets-layout": FactorRecipe("8 test actions x 3 strengths of another layout, nothing else", ("layout",)),
    "puppets-viewpoint": FactorRecipe(
        "8 test actions x 3 strengths of another viewpoint, nothing else", ("viewpoint",)
    ),
    "puppets-skeleton": FactorRecipe("8 test actions x 3 strengths of another body, nothing else", ("skeleton",)),
    "puppets-crossed": FactorRecipe("8 test actions x 3 strengths of all three at once", VARIED),
    "puppets-dev": BalancedRecipe(
        "4 development actions x 4 targets, for tuning only", "dev", "train", None, 4, seed=13, num_inference_steps=25
    ),
    "puppets-smoke": BalancedRecipe(
        "2 cases, to see that everything runs", "dev", "train", 1, 2, seed=14, num_inference_steps=8
    ),
}


def curate(name: str) -> tuple[Suite, list[Case]]:
    """Make a suite.

    Raises:
        UsageError: when references find too few targets.
    """
    recipe = RECIPES[name]
    return balanced(name, recipe) if isinstance(recipe, BalancedRecipe) else factored(name, recipe)


def write_suite(suite: Suite, cases: Sequence[Case], folder: Path = CASES_FOLDER) -> None:
    """Write a suite's files and remove cases that are no longer in it."""
    root = folder / suite.name
    root.mkdir(parents=True, exist_ok=True)
    for stale in set(root.glob("*.toml")) - {root / f"{case.case_id}.toml" for case in cases}:
        stale.unlink()
    (root / SUITE_FILE).write_text(suite_to_toml(suite), encoding="utf-8")
    for case in cases:
        (root / f"{case.case_id}.toml").write_text(case_to_toml(case), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the named suites, all of them by default."""
    p = argparse.ArgumentParser(prog="python -m benchmark.curate", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("suites", nargs="*", default=["all"], metavar="SUITE", help=", ".join(RECIPES))
    try:
        for name in select(p.parse_args(arguments).suites, list(RECIPES), "suite"):
            suite, cases = curate(name)
            write_suite(suite, cases)
            print(f"{name}: {len(cases)} cases, edges {dict(suite.edges)}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
