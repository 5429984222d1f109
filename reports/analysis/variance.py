"""Split the variance of scores: how much is due to references, targets, seeds, fits, methods and their interactions.

Random effects, estimated by the analysis of variance of a complete block (Searle, Casella and McCulloch, "Variance
Components", 1992, chapter 4): methods, seeds and fit seeds are crossed with everything, targets lie within references.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, combinations, product

import numpy as np
import pandas as pd

from reports.analysis.statistics import apart

FACTORS = ("method", "reference", "target", "seed", "fit seed")
"""Axes of a block, in their order."""

Effect = tuple[str, ...]
"""Factors of an effect, in their order; one with `target` has `reference` as well."""


@dataclass(frozen=True, eq=False)
class Block:
    """Scores without gaps.

    Attributes:
        values: Scores, float [methods, references, targets of each reference, seeds, fit seeds]; one fit seed where
            fits take the seeds of their videos.
        left_out: Number of cases that lack a value or are more than other references have.
        apart: True if fits have seeds of their own.
    """

    values: np.ndarray
    left_out: int
    apart: bool


def block(rows: pd.DataFrame, metric: str, methods: list[str]) -> Block:
    """Largest block that has a value of every method, seed and fit seed for as many targets of each reference.

    The rows are those of `tidy`; the methods have the same seeds and fit seeds.

    Raises:
        ValueError: If fewer than two references have a case with all values.
    """
    mine = rows[(rows["metric"] == metric) & rows["method"].isin(methods)]
    own = apart(mine)
    mine = mine if own else mine.assign(fit_seed=0)
    table = mine.pivot(index=["reference_id", "case_id"], columns=["method", "seed", "fit_seed"], values="value")
    whole = table.dropna()  # a method that was never made has a column of gaps
    sizes = whole.groupby(level="reference_id").size()
    # With t targets of each reference, those that have fewer are left out.
    used = {int(count): int((sizes >= count).sum()) for count in sorted(set(sizes))}
    targets = max(used, key=lambda count: count * used[count] * (used[count] > 1), default=0)
    kept = sorted(sizes.index[sizes >= targets])
    if len(kept) < 2:
        raise ValueError(f"{metric}: fewer than two references have a case with a value of every method and seed")
    whole = pd.concat([whole.loc[[name]].head(targets) for name in kept])
    seeds, fit_seeds = sorted(set(mine["seed"])), sorted(set(mine["fit_seed"]))
    flat = whole[list(product(methods, seeds, fit_seeds))].to_numpy(float)
    values = flat.reshape(len(kept), targets, len(methods), len(seeds), len(fit_seeds))
    return Block(values.transpose(2, 0, 1, 3, 4), len(table) - len(whole), own)


def components(values: np.ndarray) -> dict[Effect, float]:
    """Variance of every effect; negative estimates are left as they are, since cutting them would bias the others.

    A factor with one level has no effect of its own: what it does is part of what it was measured within. The values
    are those of a block, float [methods, references, targets, seeds, fit seeds].

    Returns:
        Variance by effect, the one with all factors last; that one contains what nothing explains.

    Raises:
        ValueError: If there are fewer than two references.
    """
    levels = dict(zip(FACTORS, values.shape, strict=True))
    if levels["reference"] < 2:
        raise ValueError("references: a split needs two or more")
    names = [name for name in FACTORS if levels[name] > 1]
    sets = chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))
    effects = [effect for effect in sets if "target" not in effect or "reference" in effect]
    parts: dict[Effect, np.ndarray] = {(): values.mean(keepdims=True)}
    found: dict[Effect, float] = {}
    for effect in effects:
        others = tuple(axis for axis, name in enumerate(FACTORS) if name not in effect)
        lower = sum(part for inner, part in parts.items() if set(inner) < set(effect))
        parts[effect] = values.mean(axis=others, keepdims=True) - lower
    for effect in reversed(effects):
        square = _repeats(effect, levels) * float((parts[effect] ** 2).sum()) / _freedom(effect, levels)
        above = sum(_repeats(other, levels) * found[other] for other in found if set(effect) < set(other))
        found[effect] = (square - above) / _repeats(effect, levels)
    return {effect: found[effect] for effect in effects}


def _repeats(effect: Effect, levels: Mapping[str, int]) -> int:
    """Number of scores that share a level of an effect."""
    return int(np.prod([count for name, count in levels.items() if name not in effect]))


def _freedom(effect: Effect, levels: Mapping[str, int]) -> int:
    nested = "target" in effect
    return int(np.prod([levels[name] - (0 if nested and name == "reference" else 1) for name in effect]))


def deviation_of_difference(found: Mapping[Effect, float], targets: int, seeds: int, fit_seeds: int = 1) -> float:
    """Standard deviation between references of the difference of two methods, from variances by effect.

    The counts are those of each reference's targets and of each case's seeds. What the seeds do to all references alike
    is no part of it, since they share their seeds.
    """
    counts = {"target": targets, "seed": seeds, "fit seed": fit_seeds}
    among = [effect for effect in found if "method" in effect and "reference" in effect]
    parts = (max(found[e], 0.0) / np.prod([counts[name] for name in e if name in counts]) for e in among)
    return float(np.sqrt(2 * sum(parts)))
