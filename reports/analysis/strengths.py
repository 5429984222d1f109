"""Combine runs of the suites that vary one axis at a time, to show how results fall with difficulty.

Such a suite holds every axis at 0 except those that it varies; its near, middle and far cases are strengths 1, 2 and 3.
The easy suite varies none: it is strength 0 of every curve. A run's suite is recognised by its cases, not its name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.analysis.claims import Claim, claims, family
from reports.analysis.statistics import (
    Comparison,
    Estimate,
    by_reference,
    compare,
    estimate,
    estimated,
    ranking,
    summarise,
    tidy,
)
from reports.run_folder import AXES, TERCILES, RunError, StoredRun

EASY, CROSSED = "easy", "crossed"
FACTORS = (*AXES, CROSSED)
STRENGTHS = (0, 1, 2, 3)
BASELINE, FLOOR = "i2v", "still"
"""Names that a method has to beat on the easy suite: the backbone without the reference, and a still image."""

COPY = "copy-reference"

_HELD = 1e-6


@dataclass(frozen=True, eq=False)
class Difficulty:
    """Results of several runs together.

    Attributes:
        runs: Runs by factor, "easy" included if it was given.
        rows: Rows of the headline from `reports.analysis.statistics.tidy`, with columns factor, strength and distance
            (on the varied axis, NaN for easy and crossed).
        curves: One row per factor, strength and method: columns factor, strength, distance (mean over cases), method,
            kind and those of Estimate. Strength 0 is in every factor.
        claims: Tested pairs of the family on the easy suite; () without an easy run.
        gains: Each method minus `BASELINE` and minus `FLOOR` on the easy suite; () without an easy run.
        falls: Farthest strength minus the easy suite, paired by reference: columns factor, method and those of
            Estimate, one row per factor and method; empty without an easy run.
        order: Names of methods, then of bounds, each by the mean over all runs, best first.
    """

    runs: Mapping[str, StoredRun]
    rows: pd.DataFrame
    curves: pd.DataFrame
    claims: tuple[Claim, ...]
    gains: tuple[tuple[Comparison, Comparison], ...]
    falls: pd.DataFrame
    order: tuple[str, ...]

    @property
    def run(self) -> StoredRun:
        """One of the runs, for the properties that they share."""
        return next(iter(self.runs.values()))

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors that have a curve."""
        return tuple(factor for factor in FACTORS if factor in self.runs)


def factor_of(run: StoredRun) -> str:
    """The factor that a run's suite varies: "easy", an axis, or "crossed".

    Raises:
        RunError: If the cases are not graded by one of these.
    """
    cases = run.info["cases"]
    where = f"{run.folder}: suite {run.info['suite']}"
    for name, case in cases.items():
        if not all(isinstance(case.get("axes", {}).get(axis), int | float) for axis in AXES):
            raise RunError(f"{where}: case {name} does not say how far apart its scenes are")
    varied = tuple(axis for axis in AXES if any(abs(case["axes"][axis]) > _HELD for case in cases.values()))
    if not varied:
        return EASY
    graded = all(
        min(case["axes"][axis] for axis in varied) > _HELD and len({case["terciles"][axis] for axis in varied}) == 1
        for case in cases.values()
    )
    if not graded or len(varied) not in (1, len(AXES)):
        raise RunError(f"{where}: does not vary one axis, or all of them together, at graded strengths")
    return varied[0] if len(varied) == 1 else CROSSED


def strength_of(case: Mapping[str, Any], factor: str) -> int:
    """0 for easy, otherwise 1 to 3 for near, middle and far on the varied axes."""
    if factor == EASY:
        return 0
    return 1 + TERCILES.index(case["terciles"][AXES[0] if factor == CROSSED else factor])


def together(runs: Iterable[StoredRun]) -> Difficulty:
    """Combine runs.

    Raises:
        RunError: If there is no run, two runs have the same factor, one is not graded, or they differ in backbone,
            truth, headline, or the version or settings of a method.
    """
    found: dict[str, StoredRun] = {}
    for run in runs:
        factor = factor_of(run)
        if factor in found:
            raise RunError(f"{run.folder}: the factor {factor} is already that of {found[factor].folder}")
        found[factor] = run
    _check_comparable(list(found.values()))
    rows = pd.concat([_graded(run, factor) for factor, run in found.items()], ignore_index=True)
    first = next(iter(found.values()))
    better = first.info["metrics"][first.headline]["higher_is_better"]
    ranked = ranking(summarise(rows), first.headline, better)
    kinds = dict(zip(rows["method"], rows["kind"], strict=True))
    order = tuple(name for kind in ("method", "bound") for name in ranked if kinds[name] == kind)
    factors = [factor for factor in FACTORS if factor in found]
    easy = rows[rows["factor"] == EASY]
    tested = claims(easy, first.headline, better, family()) if EASY in found else ()
    gains = _gains(easy, first.headline, order)
    return Difficulty(found, rows, _curves(rows, factors), tested, gains, _falls(rows, factors, order), order)


def _check_comparable(runs: list[StoredRun]) -> None:
    if not runs:
        raise RunError("runs: none given")
    first, methods = runs[0], dict[str, tuple[StoredRun, Any]]()
    for run in runs:
        if run.info["backbone"] != first.info["backbone"]:
            raise RunError(f"{run.folder}: backbone: not the one of {first.folder}, so nothing can be compared")
        if run.info.get("truth") != first.info.get("truth"):
            raise RunError(f"{run.folder}: truth: not judged by that of {first.folder}, so nothing can be compared")
        for field in ("version", "backend", "higher_is_better"):
            metric, other = (r.info["metrics"].get(first.headline, {}).get(field) for r in (run, first))
            if run.headline != first.headline or metric != other:
                raise RunError(f"{run.folder}: {first.headline}: not measured as in {first.folder}")
        for name, entry in run.info["methods"].items():
            stated = {
                field: entry.get(field) for field in ("kind", "method_id", "version", "fit_config", "transfer_config")
            }
            before = methods.setdefault(name, (run, stated))
            if before[1] != stated:
                raise RunError(f"{run.folder}: methods.{name}: not as in {before[0].folder}")


def _graded(run: StoredRun, factor: str) -> pd.DataFrame:
    """The headline's rows with factor, strength and distance."""
    cases, rows = run.info["cases"], tidy(run)
    rows = rows[rows["metric"] == run.headline].assign(factor=factor)
    rows["strength"] = rows["case_id"].map({name: strength_of(case, factor) for name, case in cases.items()})
    alone = factor in AXES
    rows["distance"] = rows["case_id"].map(
        {name: float(case["axes"][factor]) if alone else float("nan") for name, case in cases.items()}
    )
    rows["case_id"] = f"{factor}/" + rows["case_id"]  # suites name cases alike
    return rows


def _curves(rows: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    records = []
    for factor in factors:
        for strength in STRENGTHS:
            mine = rows[(rows["factor"] == (factor if strength else EASY)) & (rows["strength"] == strength)]
            distance = mine.drop_duplicates("case_id")["distance"].mean() if strength else 0.0
            for (method, kind), group in mine.groupby(["method", "kind"], sort=False):
                place = {"factor": factor, "strength": strength, "distance": distance}
                records.append(place | {"method": method, "kind": kind, **vars(estimate(group))})
    columns = ["factor", "strength", "distance", "method", "kind", *Estimate.__dataclass_fields__]
    return pd.DataFrame.from_records(records, columns=columns)


def _falls(rows: pd.DataFrame, factors: list[str], order: tuple[str, ...]) -> pd.DataFrame:
    easy = rows[rows["factor"] == EASY]
    start = {name: by_reference(easy[easy["method"] == name]) for name in order}
    records = []
    for factor in factors:
        far = rows[(rows["factor"] == factor) & (rows["strength"] == STRENGTHS[-1])]
        for name in order:
            change = (by_reference(far[far["method"] == name]) - start[name]).dropna().to_numpy(float)
            if len(change):
                records.append({"factor": factor, "method": name, **vars(estimated(change, len(change)))})
    return pd.DataFrame.from_records(records, columns=["factor", "method", *Estimate.__dataclass_fields__])


def _gains(rows: pd.DataFrame, headline: str, order: tuple[str, ...]) -> tuple[tuple[Comparison, Comparison], ...]:
    methods = set(rows.loc[rows["kind"] == "method", "method"]) - {BASELINE}
    return tuple(
        (compare(rows, headline, name, BASELINE), compare(rows, headline, name, FLOOR))
        for name in order
        if name in methods
    )
