"""Tables of the split of variance: what scores depend on, and what more of each would buy."""

from collections.abc import Mapping
from math import prod

import pandas as pd

from reports.analysis.claims import family
from reports.analysis.inference import detectable
from reports.analysis.variance import Block, Effect, block, components, deviation_of_difference
from reports.run_folder import StoredRun
from reports.tables.cells import Number, Table
from reports.wording import count, heading, percent

_DESIGNS = (
    ("as here", 1, 1, 1, 1),
    ("twice the references", 2, 1, 1, 1),
    ("twice the targets", 1, 2, 1, 1),
    ("twice the seeds", 1, 1, 2, 1),
    ("twice the fit seeds", 1, 1, 1, 2),
    ("four times the references", 4, 1, 1, 1),
)
"""Names and factors of the numbers of references, targets, seeds and fit seeds."""


def variance_tables(run: StoredRun, rows: pd.DataFrame, level: float) -> tuple[Table, Table]:
    """Split of the headline's variance over the methods that claims name, and what larger designs would show.

    The rows are those of `tidy`; `level` is that of a test.

    Raises:
        ValueError: If fewer than two references have a case with a value of every method, seed and fit seed.
    """
    named = {name for pair in family() for name in pair}
    whole = block(rows, run.headline, [name for name in run.methods if name in named])
    found = components(whole.values)
    return _split(heading(run, run.headline), whole, found), _designs(whole, found, level)


def _split(title: str, whole: Block, found: Mapping[Effect, float]) -> Table:
    methods, references, targets, seeds, fit_seeds = whole.values.shape
    kept = {effect: max(variance, 0.0) for effect, variance in found.items()}
    total = sum(kept.values())
    lines = tuple(
        (" × ".join(e), Number(v**0.5), Number(v / total if total else 0.0, write=percent)) for e, v in kept.items()
    )
    said = count(seeds, "seed") + f" and {count(fit_seeds, 'fit seed')}" * whole.apart
    note = (
        f"Analysis of variance of {count(methods, 'method')} that claims name, {count(references, 'reference')}, "
        f"{count(targets, 'target')} of each and {said}; {count(whole.left_out, 'case')} left out, so "
        "that nothing is missing. Deviation: of the part. Parts without method make cases easy or hard for all methods "
        "alike, and paired differences do not have them. The last part contains what nothing explains. An estimate "
        "below 0 stands as 0."
    )
    note += " A seed is that of the fit and of the sampling at once." * (not whole.apart)
    note += " Targets have no part of their own where each reference has one." * (targets == 1)
    note += " Seeds have none: there is one." * (seeds == 1)
    note += " Fit seeds have none: there is one." * (whole.apart and fit_seeds == 1)
    return Table(f"Variance of {title}", ("part", "deviation", "share"), lines, note)


def _designs(whole: Block, found: Mapping[Effect, float], level: float) -> Table:
    here = whole.values.shape[1:]
    lines = []
    for name, *factors in _DESIGNS:
        if not whole.apart and factors[-1] > 1:
            continue
        size = [number * factor for number, factor in zip(here, factors, strict=True)]
        spread = deviation_of_difference(found, *size[1:])
        seen = detectable(spread, size[0], level=level)
        shown = size if whole.apart else size[:-1]
        lines.append((name, *shown, prod(size), Number(spread), Number(seen)))
    shared = [effect for effect in found if "method" in effect and "reference" not in effect and effect[1:]]
    alike = sum(max(found[effect], 0.0) for effect in shared) ** 0.5
    note = (
        "Predicted for a difference of two of the methods. Deviation: between references. Seen: smallest true "
        f"difference that is found four times in five, at a level of {level:.4f}. All references share their seeds, so "
        f"that no interval contains what a seed does to a method everywhere: a deviation of {alike:.3f} here."
    )
    fit_seeds = ("fit seeds",) * whole.apart
    columns = ("design", "references", "targets", "seeds", *fit_seeds, "videos", "deviation", "seen")
    return Table("What more would buy", columns, tuple(lines), note)
