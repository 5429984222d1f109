"""Time variants of one task against each other: interleaved rounds, medians, and ratios inside a round.

On a machine whose speed drifts, medians measured one after the other compare two different moments. Here a round runs
every variant once, and each round starts one variant later. Two variants are compared by the ratios of their times
inside the rounds. Pure: the clock is an argument.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]
"""Function that returns seconds from any origin, after the device has finished its work."""

BUDGET_S = 20.0
"""Seconds that the rounds of one comparison may take if their number is not given."""

ROUNDS = 3, 50
"""Fewest and most rounds, if their number is not given."""


@dataclass(frozen=True)
class Variant:
    """One of several ways to do the same task.

    Attributes:
        run: Function that does the task once; its result is dropped.
        around: Context that is entered before the clock starts and left after it stops.
    """

    run: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some numbers."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (linear interpolation) of at least one number."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


def paired_ratios(seconds: Sequence[float], rival_s: Sequence[float]) -> Spread:
    """Median and quartiles of the ratios inside the rounds; below 1 is faster than the rival.

    Raises:
        ValueError: If the two were not measured in the same rounds.
    """
    return spread([one / other for one, other in zip(seconds, rival_s, strict=True)])


def interleaved(variants: Mapping[str, Variant], clock: Clock, rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant, one number per round."""
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            with variants[name].around():
                start = clock()
                variants[name].run()
                seconds[name].append(clock() - start)
    return seconds


def timed(
    variants: Mapping[str, Variant], clock: Clock, first_s: Mapping[str, float], repeats: int | None = None
) -> dict[str, list[float]]:
    """Seconds of every variant, one number per round, without the warm-up.

    If the first runs sum to at most `BUDGET_S`, they and one more round are discarded as warm-up; otherwise they count
    as round one. Without `repeats` there are as many rounds as fit into `BUDGET_S`, within `ROUNDS`.
    """
    if sum(first_s.values()) > BUDGET_S:
        rounds = repeats or ROUNDS[0]
        more = interleaved(variants, clock, rounds - 1)
        return {name: [first_s[name], *more[name]] for name in variants}
    warm_s = sum(times[0] for times in interleaved(variants, clock, 1).values())
    fitting = int(BUDGET_S / warm_s) if warm_s else ROUNDS[1]
    return interleaved(variants, clock, repeats or min(max(fitting, ROUNDS[0]), ROUNDS[1]))
