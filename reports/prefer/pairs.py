"""Choose which two videos of a case are compared, from a seed, so that the sheet need not name a method."""

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from reports.run_folder import RunError, StoredRun
from reports.videos import first_seed

CATCH_EVERY = 10
"""Number of trials for each one of truth against wrong action, which shows whether somebody looks."""
TRUTH, WRONG = "oracle-codec", "wrong-action"


@dataclass(frozen=True)
class Trial:
    """Two videos of one case, by methods or bounds; a catch shows the truth and the wrong action."""

    case_id: str
    left: str
    right: str
    is_catch: bool


def plan(run: StoredRun, methods: list[str], count: int, seed: int) -> tuple[Trial, ...]:
    """`count` trials in the order in which they are shown.

    Every pair of methods gets the same number of trials, give or take one, unless it has no more cases: then there are
    fewer trials than asked for. The trials of a pair are spread over references before a reference is used again. Sides
    and order are random. Where the run has both bounds, one trial in `CATCH_EVERY` is added that compares the truth
    with the wrong action.

    Raises:
        RunError: If there are fewer than two methods, one is unknown or there twice, or no case has videos of two of
            them.
    """
    if len(set(methods)) < len(methods):
        raise RunError(f"methods: one is there twice in {', '.join(methods)}")
    for name in methods:
        if name not in run.methods:
            raise RunError(f"methods: {name!r} is no method of this run; it has {', '.join(run.methods)}")
    samples = first_seed(run)
    made = {place for place, sample in samples.items() if sample["status"] == "ok"}
    generator = np.random.default_rng(seed)
    queues = {pair: _cases(run, pair, made, generator) for pair in combinations(methods, 2)}
    queues = {pair: cases for pair, cases in queues.items() if cases}
    if not queues:
        raise RunError(f"{run.folder}: no case has videos of two of the methods at seed {run.seeds[0]}")
    chosen = []
    order = [list(queues)[place] for place in generator.permutation(len(queues))]
    for index in range(count):
        pair, turn = order[index % len(order)], index // len(order)
        if turn < len(queues[pair]):
            chosen.append((pair, queues[pair][turn], False))
    caught = _cases(run, (TRUTH, WRONG), made, generator)[: -(-len(chosen) // CATCH_EVERY)]
    chosen += [((TRUTH, WRONG), case, True) for case in caught]
    trials = []
    for place in generator.permutation(len(chosen)):
        pair, case, is_catch = chosen[place]
        left, right = pair if generator.integers(2) else pair[::-1]
        trials.append(Trial(case, left, right, is_catch))
    return tuple(trials)


def _cases(
    run: StoredRun, pair: tuple[str, str], made: set[tuple[str, str]], generator: np.random.Generator
) -> list[str]:
    """Cases with videos of both, one of each reference first, then a second one of each, and so on."""
    of_reference: dict[str, list[str]] = {}
    cases = list(run.info["cases"])
    for place in generator.permutation(len(cases)):
        if all((name, cases[place]) in made for name in pair):
            of_reference.setdefault(str(run.info["cases"][cases[place]]["reference_id"]), []).append(cases[place])
    longest = max(map(len, of_reference.values()), default=0)
    return [found[turn] for turn in range(longest) for found in of_reference.values() if turn < len(found)]


def sheet_digest(run: StoredRun, trials: tuple[Trial, ...]) -> str:
    """Twelve hexadecimal digits of what is compared; votes carry them, so that they meet no other sheet."""
    samples = first_seed(run)
    said = [
        [trial.case_id, *(str(samples[name, trial.case_id]["key"]) for name in (trial.left, trial.right))]
        for trial in trials
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]
