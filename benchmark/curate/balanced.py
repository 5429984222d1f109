"""Suites of all kinds of targets: the terciles of layout, viewpoint, skeleton and pose are balanced against each other.

Many candidate targets are drawn for every reference, each in several poses. A candidate is kept if it can show most of
the action, well inside the frame. From the kept ones those are chosen that balance the terciles over the suite; the
terciles are those of the kept candidates. References are those of the difficulty suites, if these have the action and
the recipe asks for no fresh ones.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.curate.factors import NUM_INFERENCE_STEPS, drawn_reference, families, missing
from benchmark.curate.poses import any_poses
from benchmark.curate.rules import (
    POOLS,
    Candidate,
    Chosen,
    Target,
    fitting_rigs,
    generator_of,
    large_actions,
    make_case,
    would_do,
)
from benchmark.planning.selection import UsageError
from benchmark.suites.puppets import AXES, PuppetCase, PuppetSuite, tercile
from flexiact.puppets.world.scene import random_scene

MOMENTS_DRAWN = 5
"""Number of moments of random actions in which each target scene is a candidate, in addition to the neutral pose. So
before the choice one image in six shows a figure that just stands."""

CANDIDATES_A_TARGET = 4
"""Number of candidates that a reference must have for each of its targets, so that there is a choice."""


@dataclass(frozen=True)
class BalancedRecipe:
    """Settings by which a balanced suite is made.

    Attributes:
        pool: Split of the scenes, "test" or "dev", and name of the set of actions.
        targets: Number of targets per reference.
        references: Number of large actions; None takes all.
        small: True to take the pool's other actions, too.
        fresh: True to draw references, instead of taking those of the difficulty suites.
        scenes: Number of target scenes drawn per reference; most are unsuitable.
    """

    summary: str
    pool: str
    targets: int
    seed: int
    references: int | None = None
    small: bool = False
    fresh: bool = False
    num_inference_steps: int = NUM_INFERENCE_STEPS
    fit_share: float = 1.0
    scenes: int = 60


@dataclass(frozen=True, eq=False)
class Reference:
    """An action on a scene, with its suitable targets."""

    chosen: Chosen
    candidates: tuple[Candidate, ...]


def balanced(name: str, recipe: BalancedRecipe) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make a suite.

    Raises:
        UsageError: If a reference finds too few targets.
    """
    references = list(_references(recipe))
    pool = [c for r in references for c in r.candidates]
    edges = {axis: _terciles([c.axes[axis] for c in pool]) for axis in AXES}
    cases = [
        make_case(name, reference.chosen, number, target, edges)
        for reference, targets in zip(references, _spread(references, recipe.targets, edges), strict=True)
        for number, target in enumerate(targets, 1)
    ]
    cases.sort(key=lambda case: case.case_id)
    ids = tuple(case.case_id for case in cases)
    summary = recipe.summary + ("" if recipe.small or recipe.fresh else missing(recipe.pool))
    return PuppetSuite(name, summary, recipe.num_inference_steps, edges, ids, fit_share=recipe.fit_share), cases


def _references(recipe: BalancedRecipe) -> Iterator[Reference]:
    shared = [] if recipe.fresh else [family.chosen for family in families(recipe.pool)][: recipe.references]
    for chosen in shared:
        reference = _reference(recipe, chosen)
        if reference is None:
            raise UsageError(f"action {chosen.name}: too few targets for the reference that the suites share")
        yield reference
    used, given = Counter(chosen.scene.rig for chosen in shared), {chosen.name for chosen in shared}
    drawn = POOLS[recipe.pool] if recipe.small else large_actions(recipe.pool) if recipe.fresh else {}
    for name in [name for name in drawn if name not in given]:
        rigs = sorted(fitting_rigs(POOLS[recipe.pool][name], recipe.pool), key=lambda rig: used[rig])
        reference = next((r for rig in rigs if (r := _own_reference(recipe, name, rig))), None)
        if reference is None:
            raise UsageError(f"action {name}: too few targets on every rig")
        used[reference.chosen.scene.rig] += 1
        yield reference


def _own_reference(recipe: BalancedRecipe, name: str, rig: str) -> Reference | None:
    chosen = drawn_reference(name, recipe.pool, rig, generator_of(recipe.seed, name, "reference", rig))
    return None if chosen is None else _reference(recipe, chosen)


def _reference(recipe: BalancedRecipe, chosen: Chosen) -> Reference | None:
    """Find the reference and its candidates; None if there are too few candidates."""
    generator = generator_of(recipe.seed, chosen.name, "targets", chosen.scene.rig)
    drawn = [Target(random_scene(generator, recipe.pool)) for _ in range(recipe.scenes)]
    fit = would_do(chosen, drawn)
    found = would_do(chosen, [t for c in fit for t in any_poses(c.scene, MOMENTS_DRAWN, generator)])
    print(f"  {chosen.name} on {chosen.scene.rig}: {len(found)} candidates", file=sys.stderr, flush=True)
    enough = len({candidate.scene for candidate in found}) >= CANDIDATES_A_TARGET * recipe.targets
    return Reference(chosen, tuple(found)) if enough else None


def _terciles(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return round(float(low), 3), round(float(high), 3)


def _spread(
    references: Sequence[Reference], targets: int, edges: Mapping[str, tuple[float, float]]
) -> list[list[Candidate]]:
    """Targets of each reference, chosen in turns; each turn takes the candidate whose terciles are rarest so far."""
    chosen: list[list[Candidate]] = [[] for _ in references]
    counts: Counter[object] = Counter()
    for _ in range(targets):
        for reference, mine in zip(references, chosen, strict=True):
            taken = {candidate.scene for candidate in mine}
            left = (candidate for candidate in reference.candidates if candidate.scene not in taken)
            best = min(left, key=lambda candidate: _crowding(candidate, edges, counts))
            mine.append(best)
            counts.update(_cells(best, edges))
    return chosen


def _cells(target: Candidate, edges: Mapping[str, tuple[float, float]]) -> list[object]:
    terciles = [(axis, tercile(target.axes[axis], edges[axis])) for axis in AXES]
    return [*terciles, tuple(terciles), target.scene.rig]


def _crowding(
    target: Candidate, edges: Mapping[str, tuple[float, float]], counts: Mapping[object, int]
) -> tuple[float, int]:
    """Sum over axes of the squared count of cases in the same tercile; then a weighted count of all four and rig."""
    *terciles, joint, rig = _cells(target, edges)
    return sum(counts[t] ** 2 for t in terciles), 3 * counts[joint] + counts[rig]
