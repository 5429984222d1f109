"""References with targets of every difficulty, and the suites that take difficulty apart.

A *family* is a reference with its targets. The base target has the reference's body, layout and viewpoint, but a skin,
small offsets of the stance and a background of its own, and its image shows the pose that the right answer begins with:
`puppets-easy`, strength 0. The targets of a one-factor suite are the base target with one thing changed, at strengths
1, 2 and 3: its place and scale (layout), the direction it is seen from (viewpoint), its body (skeleton), or its pose.
Those of the crossed suite have all four changes of one strength at once, the very same ones. So curves over strength
compare like with like: same references, same looks, same changes.

Why the easy image shows the answer's first pose, not the neutral one: so this axis is held as the others are, at a
distance of exactly 0. Many actions begin far from the neutral pose, and no suite would hold the axis.

Strengths are ranges (`BANDS`) of the distances that `flexiact.puppets.world.answers` measures; where an axis is held,
its distance is 0. No other kind of body is at a middling distance from a fish; there it is a fish of other proportions.
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
from benchmark.selection import UsageError
from benchmark.suites.puppets import AXES, PuppetCase, PuppetSuite
from flexiact.puppets.world.answers import layout_distance, skeleton_distances, viewpoint_deg
from flexiact.puppets.world.scene import Scene, random_camera, random_scene

BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    "layout": ((0.06, 0.12), (0.155, 0.19), (0.22, 0.34)),
    "viewpoint": ((6.0, 12.0), (17.0, 26.0), (34.0, 46.0)),
    "skeleton": ((0.06, 0.16), (0.26, 0.38), (0.48, 0.66)),
    "pose": ((0.03, 0.10), (0.14, 0.18), (0.22, 0.32)),
}
"""Least and greatest distance at strengths 1, 2 and 3, in each axis's own unit. Their gaps hold the terciles of the
default suite, about where its near, middle and far begin and end."""

STRENGTHS = 3

FACTORS: dict[str, tuple[str, ...]] = {"test": AXES, "dev": ("pose",)}
"""The axes that the families of each pool vary: development needs a suite of poses alone."""

MIN_REFERENCES = {"test": 20, "dev": 12}
"""Fewer families would leave too few clusters for the claims that the suites are made for."""

NUM_INFERENCE_STEPS = 25
"""Sampler steps of all suites but the smoke test's: twice as many change no video of this backbone visibly."""

_SEED = 15
# Numbers of draws: about the least with which every action has a family.
_SCENES_DRAWN = 40  # among which the reference is the first that shows all of its action
_REFERENCES_TRIED = 12  # of a rig, before another rig is tried
_LOOKS_DRAWN = 6  # among which the base target is the first that would do
_DRAWS = {"layout": 400, "viewpoint": 300, "skeleton": 150}  # among which those of each strength are looked for
_CHANGES_TRIED = 16  # of an axis and strength
_CROSSINGS_TRIED = 40  # of the changes of one strength with each other
_CROSSINGS_POSED = 4  # of these, before the reference is given up
_POSES_TRIED = 24  # of a strength


@dataclass(frozen=True)
class FactorRecipe:
    """How a suite of difficulty is made: what differs between reference and target beside the look; none: easy."""

    summary: str
    varies: tuple[str, ...]
    pool: str = "test"


@dataclass(frozen=True, eq=False)
class Family:
    """A reference with its targets.

    Attributes:
        chosen: the reference.
        graded: Targets at strengths 1, 2 and 3 by the axes that a suite varies; the base target alone for ().
    """

    chosen: Chosen
    graded: Mapping[tuple[str, ...], tuple[Candidate, ...]]


def factored(name: str, recipe: FactorRecipe) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make a suite.

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
    """What to add to a suite's summary when large actions of its pool have no family."""
    found = {family.chosen.name for family in families(pool)}
    lost = [name for name in large_actions(pool) if name not in found]
    return f"; without {', '.join(lost)}: no targets at all strengths" if lost else ""


def _edges(axis: str) -> tuple[float, float]:
    """The middles of the gaps between strengths, so that near, middle and far are strengths 1, 2 and 3."""
    first, second, third = BANDS[axis]
    return round((first[1] + second[0]) / 2, 4), round((second[1] + third[0]) / 2, 4)


@cache
def families(pool: str) -> tuple[Family, ...]:
    """The families of a pool's large actions, which its suites share; rigs of references in turns.

    Raises:
        UsageError: If too few actions have one.
    """
    actions, planned, orders = large_actions(pool), Counter[str](), []
    for action in actions.values():
        orders.append(sorted(fitting_rigs(action, pool), key=lambda rig: planned[rig]))
        planned[orders[-1][0]] += 1
    # One process a core: this takes minutes, and no family depends on another.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        grown = workers.map(partial(_first_family, pool), actions, orders)
        found = tuple(family for family in grown if family is not None)
    if len(found) < MIN_REFERENCES[pool]:
        raise UsageError(f"only {len(found)} {pool} actions have targets at all strengths")
    return found


def _first_family(pool: str, name: str, rigs: Sequence[str]) -> Family | None:
    """A family on the first of the rigs that has one."""
    torch.set_num_threads(1)
    family = next((f for rig in rigs if (f := _family(name, pool, rig))), None)
    print(f"  {name}: {family.chosen.scene.rig if family else 'no family'}", file=sys.stderr, flush=True)
    return family


def drawn_reference(name: str, pool: str, rig: str, generator: torch.Generator) -> Chosen | None:
    """A scene of a rig that shows all it can of an action; None where none of those drawn does."""
    scene = shows_all([random_scene(generator, pool, rig) for _ in range(_SCENES_DRAWN)], POOLS[pool][name])
    return None if scene is None else Chosen(name, pool, scene)


def _family(name: str, pool: str, rig: str) -> Family | None:
    """The first reference of a rig that has targets at all strengths; None where none of those drawn has."""
    generator = generator_of(_SEED, name, rig)
    for _ in range(_REFERENCES_TRIED):
        chosen = drawn_reference(name, pool, rig, generator)
        family = None if chosen is None else _grown(chosen, generator)
        if family is not None:
            return family
    return None


def _grown(chosen: Chosen, generator: torch.Generator) -> Family | None:
    """A reference's family, None where one of its targets cannot be found."""
    varied = FACTORS[chosen.pool]
    looks = [_look(chosen, generator) for _ in range(_LOOKS_DRAWN)]
    base = next(iter(_started(chosen, looks)), None)
    if base is None:
        return None
    alone: dict[str, list[list[Candidate]]] = {}
    for axis in varied:
        if axis != "pose":
            changed = _changed(base.scene, axis, chosen.pool, generator)
            if not _started(chosen, changed[-1]):  # a reference that will not do fails at the greatest
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
    """The reference's body, seen as it is, with a skin, stance and background drawn anew."""
    drawn = random_scene(generator, chosen.pool, chosen.scene.rig)
    return replace(drawn, proportions=chosen.scene.proportions, camera=chosen.scene.camera)


def _started(chosen: Chosen, scenes: Sequence[Scene]) -> list[Candidate]:
    """Those of the scenes that would do in the pose that their answer begins with."""
    return would_do(chosen, [chosen.starting(scene) for scene in scenes])


def _changed(base: Scene, axis: str, split: str, generator: torch.Generator) -> list[list[Scene]]:
    """The base with one thing drawn anew: a list of scenes for each strength."""
    drawn = [_redrawn(base, axis, split, generator) for _ in range(_DRAWS[axis])]
    # The base is as far from the reference as from itself: it has its body and its camera.
    if axis == "skeleton":
        distances = skeleton_distances(base, drawn)
    else:
        measure = viewpoint_deg if axis == "viewpoint" else layout_distance
        distances = [measure(base.camera, scene.camera) for scene in drawn]
    measured = list(zip(distances, drawn, strict=True))
    return [[s for distance, s in measured if low <= distance <= high][:_CHANGES_TRIED] for low, high in BANDS[axis]]


def _redrawn(base: Scene, axis: str, split: str, generator: torch.Generator) -> Scene:
    """The base with its place and scale, its viewpoint or its body drawn anew."""
    if axis == "skeleton":
        body = random_scene(generator, split)
        return replace(base, rig=body.rig, proportions=body.proportions)
    new = random_camera(generator)
    if axis == "viewpoint":
        return replace(base, camera=replace(base.camera, yaw_deg=new.yaw_deg, pitch_deg=new.pitch_deg))
    return replace(base, camera=replace(base.camera, scale=new.scale, x=new.x, y=new.y))


def _crossings(chosen: Chosen, alone: Mapping[str, Sequence[Candidate]]) -> list[dict[tuple[str, ...], Candidate]]:
    """Changes of one strength, each alone and all together (key `AXES`) where these would do; of none an empty one."""
    if not alone:
        return [{}]
    # In this order neighbours share little, so that one bad change does not take up all tries.
    places = sorted(product(*(range(len(found)) for found in alone.values())), key=lambda place: (max(place), place))
    tried = [dict(zip(alone, map(getitem, alone.values(), place), strict=True)) for place in places[:_CROSSINGS_TRIED]]
    together = {found.scene: found for found in _started(chosen, [_together(each) for each in tried])}
    return [
        {**{(axis,): target for axis, target in each.items()}, AXES: together[scene]}
        for each in tried
        if (scene := _together(each)) in together
    ]


def _together(changes: Mapping[str, Candidate]) -> Scene:
    """The scene with the place of one, the viewpoint of another and the body of a third."""
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
    """All targets of one strength, the base and a crossing in the same pose; None where no pose fits them."""
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
