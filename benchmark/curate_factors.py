"""Suites that take difficulty apart: one reference and one look of the target, and one axis at a time made harder.

A *family* is a reference with all its targets. The base target has the reference's body, layout and viewpoint, but a
skin, stance and background of its own: `puppets-easy`, strength 0. The targets of a one-factor suite are the base
target with one thing changed, at strengths 1, 2 and 3: its place and scale (layout), the direction it is seen from
(viewpoint), or its body (skeleton). Those of the crossed suite have all three changes of one strength at once, the very
same ones. So curves over strength compare like with like: same references, same looks, same changes.

Strengths are ranges (`BANDS`) of the distances that `flexiact.puppets.transfer.axes` measures; where an axis is held,
its distance is exactly 0. No other kind of body is at a middling distance from a fish; there it is a fish of very other
proportions.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TypeVar

import torch

from benchmark.cases import AXES, Case, Suite
from benchmark.curate_rules import (
    POOLS,
    Candidate,
    Chosen,
    candidate,
    distant_actions,
    fitting_rigs,
    generator_of,
    inside,
    large_actions,
    make_case,
    shows_all,
)
from benchmark.selection import UsageError
from flexiact.puppets.actions import restricted
from flexiact.puppets.rigs import RIGS
from flexiact.puppets.scene import Scene, random_camera, random_scene
from flexiact.puppets.transfer import axes

BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    "layout": ((0.08, 0.13), (0.19, 0.25), (0.32, 0.42)),
    "viewpoint": ((8.0, 12.0), (20.0, 26.0), (36.0, 46.0)),
    "skeleton": ((0.06, 0.16), (0.26, 0.38), (0.48, 0.66)),
}
"""Least and greatest distance at strengths 1, 2 and 3, in each axis's own unit. Their gaps hold the terciles of the
default suite, about where its near, middle and far begin and end."""

VARIED = tuple(BANDS)
"""The axes that a suite varies, one at a time and all of them at once; the pose is not varied."""

STRENGTHS = 3

REFERENCES = 8
"""Families, one action of large movements each: all there are, and clusters enough for a bootstrap."""

LOOKS = 2
"""Targets of each reference in the easy suite; the first one is the base of the others."""

_POOL = _SPLIT = "test"
_SEED = 15
_STEPS = 25
_REFERENCES_TRIED = 60
_FAMILIES_TRIED = 6
_TARGETS_TRIED = 15
_CROSSINGS_TRIED = 4
_DRAWS = 300

Found = TypeVar("Found")


@dataclass(frozen=True)
class FactorRecipe:
    """How a suite of difficulty is made: what differs between reference and target beside the look; none: easy."""

    summary: str
    varies: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Family:
    """A reference with its targets.

    Attributes:
        chosen: the reference.
        looks: those of the easy suite, the base target first.
        graded: for the axes that a suite varies, its targets at strengths 1, 2 and 3.
    """

    chosen: Chosen
    looks: tuple[Candidate, ...]
    graded: Mapping[tuple[str, ...], tuple[Candidate, ...]]


def factored(name: str, recipe: FactorRecipe) -> tuple[Suite, list[Case]]:
    """Make a suite.

    Raises:
        UsageError: when too few actions have a family.
    """
    edges = {axis: _edges(axis) if axis in recipe.varies else (0.0, 0.0) for axis in AXES}
    cases = [
        make_case(name, family.chosen, number, target, edges)
        for family in families()
        for number, target in enumerate(family.graded[recipe.varies] if recipe.varies else family.looks, 1)
    ]
    cases.sort(key=lambda case: case.case_id)
    return Suite(name, recipe.summary, _STEPS, edges, tuple(case.case_id for case in cases)), cases


def _edges(axis: str) -> tuple[float, float]:
    """The middles of the gaps between strengths, so that near, middle and far are strengths 1, 2 and 3."""
    first, second, third = BANDS[axis]
    return round((first[1] + second[0]) / 2, 4), round((second[1] + third[0]) / 2, 4)


@cache
def families() -> tuple[Family, ...]:
    """The families that all suites of difficulty share, rigs of references in turns.

    Raises:
        UsageError: when too few actions have one.
    """
    pool, used = large_actions(_POOL), Counter[str]()
    found: list[Family] = []
    for name in distant_actions(pool, _SPLIT):
        rigs = sorted(fitting_rigs(pool[name], _SPLIT), key=lambda rig: used[rig])
        family = next((f for rig in rigs if (f := _family(name, rig))), None)
        print(f"  {name}: {family.chosen.scene.rig if family else 'no family'}", file=sys.stderr)
        if family is not None:
            used[family.chosen.scene.rig] += 1
            found.append(family)
        if len(found) == REFERENCES:
            return tuple(found)
    raise UsageError(f"only {len(found)} of {REFERENCES} actions have targets at all strengths")


def _family(name: str, rig: str) -> Family | None:
    """The first reference of a rig that has targets at all strengths; None where none of those drawn has."""
    generator, action = generator_of(_SEED, name, rig), POOLS[_POOL][name]
    tried = 0
    for _ in range(_REFERENCES_TRIED):
        scene = random_scene(generator, _SPLIT, rig)
        if tried < _FAMILIES_TRIED and shows_all(scene, action):
            tried += 1
            family = _grown(Chosen(name, _POOL, scene), generator)
            if family is not None:
                return family
    return None


def _grown(chosen: Chosen, generator: torch.Generator) -> Family | None:
    """A reference's family, None where one of its targets cannot be found."""
    looks = [found for _ in range(LOOKS) if (found := _first(partial(_look, chosen, generator)))]
    if len(looks) < LOOKS:
        return None
    base = looks[0].scene
    if any(_changed(base, axis, band, generator) is None for axis in VARIED for band in BANDS[axis]):
        return None
    graded: dict[tuple[str, ...], list[Candidate]] = {key: [] for key in (*((axis,) for axis in VARIED), VARIED)}
    for strength in reversed(range(STRENGTHS)):  # a reference that will not do fails at the greatest
        targets = _step(chosen, base, strength, generator)
        if targets is None:
            return None
        for key, target in targets.items():
            graded[key].insert(0, target)
    return Family(chosen, tuple(looks), {key: tuple(targets) for key, targets in graded.items()})


def _first(draw: Callable[[], Found | None]) -> Found | None:
    return next((found for _ in range(_TARGETS_TRIED) if (found := draw()) is not None), None)


def _would_do(chosen: Chosen, target: Scene | None) -> Candidate | None:
    action = POOLS[chosen.pool][chosen.name]
    # `candidate` asks this too, after more costly questions; most draws fail here.
    if target is None or not inside(target, restricted(action, RIGS[chosen.scene.rig].channels)):
        return None
    return candidate(chosen.scene, target, action)


def _look(chosen: Chosen, generator: torch.Generator) -> Candidate | None:
    """The reference's body, seen as it is, with a skin, stance and background drawn anew."""
    drawn = random_scene(generator, _SPLIT, chosen.scene.rig)
    return _would_do(chosen, replace(drawn, proportions=chosen.scene.proportions, camera=chosen.scene.camera))


def _step(
    chosen: Chosen, base: Scene, strength: int, generator: torch.Generator
) -> dict[tuple[str, ...], Candidate] | None:
    """The base changed in each axis, and in all at once, at one strength; None where one of the four is not found."""
    for _ in range(_CROSSINGS_TRIED):
        alone: dict[tuple[str, ...], Candidate] = {}
        for axis in VARIED:
            found = _first(partial(_alone, chosen, base, axis, BANDS[axis][strength], generator))
            if found is None:
                return None
            alone[axis,] = found
        layout, viewpoint, skeleton = (target.scene for target in alone.values())
        seen = replace(layout.camera, yaw_deg=viewpoint.camera.yaw_deg, pitch_deg=viewpoint.camera.pitch_deg)
        crossed = _would_do(chosen, replace(skeleton, camera=seen))
        if crossed is not None:
            return alone | {VARIED: crossed}
    return None


def _alone(
    chosen: Chosen, base: Scene, axis: str, band: tuple[float, float], generator: torch.Generator
) -> Candidate | None:
    return _would_do(chosen, _changed(base, axis, band, generator))


def _changed(base: Scene, axis: str, band: tuple[float, float], generator: torch.Generator) -> Scene | None:
    """The base with one thing drawn anew, at a distance that lies in a band; None where none of the draws does."""
    camera = base.camera
    for _ in range(_DRAWS):
        if axis == "skeleton":
            body = random_scene(generator, _SPLIT)
            target = replace(base, rig=body.rig, proportions=body.proportions)
        elif axis == "viewpoint":
            drawn = random_camera(generator)
            target = replace(base, camera=replace(camera, yaw_deg=drawn.yaw_deg, pitch_deg=drawn.pitch_deg))
        else:
            drawn = random_camera(generator)
            target = replace(base, camera=replace(camera, scale=drawn.scale, x=drawn.x, y=drawn.y))
        # The base is as far from the reference as from itself: it has its body and its camera.
        if band[0] <= axes(base, target)[axis] <= band[1]:
            return target
    return None
