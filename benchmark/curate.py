"""Write the suites of puppet cases: `python -m benchmark.curate [SUITE ...]`.

Deterministic: the same code writes the same files. Many candidate targets are drawn for every reference; kept are those
that can show most of the action, well inside the frame; chosen are those that balance the terciles of layout, viewpoint
and skeleton over the suite (terciles of the candidates kept).
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.cases import AXES, CASES_FOLDER, SUITE_FILE, Case, Suite, case_to_toml, suite_to_toml, tercile
from benchmark.selection import UsageError, select
from benchmark.truth import COUNTED_MOTION_SHARE, first_scored_frame, specification_digests
from flexiact.puppets.actions import DEV_ACTIONS, TEST_ACTIONS, PuppetAction, action_distance, curves, restricted
from flexiact.puppets.captions import caption
from flexiact.puppets.rigs import RIGS
from flexiact.puppets.scene import Scene, random_scene, scene_to_dict
from flexiact.puppets.transfer import answers, axes, visible_channels
from flexiact.puppets.world import NUM_FRAMES, SIZE, projections

MAX_LEFT_OUT_SHARE = 0.34
"""At least two thirds of the action's channels are seen on the reference and exist on the target."""

MARGIN_PX = 1.0
"""Every keypoint of reference and answer stays this far inside the frame."""

MIN_MOVEMENT_PX = 3.0
"""Root mean square displacement of the judged keypoints over the judged frames, in the canonical answer."""

_LICENCE = "Apache-2.0"
_SOURCE = "rendered by flexiact.puppets"


@dataclass(frozen=True)
class Recipe:
    """How a suite is made.

    Attributes:
        summary: one line for people.
        pool: names of the actions it may take, "test" or "dev".
        split: of the scenes; "test" has held-out skins, backgrounds and rig.
        references: how many actions, one reference each; None for all of the pool.
        targets: per reference.
        seed: of all draws.
        num_inference_steps: None for the backbone's own.
        candidates: targets drawn per reference.
    """

    summary: str
    pool: str
    split: str
    references: int | None
    targets: int
    seed: int
    num_inference_steps: int | None = None
    candidates: int = 80


RECIPES: dict[str, Recipe] = {
    "puppets": Recipe("6 test actions x 5 targets, the default", "test", "test", 6, 5, seed=11, num_inference_steps=25),
    "puppets-full": Recipe("25 test actions x 10 targets", "test", "test", None, 10, 12, 25, candidates=48),
    "puppets-dev": Recipe(
        "8 development actions x 2 targets, for tuning only", "dev", "train", None, 2, seed=13, num_inference_steps=25
    ),
    "puppets-smoke": Recipe(
        "2 cases, to see that everything runs", "dev", "train", 1, 2, seed=14, num_inference_steps=8
    ),
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A target that would do, and how far it is from its reference."""

    scene: Scene
    axes: Mapping[str, float]
    left_out_share: float
    movement_px: float


@dataclass(frozen=True, eq=False)
class Reference:
    """An action on a scene, with the targets that would do for it."""

    name: str
    action: PuppetAction
    scene: Scene
    candidates: tuple[Candidate, ...]


def curate(name: str) -> tuple[Suite, list[Case]]:
    """Make a suite.

    Raises:
        UsageError: when a reference finds too few targets.
    """
    recipe = RECIPES[name]
    references = list(_references(recipe))
    pool = [c for r in references for c in r.candidates]
    edges = {axis: _terciles([c.axes[axis] for c in pool]) for axis in AXES}
    chosen = _balanced(references, recipe.targets, edges)
    cases = [
        _case(name, recipe, reference, number, candidate, edges)
        for reference, candidates in zip(references, chosen, strict=True)
        for number, candidate in enumerate(candidates, 1)
    ]
    cases.sort(key=lambda case: case.case_id)
    return Suite(name, recipe.summary, recipe.num_inference_steps, edges, tuple(c.case_id for c in cases)), cases


def write_suite(suite: Suite, cases: Sequence[Case], folder: Path = CASES_FOLDER) -> None:
    """Write a suite's files and remove cases that are no longer in it."""
    root = folder / suite.name
    root.mkdir(parents=True, exist_ok=True)
    for stale in set(root.glob("*.toml")) - {root / f"{case.case_id}.toml" for case in cases}:
        stale.unlink()
    (root / SUITE_FILE).write_text(suite_to_toml(suite), encoding="utf-8")
    for case in cases:
        (root / f"{case.case_id}.toml").write_text(case_to_toml(case), encoding="utf-8")


def wrong_action(target: Scene, answer: Sequence[PuppetAction], name: str, pool: Mapping[str, PuppetAction]) -> str:
    """The name of another action whose amplitude on this target is closest to that of the right answer.

    Candidates move at least as far as a case must and, where there are any, use no channel of any right answer: an
    action that shares a channel is partly right.
    """
    own = _movement(target, answer[0])[0]
    used = {motion.channel for action in answer for motion in action}
    found = []
    for other, action in pool.items():
        shown = restricted(action, RIGS[target.rig].channels)
        movement = _movement(target, shown)[0] if shown and other != name else 0.0
        if movement >= MIN_MOVEMENT_PX:
            shared = len(used & {motion.channel for motion in shown})
            found.append((shared, abs(float(np.log(movement / own))), other))
    return min(found)[2]


def _generator(*words: object) -> torch.Generator:
    """A generator seeded by words, so that one part of a suite does not depend on how many draws another part took."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:7], "big"))


def _pool(recipe: Recipe) -> dict[str, PuppetAction]:
    return TEST_ACTIONS if recipe.pool == "test" else DEV_ACTIONS


def _fitting_rigs(action: PuppetAction, split: str) -> list[str]:
    """Rigs that have enough of an action's channels and occur in a split."""
    channels = {motion.channel for motion in action}
    drawn = {random_scene(_generator("rigs", split, i), split).rig for i in range(60)}
    return [
        r
        for r in RIGS
        if r in drawn and 1 - len(channels & set(RIGS[r].channels)) / len(channels) <= MAX_LEFT_OUT_SHARE
    ]


def _actions(recipe: Recipe) -> list[str]:
    """The recipe's actions: all, or those farthest from each other among the ones that most rigs can do."""
    pool = _pool(recipe)
    if recipe.references is None:
        return list(pool)
    rigs = {name: len(_fitting_rigs(action, recipe.split)) for name, action in pool.items()}
    names = [name for name in pool if rigs[name] >= max(rigs.values()) - 1]
    chosen = [names[0]]
    while len(chosen) < recipe.references:
        rest = [name for name in names if name not in chosen]
        chosen.append(max(rest, key=lambda name: min(action_distance(pool[name], pool[other]) for other in chosen)))
    return chosen


def _references(recipe: Recipe) -> Iterator[Reference]:
    used: Counter[str] = Counter()
    for name in _actions(recipe):
        action = _pool(recipe)[name]
        rigs = sorted(_fitting_rigs(action, recipe.split), key=lambda rig: used[rig])
        reference = next((r for rig in rigs if (r := _reference(recipe, name, action, rig))), None)
        if reference is None:
            raise UsageError(f"action {name}: fewer than {recipe.targets} targets on every rig")
        used[reference.scene.rig] += 1
        yield reference


def _reference(recipe: Recipe, name: str, action: PuppetAction, rig: str) -> Reference | None:
    """The first scene of a rig that shows all it can of the action inside the frame; None when too few targets do."""
    generator = _generator(recipe.seed, name, "reference", rig)
    for _ in range(400):
        scene = random_scene(generator, recipe.split, rig)
        seen = set(visible_channels(scene, action))
        if seen == {m.channel for m in action} & set(RIGS[rig].channels) and _inside(scene, action):
            break
    else:
        return None
    generator = _generator(recipe.seed, name, "targets", rig)
    drawn = (random_scene(generator, recipe.split) for _ in range(recipe.candidates))
    candidates = tuple(c for target in drawn if (c := _candidate(scene, target, action)))
    print(f"  {name} on {rig}: {len(candidates)} of {recipe.candidates} targets would do", file=sys.stderr)
    return Reference(name, action, scene, candidates) if len(candidates) >= 2 * recipe.targets else None


def _candidate(reference: Scene, target: Scene, action: PuppetAction) -> Candidate | None:
    right = answers(reference, target, action)
    if right.left_out_share > MAX_LEFT_OUT_SHARE or not all(_inside(target, answer) for answer in right.actions):
        return None
    movement, counted = _movement(target, right.actions[0])
    if counted < 2 or movement < MIN_MOVEMENT_PX:
        return None
    return Candidate(target, axes(reference, target), round(right.left_out_share, 4), movement)


def _keypoints(scene: Scene, action: PuppetAction, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Keypoints [T, K, 2] in px of the parts that the body has; nothing is drawn."""
    points = projections([scene], curves(action, num_frames)[None]).keypoints()
    return points[:, list(RIGS[scene.rig].keypoints)].numpy()


def _inside(scene: Scene, action: PuppetAction) -> bool:
    """Whether all keypoints stay in the frame, in the clip and in the target image."""
    points = np.concatenate([_keypoints(scene, action), _keypoints(scene, (), 1)])
    return bool((points >= MARGIN_PX).all() and (points <= SIZE - MARGIN_PX).all())


def _movement(scene: Scene, action: PuppetAction) -> tuple[float, int]:
    """RMS displacement in px of the keypoints that the action moves noticeably, and how many these are."""
    moved = np.linalg.norm(_keypoints(scene, action) - _keypoints(scene, (), 1), axis=-1)
    moved = moved[first_scored_frame(NUM_FRAMES) :]
    counted = moved[:, moved.max(axis=0) >= COUNTED_MOTION_SHARE * SIZE]
    return (float(np.sqrt((counted**2).mean())), counted.shape[1]) if counted.size else (0.0, 0)


def _terciles(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return round(float(low), 3), round(float(high), 3)


def _balanced(
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


def _cells(candidate: Candidate, edges: Mapping[str, tuple[float, float]]) -> list[object]:
    terciles = [(axis, tercile(candidate.axes[axis], edges[axis])) for axis in AXES]
    return [*terciles, tuple(terciles), candidate.scene.rig]


def _crowding(
    candidate: Candidate, edges: Mapping[str, tuple[float, float]], counts: Mapping[object, int]
) -> tuple[float, int]:
    """Cases that already share a tercile (on each axis), then those that share all three or the rig."""
    *terciles, joint, rig = _cells(candidate, edges)
    return sum(counts[t] ** 2 for t in terciles), 3 * counts[joint] + counts[rig]


def _case(
    suite: str,
    recipe: Recipe,
    reference: Reference,
    number: int,
    candidate: Candidate,
    edges: Mapping[str, tuple[float, float]],
) -> Case:
    source, target = reference.scene, candidate.scene
    right = answers(source, target, reference.action).actions
    reference_id = f"{reference.name}-{source.rig}"
    return Case(
        case_id=f"{reference_id}-to-{target.rig}-{number}",
        suite=suite,
        action=reference.name,
        wrong_action=wrong_action(target, right, reference.name, _pool(recipe)),
        reference_id=reference_id,
        target_id=f"{reference.name}-{target.rig}-{number}",
        caption=caption(source, reference.action, "subject"),
        prompt=caption(target, reference.action, "subject"),
        axes=candidate.axes,
        terciles={axis: tercile(candidate.axes[axis], edges[axis]) for axis in AXES},
        left_out_share=candidate.left_out_share,
        licence=_LICENCE,
        source=_SOURCE,
        digests=specification_digests(source, target, reference.action),
        reference=scene_to_dict(source),
        target=scene_to_dict(target),
    )


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
