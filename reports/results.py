"""Compute the content of a report once from a stored run."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from flexiact.terminal.notes import FASTER
from reports.analysis.belief import belief
from reports.analysis.claims import ENOUGH_REFERENCES, MIN_REFERENCES, Claim, claims, family, smallest_p
from reports.analysis.inference import ALPHA
from reports.analysis.ranks import ranks
from reports.analysis.statistics import (
    MIN_SEEDS,
    Comparison,
    by_tercile,
    cell_counts,
    compare,
    costs,
    ranking,
    summarise,
    tidy,
)
from reports.run_folder import RunError, StoredRun
from reports.wording import count, label, number

FLOORS = ("still", "wrong-action", "copy-reference")
"""Bounds that must score below a method that transfers the action."""

CEILING = "oracle-codec"
"""The bound that no method can be expected to beat: the truth, encoded and decoded once."""


@dataclass(frozen=True, eq=False)
class Results:
    """Tables of one run.

    Attributes:
        rows: Table of `reports.analysis.statistics.tidy`.
        summary: Table of `reports.analysis.statistics.summarise`.
        counts: Table of `reports.analysis.statistics.cell_counts`.
        costs: Table of `reports.analysis.statistics.costs`.
        terciles: Table of `reports.analysis.statistics.by_tercile`, for the headline.
        belief: Table of `reports.analysis.belief.belief`.
        ranks: Table of `reports.analysis.ranks.ranks`, for the headline.
        against: Name of the method that all others are compared with.
        claims: Tested pairs of the family, on the headline.
        comparisons: Comparison of each method and bound with `against`, on the headline.
        pairs: Comparison of each two methods, on the headline.
        beside_bounds: Comparison of each method with each of `FLOORS` and with `CEILING`, by bound, on the headline.
        order: Names of the methods, best headline first.
        bound_order: Names of the bounds, best headline first.
    """

    run: StoredRun
    rows: pd.DataFrame
    summary: pd.DataFrame
    counts: pd.DataFrame
    costs: pd.DataFrame
    terciles: pd.DataFrame
    belief: pd.DataFrame
    ranks: pd.DataFrame
    against: str
    claims: tuple[Claim, ...]
    comparisons: tuple[Comparison, ...]
    pairs: tuple[Comparison, ...]
    beside_bounds: Mapping[str, tuple[Comparison, ...]]
    order: tuple[str, ...]
    bound_order: tuple[str, ...]


def measure(run: StoredRun, against: str | None = None) -> Results:
    """Compute everything; others are compared with `against`, or the method that leads.

    Raises:
        RunError: If `against` is not in the run.
    """
    if against is not None and against not in run.info["methods"]:
        raise RunError(f"against: {against!r} is not in this run; it has {', '.join(run.methods + run.bounds)}")
    rows = tidy(run)
    summary = summarise(rows)
    better = run.info["metrics"][run.headline]["higher_is_better"]
    ranked = ranking(summary, run.headline, better)
    order = tuple(name for name in ranked if name in run.methods)
    bound_order = tuple(name for name in ranked if name in run.bounds)
    against = against or (order + bound_order)[0]
    others = [name for name in order + bound_order if name != against]
    mine = rows[rows["metric"] == run.headline]
    known = [name for name in (*FLOORS, CEILING) if name in run.bounds]
    return Results(
        run=run,
        rows=rows,
        summary=summary,
        counts=cell_counts(run),
        costs=costs(run),
        terciles=by_tercile(mine, run.headline),
        belief=belief(run, rows),
        ranks=ranks(mine, run.headline, better),
        against=against,
        claims=claims(mine, run.headline, better, family()),
        comparisons=tuple(compare(mine, run.headline, name, against) for name in others),
        pairs=tuple(compare(mine, run.headline, *names) for names in combinations(order, 2)),
        beside_bounds={bound: tuple(compare(mine, run.headline, name, bound) for name in order) for bound in known},
        order=order,
        bound_order=bound_order,
    )


def checks(results: Results) -> list[str]:
    """Sentences that say, with counts, how many methods lie above the floors and below the ceiling."""
    run, better = results.run, results.run.info["metrics"][results.run.headline]["higher_is_better"]
    found = []
    for bound, below in [(name, True) for name in FLOORS] + [(CEILING, False)]:
        if bound not in results.beside_bounds:
            found.append(f"The bound {bound} is not part of this run, so it cannot be checked.")
            continue
        differences = [item for item in results.beside_bounds[bound] if item.estimate.cases]
        sign = (1 if below else -1) * (-1 if better is False else 1)
        right = [item for item in differences if sign * item.estimate.mean > 0]
        clear = [item for item in right if sign * (item.estimate.low if sign > 0 else item.estimate.high) > 0]
        found.append(
            f"{bound} scores {number(headline_mean(results, bound))} in {label(run.headline)} and lies "
            f"{'below' if below else 'above'} {len(right)} of {count(len(differences), 'method')}, "
            f"for {len(clear)} with a 95% interval of the paired difference that excludes 0."
        )
    return found


def submitted(run: StoredRun) -> list[str]:
    """Sentences on the origin of submitted videos, and on what was changed in them."""
    sentences = []
    for name in run.submissions:
        mine = run.samples[(run.samples["method"] == name) & (run.samples["status"] == "ok")]
        changed = int(mine["changed"].notna().sum())
        rules = ", ".join(sorted(mine["resize_rule"].unique()))
        said = f" {changed} of them had another size, length or rate and were changed by the rule {rules}." * bool(
            changed
        )
        sentences.append(
            f"The {count(len(mine), 'video')} of {name} {'was' if len(mine) == 1 else 'were'} made elsewhere, by a "
            f"model, with material and at a cost that nobody here has seen.{said}"
        )
    return sentences


def paced(run: StoredRun) -> list[str]:
    """A sentence on references that the clip shows faster or slower than they are."""
    backbone = run.info["backbone"]
    clip_s = (backbone["num_frames"] - 1) / backbone["fps"]
    files = {case["reference_id"]: case["files"]["reference"] for case in run.info["cases"].values() if "files" in case}
    # Runs of older versions do not know the duration.
    pace = {name: file["duration_s"] / clip_s for name, file in files.items() if "duration_s" in file}
    fast, slow = ({n: p for n, p in pace.items() if far(p)} for far in (lambda p: p > FASTER, lambda p: p < 1 / FASTER))
    parts = [
        f"{count(len(these), 'reference')} {word}, {extreme(these.values()):.2g} times as fast as filmed at the "
        f"{'most' if these is fast else 'least'}"
        for these, word, extreme in ((fast, "faster", max), (slow, "slower", min))
        if these
    ]
    if not parts:
        return []
    return [
        f"Clips are {clip_s:.2g} s long and show the whole of a reference, whatever its length: of {len(pace)} they "
        f"play {' and '.join(parts)}. The released code of FlexiAct takes windows at 8 frames per second instead."
    ]


def headline_mean(results: Results, name: str) -> float:
    """Mean headline of a method or bound; NaN if it has none."""
    mine = results.summary[(results.summary["method"] == name) & (results.summary["metric"] == results.run.headline)]
    return float(mine["mean"].iloc[0]) if len(mine) else float("nan")


def cautions(results: Results) -> list[str]:
    """Sentences that a reader must know before believing the numbers."""
    run, counts = results.run, results.counts
    found = list(run.notes)
    if not run.truth_known:
        found.append(
            "Nobody knows the right answers of this material. Metrics that read them are skipped, bounds that show "
            "them are not made, and how far apart reference and target are was not measured. The metrics that are left "
            "reward some wrong videos: read them beside still and copy-reference."
        )
    found += submitted(run) + paced(run)
    references = len({case["reference_id"] for case in run.info["cases"].values()})
    if references < MIN_REFERENCES:
        found.append(
            f"There {'is' if references == 1 else 'are'} {count(references, 'reference video')}. Nothing is claimed "
            f"with fewer than {MIN_REFERENCES}."
        )
    elif references < ENOUGH_REFERENCES:
        found.append(
            f"The intervals rest on {count(references, 'reference video')}: whatever is claimed is exploratory. With "
            "skewed values they hold the truth less often than they say, about .88 instead of .95."
        )
    smallest = smallest_p(references)
    if MIN_REFERENCES <= references and smallest >= ALPHA:
        found.append(
            f"With {count(references, 'reference video')} no difference can be shown: corrected for all pairs of the "
            f"family, the smallest p is {number(smallest)}."
        )
    for noun, seeds in (("seed", run.seeds), ("fit seed", run.fit_seeds or run.seeds)):
        if len(seeds) < MIN_SEEDS and (noun == "seed" or run.fit_seeds):
            said = count(len(seeds), noun)
            found.append(f"With {said} no method is said to beat another: that takes {MIN_SEEDS}.")
    others = [item for item in run.info.get("later_sessions", ()) if item["provenance"] != run.info["provenance"]]
    if others:
        found.append(
            f"Parts were made in {count(len(others), 'other session')} that differed in code, packages, threads, "
            "workers or device, as the provenance tells: costs and last bits may not compare."
        )
    if any("needs" not in entry for entry in run.info["metrics"].values()):
        found.append("run.json does not say which metrics read the truth: some that do may be listed as truth-free.")
    if counts["missing"].sum():
        found.append(
            f"The run is incomplete: {count(int(counts['missing'].sum()), 'planned video')} not made yet. Rows that "
            "rest on other cases or seeds do not compare."
        )
    broken = int(counts["failed"].sum() + counts["skipped"].sum())
    if broken:
        found.append(
            f"{count(broken, 'video')} failed or were skipped. They are left out of the means and counted beside them, "
            "never taken as 0; a method that fails on hard cases can look better for it."
        )
    return found
