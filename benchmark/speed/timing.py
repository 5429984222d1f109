"""Ways to do the same, timed beside each other: interleaved rounds, medians, and ratios inside a round.

On a machine whose speed drifts, medians taken one after the other compare two moments. Here a round runs every way
once, each round beginning one way further on, and two ways are compared by the ratios of their times inside the rounds.
Pure: the clock is an argument.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]
"""Seconds, from any beginning; waits until the device has done what it was given."""

BUDGET_S = 20.0
"""How long the rounds of one comparison may take where nobody says how many there are to be."""

ROUNDS = 3, 50
"""Fewest and most rounds, where nobody says how many."""


@dataclass(frozen=True)
class Variant:
    """One of several ways to do the same.

    Attributes:
        run: does it once; whatever it returns is dropped.
        around: entered before the clock is read, left after it has been read again.
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
    """Median and quartiles (linear between neighbours) of one number or more."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(median), float(low), float(high))


def paired_ratios(seconds: Sequence[float], rival_s: Sequence[float]) -> Spread:
    """Of the ratios inside the rounds; below 1 is faster than the rival.

    Raises:
        ValueError: If the two were not measured in the same rounds.
    """
    return spread([one / other for one, other in zip(seconds, rival_s, strict=True)])


def interleaved(variants: Mapping[str, Variant], clock: Clock, rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant, one number a round."""
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
    """Seconds of every variant, one number a round, warmed up.

    Args:
        variants: Variants by name.
        clock: Clock that measures.
        first_s: seconds of a run that every variant has had. Together up to `BUDGET_S` they are warming up, followed by
            one more round of it; above that warming up is lost in them, and they are the first round.
        repeats: rounds; None: as many as fit into `BUDGET_S`, within `ROUNDS`.
    """
    if sum(first_s.values()) > BUDGET_S:
        rounds = repeats or ROUNDS[0]
        more = interleaved(variants, clock, rounds - 1)
        return {name: [first_s[name], *more[name]] for name in variants}
    warm_s = sum(times[0] for times in interleaved(variants, clock, 1).values())
    fitting = int(BUDGET_S / warm_s) if warm_s else ROUNDS[1]
    return interleaved(variants, clock, repeats or min(max(fitting, ROUNDS[0]), ROUNDS[1]))
