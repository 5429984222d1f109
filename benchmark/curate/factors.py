"""References with targets of every difficulty, and the suites that vary one kind of difficulty at a time.

A *family* is a reference with its targets. The base target has the reference's body, layout and viewpoint. It has its
own skin, background and small offsets of the stance. Its image shows the first pose of the right answer. The base
targets are the suite `puppets-easy`, strength 0.

The targets of a one-factor suite are the base target with one change, at strengths 1, 2 and 3: in its place and scale
(layout), its viewing direction (viewpoint), its body (skeleton), or its pose. The targets of the crossed suite have all
four changes of one strength at once, and exactly the same changes. So curves over strength compare like with like: same
references, same skins and backgrounds, same changes.

The easy image shows the answer's first pose, not the neutral one, to hold the axis of pose at a distance of exactly 0,
like the other axes. Many actions begin far from the neutral pose, so with it no suite would hold the axis.

Strengths are ranges (`BANDS`) of the distances that `flexiact.puppets.world.answers` measures; a held axis has distance
0. No other rig lies at medium skeleton distance from the fish, so there the target is a fish of other proportions.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from operator import getitem

import torch

from benchmark.curate.poses import in_band, posed
from benchmark.curate.rules import (
    POOLS,
    Candidate,
    Chosen,
    fitting_rigs,
    generator_of,
    large_actions,
    make_case,
    shows_all,
    would_do,
)
from benchmark.planning.selection import UsageError
from benchmark.suites.puppets import AXES, PuppetCase, PuppetSuite
from flexiact.puppets.world.answers import layout_distance, skeleton_distances, viewpoint_deg
from flexiact.puppets.world.scene import Scene, random_camera, random_scene

BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    "layout": ((0.06, 0.12), (0.155, 0.19), (0.22, 0.34)),
    "viewpoint": ((6.0, 12.0), (17.0, 26.0), (34.0, 46.0)),
    "skeleton": ((0.06, 0.16), (0.26, 0.38), (0.48, 0.66)),
    "pose": ((0.03, 0.10), (0.14, 0.18), (0.22, 0.32)),
}
"""Least and greatest distance at strengths 1, 2 and 3, in each axis's own unit. The default suite's borders between
near, middle and far (terciles) lie about in the gaps between them."""

STRENGTHS = 3

FACTORS: dict[str, tuple[str, ...]] = {"test": AXES, "dev": ("pose",)}
"""Axes that the families of each pool vary: development needs only a suite of poses."""

MIN_REFERENCES = {"test": 20, "dev": 12}
"""Least number of families; fewer would leave too few clusters for the claims that the suites are made for."""

NUM_INFERENCE_STEPS = 12
"""Sampler steps of all suites except the smoke test's. More cost time and gained nothing (docs/puppets.md)."""

_SEED = 15
# Numbers of draws: roughly the smallest with which every action has a family.
_SCENES_DRAWN = 40  # for a reference; the first scene that shows all of its action is used
_REFERENCES_TRIED = 12  # per rig, before another rig is tried
_LOOKS_DRAWN = 6  # for a base target; the first suitable one is used
_DRAWS = {"layout": 400, "viewpoint": 300, "skeleton": 150}  # for the targets of all strengths
_CHANGES_TRIED = 16  # per axis and strength
_CROSSINGS_TRIED = 40  # combinations of the changes of one strength
_CROSSINGS_POSED = 4  # combinations tried with poses before the reference is given up
_POSES_TRIED = 24  # per strength


@dataclass(frozen=True)
class FactorRecipe:
    """Recipe of a difficulty suite: the axes that it varies in addition to skin and stance (none: the easy suite)."""

    summary: str
    varies: tuple[str, ...]
    pool: str = "test"


@dataclass(frozen=True, eq=False)
class Family:
    """A reference with its targets.

    Attributes:
        chosen: Reference of the family.
        graded: Targets at strengths 1, 2 and 3, by the axes that a suite varies; () has only the base target.
    """

    chosen: Chosen
    graded: Mapping[tuple[str, ...], tuple[Candidate, ...]]


def factored(name: str, recipe: FactorRecipe) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make a suite that varies the recipe's axes.

    Raises:
        UsageError: If too few actions have a family.
    """
    edges = {axis: _edges(axis) if axis in recipe.varies else (0.0, 0.0) for axis in AXES}
    cases = [
        make_case(name, family.chosen, number, target, edges)
        for family in families(recipe.pool)
        for number, target in enumerate(family.graded[recipe.varies], 1)
    ]
    cases.sort(key=lambda case: case.case_id)
    ids = tuple(case.case_id for case in cases)
    summary = recipe.summary + missing(recipe.pool)
    return PuppetSuite(name, summary, NUM_INFERENCE_STEPS, edges, ids), cases


def missing(pool: str) -> str:
    """Text for a suite's summary that names the large actions of its pool without a family; empty if there are none."""
    found = {family.chosen.name for family in families(pool)}
    lost = [name for name in large_actions(pool) if name not in found]
    return f"; without {', '.join(lost)}: no targets at all strengths" if lost else ""


def _edges(axis: str) -> tuple[float, float]:
    """Middles of the gaps between strengths, so that near, middle and far are strengths 1, 2 and 3."""
    first, second, third = BANDS[axis]
    return round((first[1] + second[0]) / 2, 4), round((second[1] + third[0]) / 2, 4)


@cache
def families(pool: str) -> tuple[Family, ...]:
    """Families of a pool's large actions, shared by the pool's suites; references take the rigs in turns.

    Raises:
        UsageError: If too few actions have a family.
    """
    actions, planned, orders = large_actions(pool), Counter[str](), []
    for action in actions.values():
        orders.append(sorted(fitting_rigs(action, pool), key=lambda rig: planned[rig]))
        planned[orders[-1][0]] += 1
    # One process per core: this takes minutes, and no family depends on another.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        grown = workers.map(partial(_first_family, pool), actions, orders)
        found = tuple(family for family in grown if family is not None)
    if len(found) < MIN_REFERENCES[pool]:
        raise UsageError(f"only {len(found)} {pool} actions have targets at all strengths")
    return found


def _first_family(pool: str, name: str, rigs: Sequence[str]) -> Family | None:
    """Family on the first of the rigs that has one."""
    torch.set_num_threads(1)
    family = next((f for rig in rigs if (f := _family(name, pool, rig))), None)
    print(f"  {name}: {family.chosen.scene.rig if family else 'no family'}", file=sys.stderr, flush=True)
    return family


def drawn_reference(name: str, pool: str, rig: str, generator: torch.Generator) -> Chosen | None:
    """Draw a scene of a rig that shows all that its body can do of an action; None if none of the draws does."""
    scene = shows_all([random_scene(generator, pool, rig) for _ in range(_SCENES_DRAWN)], POOLS[pool][name])
    return None if scene is None else Chosen(name, pool, scene)


def _family(name: str, pool: str, rig: str) -> Family | None:
    """Family of the first reference of a rig that has targets at all strengths; None if none of those drawn has."""
    generator = generator_of(_SEED, name, rig)
    for _ in range(_REFERENCES_TRIED):
        chosen = drawn_reference(name, pool, rig, generator)
        family = None if chosen is None else _grown(chosen, generator)
        if family is not None:
            return family
    return None


def _grown(chosen: Chosen, generator: torch.Generator) -> Family | None:
    """Family of a reference; None if one of its targets cannot be found."""
    varied = FACTORS[chosen.pool]
    looks = [_look(chosen, generator) for _ in range(_LOOKS_DRAWN)]
    base = next(iter(_started(chosen, looks)), None)
    if base is None:
        return None
    alone: dict[str, list[list[Candidate]]] = {}
    for axis in varied:
        if axis != "pose":
            changed = _changed(base.scene, axis, chosen.pool, generator)
            if not _started(chosen, changed[-1]):  # an unsuitable reference fails at the greatest strength
                return None
            alone[axis] = [_started(chosen, scenes) for scenes in changed]
            if not all(alone[axis]):
                return None
    graded: dict[tuple[str, ...], list[Candidate]] = {}
    for strength in range(STRENGTHS):
        crossings = _crossings(chosen, {axis: found[strength] for axis, found in alone.items()})
        targets = _step(chosen, base, crossings, BANDS["pose"][strength], generator)
        if targets is None:
            return None
        for key, target in targets.items():
            graded.setdefault(key, []).append(target)
    return Family(chosen, {(): (base,), **{key: tuple(targets) for key, targets in graded.items()}})


def _look(chosen: Chosen, generator: torch.Generator) -> Scene:
    """Scene with the reference's body and camera, and with newly drawn skin, stance and background."""
    drawn = random_scene(generator, chosen.pool, chosen.scene.rig)
    return replace(drawn, proportions=chosen.scene.proportions, camera=chosen.scene.camera)


def _started(chosen: Chosen, scenes: Sequence[Scene]) -> list[Candidate]:
    """Candidates among the scenes that are suitable in the first pose of their answer."""
    return would_do(chosen, [chosen.starting(scene) for scene in scenes])


def _changed(base: Scene, axis: str, split: str, generator: torch.Generator) -> list[list[Scene]]:
    """Scenes that differ from the base in one newly drawn thing: a list for each strength."""
    drawn = [_redrawn(base, axis, split, generator) for _ in range(_DRAWS[axis])]
    # Distances from the base equal those from the reference, since both have the same body and camera.
    if axis == "skeleton":
        distances = skeleton_distances(base, drawn)
    else:
        measure = viewpoint_deg if axis == "viewpoint" else layout_distance
        distances = [measure(base.camera, scene.camera) for scene in drawn]
    measured = list(zip(distances, drawn, strict=True))
    return [[s for distance, s in measured if low <= distance <= high][:_CHANGES_TRIED] for low, high in BANDS[axis]]


def _redrawn(base: Scene, axis: str, split: str, generator: torch.Generator) -> Scene:
    """Copy of the base with a newly drawn place and scale, viewpoint, or body."""
    if axis == "skeleton":
        body = random_scene(generator, split)
        return replace(base, rig=body.rig, proportions=body.proportions)
    new = random_camera(generator)
    if axis == "viewpoint":
        return replace(base, camera=replace(base.camera, yaw_deg=new.yaw_deg, pitch_deg=new.pitch_deg))
    return replace(base, camera=replace(base.camera, scale=new.scale, x=new.x, y=new.y))


def _crossings(chosen: Chosen, alone: Mapping[str, Sequence[Candidate]]) -> list[dict[tuple[str, ...], Candidate]]:
    """Suitable changes of one strength, alone and all together (key `AXES`); one empty crossing if none is given."""
    if not alone:
        return [{}]
    # In this order neighbours share few changes, so that one bad change does not use up all tries.
    places = sorted(product(*(range(len(found)) for found in alone.values())), key=lambda place: (max(place), place))
    tried = [dict(zip(alone, map(getitem, alone.values(), place), strict=True)) for place in places[:_CROSSINGS_TRIED]]
    together = {found.scene: found for found in _started(chosen, [_together(each) for each in tried])}
    return [
        {**{(axis,): target for axis, target in each.items()}, AXES: together[scene]}
        for each in tried
        if (scene := _together(each)) in together
    ]


def _together(changes: Mapping[str, Candidate]) -> Scene:
    """Scene that combines the place, the viewpoint and the body of three changed scenes."""
    turned = changes["viewpoint"].scene.camera
    seen = replace(changes["layout"].scene.camera, yaw_deg=turned.yaw_deg, pitch_deg=turned.pitch_deg)
    return replace(changes["skeleton"].scene, camera=seen)


def _step(
    chosen: Chosen,
    base: Candidate,
    crossings: Sequence[Mapping[tuple[str, ...], Candidate]],
    band: tuple[float, float],
    generator: torch.Generator,
) -> dict[tuple[str, ...], Candidate] | None:
    """All targets of one strength, the base and a crossing in the same pose; None if no pose suits them."""
    for crossing in crossings[:_CROSSINGS_POSED]:
        scenes = {("pose",): base.scene, **{key: found.scene for key, found in crossing.items() if key == AXES}}
        able = torch.stack([in_band(chosen, scene, band) for scene in scenes.values()]).all(dim=0).nonzero().flatten()
        tried = able[torch.randperm(len(able), generator=generator)[:_POSES_TRIED]].tolist()
        targets = {(key, index): posed(scene, index) for key, scene in scenes.items() for index in tried}
        would = {found.target: found for found in would_do(chosen, list(targets.values()))}
        for index in tried:
            if all(targets[key, index] in would for key in scenes):
                return {**crossing, **{key: would[targets[key, index]] for key in scenes}}
    return None
