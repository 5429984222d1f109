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
_SEEDS = ("seed", "fit_seed")


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
        by_reference: Mean difference of each reference, float [references].
        seeds: Number of seeds of the median case; of seeds and fit seeds the smaller number.
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
        Columns method, kind (bound, or method for all that compete), case_id, seed, fit_seed, reference_id, those of
        AXES (terciles), metric, status (ok, failed, skipped, missing) and value (NaN unless ok). If a video failed or
        was skipped, so are all its metrics. Missing means that the run has not made the video or score yet.
    """
    columns = ["key", "method", "case_id", "seed", "fit_seed", "status"]
    cells = run.samples[columns].rename(columns={"status": "made"})
    rows = cells.merge(pd.DataFrame({"metric": run.metrics}), how="cross")
    rows = rows.merge(run.scores[["key", "metric", "status", "value"]], how="left", on=["key", "metric"])
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
    return rows.drop(columns=["key", "made"])


def by_reference(values: pd.DataFrame) -> pd.Series:
    """Means of `value` over the seeds of each `case_id`, then over the cases of each `reference_id`, without NaN."""
    per_case = values.dropna(subset=["value"]).groupby(["reference_id", "case_id"])["value"].mean()
    return per_case.groupby(level="reference_id").mean()


def estimate(values: pd.DataFrame) -> Estimate:
    """Mean over references, as of `by_reference`, with Student's interval."""
    return estimated(by_reference(values).to_numpy(float), values.loc[values["value"].notna(), "case_id"].nunique())


def estimated(means: np.ndarray, cases: int) -> Estimate:
    """Estimate from the means of the references, float [references], and the number of their cases."""
    mean = float(means.mean()) if len(means) else float("nan")
    return Estimate(mean, *student_interval(means), cases, len(means))


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and counts for each method and metric in the rows of `tidy`.

    Returns:
        Columns method, kind, metric, mean, low, high, cases, references, ok, failed, skipped, missing; in the order of
        `rows`.
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
        found = estimated(means.get(key, np.empty(0)), int(cases.get(key, 0)))
        counts = {status: int(sizes.get((*key, status), 0)) for status in STATUSES}
        records.append({**dict(zip(keys, key, strict=True)), **vars(found), **counts})
    return pd.DataFrame.from_records(records)


def ranking(summary: pd.DataFrame, metric: str, higher_is_better: bool | None) -> list[str]:
    """Names by the mean of `metric`, best first; names without a value come last."""
    rows = summary[summary["metric"] == metric]
    rows = rows.sort_values("mean", ascending=higher_is_better is False, na_position="last", kind="stable")
    return [str(name) for name in rows["method"]]


def compare(rows: pd.DataFrame, metric: str, first: str, second: str) -> Comparison:
    """The paired difference `first - second` over the videos that both have, in the rows of `tidy`.

    A deterministic bound has one video per case; it is paired with every seed of the other side. So is a side whose
    fits have no seeds of their own with every fit seed of the other.
    """
    left, right = (_paired_side(rows, metric, name) for name in (first, second))
    # Sides with seeds are paired by seed, deterministic bounds by case.
    seeded = [name for name in _SEEDS if name in left or name in right]
    keys = ["case_id", *(name for name in seeded if name in left and name in right)]
    pairs = left.merge(right.drop(columns="reference_id"), on=keys, suffixes=("", "_second"))
    pairs["value"] = pairs["value"] - pairs["value_second"]
    seeds = [int(pairs.groupby("case_id")[name].nunique().median()) if len(pairs) else 0 for name in seeded]
    means = by_reference(pairs).to_numpy(float)
    found = estimated(means, pairs["case_id"].nunique())
    return Comparison(first, second, metric, found, means, min(seeds, default=int(len(pairs) > 0)))


def _paired_side(rows: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    columns = ["case_id", "reference_id", *_SEEDS, "value", "kind"]
    side = rows.loc[(rows["method"] == name) & (rows["metric"] == metric), columns]
    # Of the planned ones, made or not.
    absent = ["kind", *_SEEDS] if (side["kind"] == "bound").any() and side["seed"].nunique() == 1 else ["kind"]
    if "fit_seed" not in absent and not apart(side):
        absent.append("fit_seed")
    return side.dropna(subset=["value"]).drop(columns=absent)


def apart(rows: pd.DataFrame) -> bool:
    """Return True if fits have seeds of their own in a table of `tidy`, instead of those of their videos."""
    return bool((rows["fit_seed"] != rows["seed"]).any())


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
    table = table.reindex(index=run.methods + run.bounds, columns=STATUSES, fill_value=0)
    return table.assign(planned=table.sum(axis=1))
