"""The suites of puppet cases, and the recipe of each.

The recipes are deterministic, and no generated video is used: the same code writes the same files, but for the
replication, which depends on weights, settings and claims as well.
`benchmark.curate.balanced` makes suites of all kinds of targets, `benchmark.curate.factors` those that vary one axis at
a time, `benchmark.curate.copies` copies of the default suite, and `benchmark.curate.replication` the one drawn last.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmark.curate.balanced import BalancedRecipe, balanced
from benchmark.curate.copies import told_in_words, transferred_to_self
from benchmark.curate.factors import FactorRecipe, factored
from benchmark.curate.files import sealed
from benchmark.curate.replication import redrawn
from benchmark.suites.puppets import AXES, REPLICATION, PuppetCase, PuppetSuite

SUITES_VERSION = 3
"""Version of the suites; raise it when they get other cases or other numbers of steps, or the meaning of a case
changes."""

LATER_VERSIONS = {"puppets-smoke": 5}
"""Versions of suites that changed alone after that."""

Recipe = BalancedRecipe | FactorRecipe | Callable[[str], tuple[PuppetSuite, list[PuppetCase]]]

RECIPES: dict[str, Recipe] = {
    "puppets": BalancedRecipe("24 large test actions x 2 targets, the default", "test", 2, seed=11),
    "puppets-full": BalancedRecipe("41 test actions x 3 targets, movements of all kinds", "test", 3, 12, small=True),
    "puppets-words": partial(told_in_words, summary="the default suite, where the texts say roughly what moves"),
    "puppets-self": partial(
        transferred_to_self, summary="6 references as their own targets: what fails here is broken"
    ),
    REPLICATION: partial(
        redrawn,
        summary="the default suite's actions on 24 other references x 2 targets, drawn after everything was settled",
        targets=2,
    ),
    "puppets-easy": FactorRecipe("24 test actions: same body, layout, viewpoint and pose as the action's start", ()),
    "puppets-layout": FactorRecipe("24 test actions x 3 strengths of another layout, nothing else", ("layout",)),
    "puppets-viewpoint": FactorRecipe(
        "24 test actions x 3 strengths of another viewpoint, nothing else", ("viewpoint",)
    ),
    "puppets-skeleton": FactorRecipe("24 test actions x 3 strengths of another body, nothing else", ("skeleton",)),
    "puppets-pose": FactorRecipe("24 test actions x 3 strengths of another pose in the image, nothing else", ("pose",)),
    "puppets-crossed": FactorRecipe("24 test actions x 3 strengths of all four at once", AXES),
    "puppets-dev": BalancedRecipe("12 development actions x 2 targets, for tuning only", "dev", 2, seed=13),
    "puppets-dev-pose": FactorRecipe(
        "12 development actions x 3 strengths of another pose, for tuning only", ("pose",), "dev"
    ),
    "puppets-smoke": BalancedRecipe(
        "2 cases and short fits, to see that everything runs", "dev", 2, 14, 1, num_inference_steps=4, fit_share=0.05
    ),
}


def curate(name: str) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make a suite.

    Raises:
        UsageError: If references find too few targets.
    """
    recipe = RECIPES[name]
    match recipe:
        case BalancedRecipe():
            suite, cases = balanced(name, recipe)
        case FactorRecipe():
            suite, cases = factored(name, recipe)
        case _:
            suite, cases = recipe(name)
    return sealed(replace(suite, version=LATER_VERSIONS.get(name, SUITES_VERSION)), cases), cases
