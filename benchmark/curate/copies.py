"""Suites made from the shipped default suite: with texts that tell the movement, or with the references as targets."""

from collections import Counter
from dataclasses import replace

from benchmark.curate.rules import Candidate, Chosen, make_case, would_do
from benchmark.planning.selection import UsageError
from benchmark.suites.puppets import AXES, PuppetCase, PuppetSuite, load_suite
from benchmark.suites.truth import named_action, scenes
from flexiact.puppets.world.captions import caption

SOURCE = "puppets"
"""Name of the suite whose cases are copied; curate it first."""

SELF_REFERENCES = 6
"""Number of references of the control: one per body and one more. The control finds faults; it does not rank."""


def told_in_words(name: str, summary: str) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Copy the default suite with texts that say roughly what moves, like the prompts of the paper."""
    source, cases = _shipped()
    told = [_told(case, name) for case in cases]
    return replace(source, name=name, summary=summary), told


def _told(case: PuppetCase, name: str) -> PuppetCase:
    (reference, target), action = scenes(case), named_action(case.action)
    told, asked = (caption(scene, action, "coarse") for scene in (reference, target))
    return replace(case, suite=name, caption=told, prompt=asked)


def transferred_to_self(name: str, summary: str) -> tuple[PuppetSuite, list[PuppetCase]]:
    """Make a suite of references of different bodies, each its own target: the image is the first frame.

    Raises:
        UsageError: If too few references move enough from their own first frame.
    """
    source, cases = _shipped()
    references = {case.reference_id: Chosen(case.action, "test", scenes(case)[0]) for case in cases}
    found = [(own, able) for own in references.values() for able in would_do(own, [own.starting(own.scene)])]
    if len(found) < SELF_REFERENCES:
        raise UsageError(f"only {len(found)} references move enough from their own first frame")
    used, chosen = Counter[str](), list[tuple[Chosen, Candidate]]()
    while len(chosen) < SELF_REFERENCES:
        best = min((one for one in found if one not in chosen), key=lambda one: used[one[0].scene.rig])
        used[best[0].scene.rig] += 1
        chosen.append(best)
    edges = dict.fromkeys(AXES, (0.0, 0.0))
    made = sorted((make_case(name, own, 1, target, edges) for own, target in chosen), key=lambda case: case.case_id)
    steps, ids = source.num_inference_steps, tuple(case.case_id for case in made)
    return PuppetSuite(name, summary, steps, edges, ids), made


def _shipped() -> tuple[PuppetSuite, list[PuppetCase]]:
    suite = load_suite(SOURCE)
    return suite, list(suite.chosen(suite.case_ids))
