"""Compute numbers from stored rows: means, intervals, paired differences, terciles, costs.

Three rules hold everywhere. A failed or skipped video has no value: it is counted, never averaged as 0. Seeds are
averaged inside a case first, then cases inside a reference, so that every reference has the same weight. Cases that
share a reference are not independent, so intervals rest on the means of the references.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.analysis.inference import student_interval
from reports.run_folder import AXES, STATUSES, TERCILES, StoredRun

MIN_SEEDS = 3
"""Smallest number of seeds with which a difference is claimed."""


@dataclass(frozen=True)
class Estimate:
    """A mean over references with its interval.

    Attributes:
        mean: Mean; NaN if there is no case.
        low: Lower end of the 95% interval; NaN with fewer than two references.
        high: Upper end of the 95% interval; NaN with fewer than two references.
        cases: Number of cases with a value.
        references: Number of references of these cases.
    """

    mean: float
    low: float
    high: float
    cases: int
    references: int


@dataclass(frozen=True)
class Comparison:
    """A paired difference `first - second` on one metric.

    Attributes:
        first: Name of a method or bound.
        second: Name of another one.
        metric: Name of the metric.
        estimate: Mean difference with its interval.
        by_reference: Mean difference of each reference, float [references].
        seeds: Number of seeds of the median case.
    """

    first: str
    second: str
    metric: str
    estimate: Estimate
    by_reference: np.ndarray
    seeds: int


def tidy(run: StoredRun) -> pd.DataFrame:
    """One row for each planned video and metric.

    Returns:
        Columns method, kind (bound, or method for all that compete), case_id, seed, reference_id, those of AXES
        (terciles), metric, status (ok, failed, skipped, missing) and value (NaN unless ok). If a video failed or was
        skipped, so are all its metrics. Missing means that the run has not made the video or score yet.
    """
    cells = run.samples[["method", "case_id", "seed", "status"]].rename(columns={"status": "made"})
    rows = cells.merge(pd.DataFrame({"metric": run.metrics}), how="cross")
    scores = run.scores[["method", "case_id", "seed", "metric", "status", "value"]]
    rows = rows.merge(scores, how="left", on=["method", "case_id", "seed", "metric"])
    made, scored = rows["made"], rows["status"].fillna("missing")
    rows["status"] = scored.where(made == "ok", made)
    rows["value"] = pd.to_numeric(rows["value"], errors="coerce").where(rows["status"] == "ok")
    # "ok" without a finite number is a fault of the scorer and must not become a value.
    broken = (rows["status"] == "ok") & ~np.isfinite(rows["value"].astype(float))
    rows.loc[broken, ["status", "value"]] = ["failed", np.nan]
    rows["kind"] = rows["method"].map(dict.fromkeys(run.methods, "method") | dict.fromkeys(run.bounds, "bound"))
    cases = run.info["cases"]
    rows["reference_id"] = rows["case_id"].map({name: str(case["reference_id"]) for name, case in cases.items()})
    for axis in AXES:
        rows[axis] = rows["case_id"].map({name: case["terciles"].get(axis) for name, case in cases.items()})
    return rows.drop(columns="made")


def by_reference(values: pd.DataFrame) -> pd.Series:
    """Means over the seeds of each case, then over the cases of each reference.

    Args:
        values: Columns reference_id, case_id and value; rows with NaN are left out.
    """
    per_case = values.dropna(subset=["value"]).groupby(["reference_id", "case_id"])["value"].mean()
    return per_case.groupby(level="reference_id").mean()


def estimate(values: pd.DataFrame) -> Estimate:
    """Mean over references, with Student's interval.

    Args:
        values: Columns reference_id, case_id and value; rows with NaN are left out.
    """
    return _estimated(by_reference(values).to_numpy(float), values.loc[values["value"].notna(), "case_id"].nunique())


def _estimated(means: np.ndarray, cases: int) -> Estimate:
    """Estimate from the means of the references, float [references]."""
    mean = float(means.mean()) if len(means) else float("nan")
    return Estimate(mean, *student_interval(means), cases, len(means))


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and counts for each method and metric.

    Args:
        rows: Table of `tidy`.

    Returns:
        Columns method, kind, metric, mean, low, high, cases, references, ok, failed, skipped, missing; in the order
        of `rows`.
    """
    keys = ["method", "kind", "metric"]
    # Over all groups at once, because a run has about a thousand of them.
    per_case = rows.dropna(subset=["value"]).groupby([*keys, "reference_id", "case_id"])["value"].mean()
    per_reference = per_case.groupby(level=[*keys, "reference_id"]).mean()
    means = {key: group.to_numpy(float) for key, group in per_reference.groupby(level=keys)}
    cases = per_case.groupby(level=keys).size().to_dict()
    sizes = rows.groupby([*keys, "status"]).size().to_dict()
    records = []
    for key in rows[keys].drop_duplicates().itertuples(index=False, name=None):
        found = _estimated(means.get(key, np.empty(0)), int(cases.get(key, 0)))
        counts = {status: int(sizes.get((*key, status), 0)) for status in STATUSES}
        records.append({**dict(zip(keys, key, strict=True)), **vars(found), **counts})
    return pd.DataFrame.from_records(records)


def ranking(summary: pd.DataFrame, metric: str, higher_is_better: bool | None) -> list[str]:
    """Names by the mean of `metric`, best first; names without a value come last."""
    rows = summary[summary["metric"] == metric]
    rows = rows.sort_values("mean", ascending=higher_is_better is False, na_position="last", kind="stable")
    return [str(name) for name in rows["method"]]


def compare(rows: pd.DataFrame, metric: str, first: str, second: str) -> Comparison:
    """The paired difference `first - second` over the videos that both have.

    A deterministic bound has one video per case; it is paired with every seed of the other side.

    Args:
        rows: Table of `tidy`.
        metric: Name of the metric.
        first: Name of a method or bound.
        second: Name of another method or bound.
    """
    left, right = (_paired_side(rows, metric, name) for name in (first, second))
    # Sides with seeds are paired by seed, deterministic bounds by case.
    keys = ["case_id", "seed"] if "seed" in left and "seed" in right else ["case_id"]
    pairs = left.merge(right.drop(columns="reference_id"), on=keys, suffixes=("", "_second"))
    pairs["value"] = pairs["value"] - pairs["value_second"]
    seeds = int(pairs.groupby("case_id").size().median()) if len(pairs) else 0
    means = by_reference(pairs).to_numpy(float)
    return Comparison(first, second, metric, _estimated(means, pairs["case_id"].nunique()), means, seeds)


def _paired_side(rows: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    columns = ["case_id", "reference_id", "seed", "value", "kind"]
    side = rows.loc[(rows["method"] == name) & (rows["metric"] == metric), columns]
    once = (side["kind"] == "bound").any() and side["seed"].nunique() == 1  # of the planned ones, made or not
    side = side.dropna(subset=["value"])
    if once:
        return side[["case_id", "reference_id", "value"]]
    return side[["case_id", "reference_id", "seed", "value"]]


def by_tercile(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric for each tercile of each axis of difference between reference and target.

    Returns:
        Columns axis, tercile, method, kind and those of Estimate; one row for each combination that has a value.
    """
    rows = rows[rows["metric"] == metric]
    records = []
    for axis in AXES:
        for tercile in TERCILES:
            for (method, kind), group in rows[rows[axis] == tercile].groupby(["method", "kind"], sort=False):
                found = estimate(group)
                if found.cases:
                    records.append({"axis": axis, "tercile": tercile, "method": method, "kind": kind, **vars(found)})
    columns = ["axis", "tercile", "method", "kind", *Estimate.__dataclass_fields__]
    return pd.DataFrame.from_records(records, columns=columns)


def costs(run: StoredRun) -> pd.DataFrame:
    """Median costs of the methods; bounds are not made by a model and have none.

    Returns:
        Index method; columns fits (distinct ones), fit_s (median over fits, not over videos: several videos share
        one), transfer_s, peak_memory_gib, action_mib (the size of a fit), adapter_mib (weights trained beforehand that
        the method loads in addition to the backbone's). NaN where nothing was stored.
    """
    made = run.samples[(run.samples["status"] == "ok") & run.samples["method"].isin(run.methods)]
    numbers = ["fit_s", "transfer_s", "peak_memory_gib", "action_mib"]
    made = made.astype(dict.fromkeys(numbers, "float64"))
    per_fit = made.groupby(["method", "fit_key"])["fit_s"].max().groupby(level="method")
    table = made.groupby("method")[numbers[1:]].median()
    table.insert(0, "fit_s", per_fit.median())
    table.insert(0, "fits", per_fit.size())
    table = table.reindex(run.methods)
    table["adapter_mib"] = [run.info["methods"][name].get("adapter_mib", float("nan")) for name in run.methods]
    return table


def cell_counts(run: StoredRun) -> pd.DataFrame:
    """Videos by status: index method; columns ok, failed, skipped, missing, planned."""
    table = run.samples.groupby(["method", "status"]).size().unstack(fill_value=0)
    table = table.reindex(index=run.methods + run.bounds, columns=["ok", "failed", "skipped", "missing"], fill_value=0)
    return table.assign(planned=table.sum(axis=1))
