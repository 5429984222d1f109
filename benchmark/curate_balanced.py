"""Suites of all kinds of targets: the terciles of layout, viewpoint and skeleton balanced against each other.

Many candidate targets are drawn for every reference; kept are those that can show most of the action, well inside the
frame; chosen are those that balance the terciles over the suite (terciles of the candidates kept).
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.cases import AXES, Case, Suite, tercile
from benchmark.curate_rules import (
    POOLS,
    Candidate,
    Chosen,
    candidate,
    distant_actions,
    fitting_rigs,
    generator_of,
    large_actions,
    make_case,
    shows_all,
)
from benchmark.selection import UsageError
from flexiact.puppets.scene import random_scene

_TRIES = 400  # scenes drawn for a reference


@dataclass(frozen=True)
class BalancedRecipe:
    """How a balanced suite is made.

    Attributes:
        summary: one line for people.
        pool: names of the actions it may take, "test" or "dev".
        split: of the scenes; "test" has held-out skins, backgrounds and rig.
        references: how many actions, one reference each; None for all of the pool.
        targets: per reference.
        seed: of all draws.
        num_inference_steps: None for the backbone's own.
        candidates: targets drawn per reference.
        large: only actions of large movements, see `large_actions`.
    """

    summary: str
    pool: str
    split: str
    references: int | None
    targets: int
    seed: int
    num_inference_steps: int | None = None
    candidates: int = 80
    large: bool = True


@dataclass(frozen=True, eq=False)
class Reference:
    """An action on a scene, with the targets that would do for it."""

    chosen: Chosen
    candidates: tuple[Candidate, ...]


def balanced(name: str, recipe: BalancedRecipe) -> tuple[Suite, list[Case]]:
    """Make a suite.

    Raises:
        UsageError: when a reference finds too few targets.
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
    return Suite(name, recipe.summary, recipe.num_inference_steps, edges, tuple(c.case_id for c in cases)), cases


def _references(recipe: BalancedRecipe) -> Iterator[Reference]:
    pool = large_actions(recipe.pool) if recipe.large else POOLS[recipe.pool]
    used = Counter[str]()
    names = list(pool) if recipe.references is None else distant_actions(pool, recipe.split)[: recipe.references]
    for name in names:
        rigs = sorted(fitting_rigs(pool[name], recipe.split), key=lambda rig: used[rig])
        reference = next((r for rig in rigs if (r := _reference(recipe, name, rig))), None)
        if reference is None:
            raise UsageError(f"action {name}: fewer than {recipe.targets} targets on every rig")
        used[reference.chosen.scene.rig] += 1
        yield reference


def _reference(recipe: BalancedRecipe, name: str, rig: str) -> Reference | None:
    """The first scene of a rig that shows all it can of the action inside the frame; None when too few targets do."""
    action = POOLS[recipe.pool][name]
    generator = generator_of(recipe.seed, name, "reference", rig)
    drawn = (random_scene(generator, recipe.split, rig) for _ in range(_TRIES))
    scene = next((scene for scene in drawn if shows_all(scene, action)), None)
    if scene is None:
        return None
    generator = generator_of(recipe.seed, name, "targets", rig)
    targets = (random_scene(generator, recipe.split) for _ in range(recipe.candidates))
    candidates = tuple(c for target in targets if (c := candidate(scene, target, action)))
    print(f"  {name} on {rig}: {len(candidates)} of {recipe.candidates} targets would do", file=sys.stderr)
    enough = len(candidates) >= 2 * recipe.targets
    return Reference(Chosen(name, recipe.pool, scene), candidates) if enough else None


def _terciles(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return round(float(low), 3), round(float(high), 3)


def _spread(
    references: Sequence[Reference], targets: int, edges: Mapping[str, tuple[float, float]]
) -> list[list[Candidate]]:
    """Targets for each reference, drawn in turns; each turn takes the candidate whose terciles are rarest so far."""
    chosen: list[list[Candidate]] = [[] for _ in references]
    counts: Counter[object] = Counter()
    for _ in range(targets):
        for reference, mine in zip(references, chosen, strict=True):
            best = min((c for c in reference.candidates if c not in mine), key=lambda c: _crowding(c, edges, counts))
            mine.append(best)
            counts.update(_cells(best, edges))
    return chosen


def _cells(target: Candidate, edges: Mapping[str, tuple[float, float]]) -> list[object]:
    terciles = [(axis, tercile(target.axes[axis], edges[axis])) for axis in AXES]
    return [*terciles, tuple(terciles), target.scene.rig]


def _crowding(
    target: Candidate, edges: Mapping[str, tuple[float, float]], counts: Mapping[object, int]
) -> tuple[float, int]:
    """Cases that already share a tercile (on each axis), then those that share all three or the rig."""
    *terciles, joint, rig = _cells(target, edges)
    return sum(counts[t] ** 2 for t in terciles), 3 * counts[joint] + counts[rig]
