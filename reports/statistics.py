"""Compute numbers from stored rows: means, intervals, paired differences, terciles, costs.

Three rules hold everywhere. A failed or skipped video has no value: it is counted, never averaged as 0. Seeds are
averaged inside a case first, so that every case has the same weight. Cases that share a reference are not independent,
so the bootstrap draws references and takes all cases of each.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from reports.run_folder import AXES, TERCILES, StoredRun

RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_CASES = 12
MIN_SEEDS = 3
"""With fewer cases or seeds than these two, no difference is claimed, whatever its interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its interval.

    Attributes:
        mean: Mean; NaN if there is no case.
        low: Lower end of the 95% interval; NaN with fewer than two references.
        high: Upper end of the 95% interval; NaN with fewer than two references.
        cases: Number of cases with a value.
        references: Number of references (clusters) of these cases.
    """

    mean: float
    low: float
    high: float
    cases: int
    references: int


@dataclass(frozen=True)
class Comparison:
    """A paired difference `first - second` on one metric, and the verdict on it."""

    first: str
    second: str
    metric: str
    estimate: Estimate
    seeds: int
    verdict: str


def tidy(run: StoredRun) -> pd.DataFrame:
    """One row for each planned video and metric.

    Returns:
        Columns method, kind, case_id, seed, reference_id, those of AXES (terciles), metric, status (ok, failed,
        skipped, missing) and value (NaN unless ok). If a video failed or was skipped, so are all its metrics. Missing
        means that the run has not made the video or score yet.
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
    rows["kind"] = rows["method"].map({name: entry["kind"] for name, entry in run.info["methods"].items()})
    cases = run.info["cases"]
    rows["reference_id"] = rows["case_id"].map({name: str(case["reference_id"]) for name, case in cases.items()})
    for axis in AXES:
        rows[axis] = rows["case_id"].map({name: case["terciles"].get(axis) for name, case in cases.items()})
    return rows.drop(columns="made")


@functools.cache
def cluster_weights(clusters: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Number of times that each cluster is drawn in each bootstrap resample: int [resamples, clusters], read-only.

    All means over the same number of clusters share the draws, so that no interval depends on the other intervals.
    """
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    weights.flags.writeable = False
    return weights


def percentile_interval(statistics: np.ndarray, clusters: int) -> tuple[float, float]:
    """The expanded percentile interval of bootstrap statistics, without undefined ones (NaN).

    A plain percentile interval over few clusters is too narrow: the spread of resamples is too small by a factor of
    sqrt((n - 1) / n), and it follows a normal distribution instead of Student's. The tails are therefore cut further
    out, so that the interval covers 95% for means of normal clusters (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015).

    Args:
        statistics: Statistics of the resamples, float [resamples].
        clusters: Number of clusters to draw from, 2 or more.
    """
    statistics = statistics[np.isfinite(statistics)]
    if not len(statistics):
        return float("nan"), float("nan")
    reach = np.sqrt(clusters / (clusters - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1)
    tail = stats.norm.sf(reach)
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def estimate(values: pd.DataFrame, seed: int = 0) -> Estimate:
    """Mean over cases of the mean over seeds, with an expanded percentile bootstrap clustered by reference.

    Args:
        values: Columns case_id, reference_id, value; rows with NaN are left out.
        seed: Seed of the bootstrap's generator.
    """
    values = values[values["value"].notna()]
    if values.empty:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    case_of, names = pd.factorize(values["case_id"], sort=True)
    per_case = np.bincount(case_of, weights=values["value"].to_numpy(float)) / np.bincount(case_of)
    reference_of_case = dict(zip(values["case_id"], values["reference_id"], strict=True))
    cluster_of, clusters = pd.factorize(names.map(reference_of_case), sort=True)
    sums, sizes = np.bincount(cluster_of, weights=per_case), np.bincount(cluster_of)
    low = high = float("nan")
    if len(clusters) > 1:
        weights = cluster_weights(len(clusters), seed)
        low, high = percentile_interval((weights @ sums) / (weights @ sizes), len(clusters))
    return Estimate(float(per_case.mean()), low, high, len(names), len(clusters))


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and counts for each method and metric.

    Args:
        rows: Table of `tidy`.

    Returns:
        Columns method, kind, metric, mean, low, high, cases, references, ok, failed, skipped, missing; in the order
        of `rows`.
    """
    records = []
    for (method, kind, metric), group in rows.groupby(["method", "kind", "metric"], sort=False):
        counts = {status: int((group["status"] == status).sum()) for status in ("ok", "failed", "skipped", "missing")}
        records.append({"method": method, "kind": kind, "metric": metric, **vars(estimate(group)), **counts})
    return pd.DataFrame.from_records(records)


def ranking(summary: pd.DataFrame, metric: str, higher_is_better: bool | None) -> list[str]:
    """Names by the mean of `metric`, best first, those without a value last."""
    rows = summary[summary["metric"] == metric]
    rows = rows.sort_values("mean", ascending=higher_is_better is False, na_position="last", kind="stable")
    return [str(name) for name in rows["method"]]


def compare(
    rows: pd.DataFrame, metric: str, first: str, second: str, higher_is_better: bool | None = True
) -> Comparison:
    """The paired difference `first - second` over the videos that both have.

    A deterministic bound has one video per case; it is paired with every seed of the other side.

    Args:
        rows: Table of `tidy`.
        metric: Name of the metric.
        first: Name of a method or bound.
        second: Name of another method or bound.
        higher_is_better: Better direction of the metric; None means that nothing is claimed.
    """
    left, right = (_paired_side(rows, metric, name) for name in (first, second))
    # Sides with seeds are paired by seed, deterministic bounds by case.
    keys = ["case_id", "seed"] if "seed" in left and "seed" in right else ["case_id"]
    pairs = left.merge(right.drop(columns="reference_id"), on=keys, suffixes=("", "_second"))
    pairs["value"] = pairs["value"] - pairs["value_second"]
    difference = estimate(pairs)
    per_case = pairs.groupby("case_id").size().sort_values(ascending=False)
    seeds = int(per_case.iloc[min(MIN_CASES, len(per_case)) - 1]) if len(per_case) else 0
    return Comparison(first, second, metric, difference, seeds, _verdict(difference, seeds, higher_is_better))


def _paired_side(rows: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    side = rows[(rows["method"] == name) & (rows["metric"] == metric)]
    once = (side["kind"] == "bound").any() and side["seed"].nunique() == 1  # of the planned ones, made or not
    side = side.dropna(subset=["value"])
    if once:
        return side[["case_id", "reference_id", "value"]]
    return side[["case_id", "reference_id", "seed", "value"]]


def _verdict(difference: Estimate, seeds: int, higher_is_better: bool | None) -> str:
    if not difference.cases:
        return "not compared: no video in common"
    if difference.cases < MIN_CASES or seeds < MIN_SEEDS:
        return f"not claimed: {_count(difference.cases, 'case')} x {_count(seeds, 'seed')}"
    if difference.references < 2:
        return f"not claimed: {_count(difference.references, 'reference')}"
    if higher_is_better is None:
        return "not claimed: the metric has no better side"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    return "beats" if (difference.low > 0) == higher_is_better else "is beaten by"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def by_tercile(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric for each tercile of each axis of difference between reference and target.

    Returns:
        Columns axis, tercile, method, kind and those of Estimate; one row for each that has a value.
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
