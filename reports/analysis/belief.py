"""Measure how far each metric that needs no truth can be believed.

On real videos there is no truth, so only such metrics can be computed. Here the truth is known, so each of them can be
compared with the headline that uses the truth: over videos, inside a case, inside a method, and over methods. The
simplest test is whether the metric prefers the true video to a clearly wrong one.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from reports.analysis.correlation import clustered_spearman
from reports.analysis.inference import cluster_weights, percentile_interval
from reports.run_folder import StoredRun

TRUE_VIDEOS = ("oracle-codec", "oracle")
"""Bounds that show the truth; the first stored one is used (it went through the codec, as the methods' videos did)."""

WRONG_VIDEOS = ("still", "copy-reference", "wrong-action")
"""Bounds that fail the task in a known way."""

MIN_VIDEOS = 3
"""Smallest number of values for which a rank correlation is computed."""


def needs_truth(entry: dict[str, Any]) -> bool | None:
    """True if a metric of run.json reads the truth; None if the run does not say."""
    return "truth" in entry["needs"] if "needs" in entry else None


def paired_values(run: StoredRun, rows: pd.DataFrame, metric: str, turned: bool = True) -> pd.DataFrame:
    """Videos of methods (no bounds) that have both the metric and the headline, out of the rows of `tidy`.

    `turned` changes signs so that more is better; a metric without a better direction keeps its sign.

    Returns:
        Columns method, case_id, reference_id, seed, fit_seed, metric_value, headline_value.
    """
    keys = ["method", "case_id", "seed", "fit_seed"]
    known = (rows["kind"] == "method") & rows["value"].notna()
    columns = [*keys, "reference_id", "value"]
    sides = [rows.loc[(rows["metric"] == name) & known, columns] for name in (metric, run.headline)]
    pairs = sides[0].merge(sides[1].drop(columns="reference_id"), on=keys, suffixes=("_metric", "_headline"))
    pairs = pairs.rename(columns={"value_metric": "metric_value", "value_headline": "headline_value"})
    if turned:
        pairs["metric_value"] *= _sign(run, metric)
        pairs["headline_value"] *= _sign(run, run.headline)
    return pairs


def belief(run: StoredRun, rows: pd.DataFrame) -> pd.DataFrame:
    """Agreement of each truth-free metric with the headline over the rows of `tidy`, highest agreement first.

    Returns:
        Columns metric; videos (pairs); rho, low, high (Spearman over all videos, 95% interval clustered by reference);
        within_case and within_method (mean Spearman inside each, so that neither easy cases nor strong methods can
        cause the correlation); over_methods (Spearman of the methods' means); truth_preferred (share of duels on one
        case in which the true video scores better than a wrong one, ties as half) and duels. Values are NaN where too
        little varies. There is no row if the headline does not read the truth either.
    """
    records = []
    # A headline that reads no truth itself cannot serve as the yardstick.
    metrics = run.info["metrics"]
    yardstick = needs_truth(metrics[run.headline]) is not False
    judged = [name for name in run.metrics if name != run.headline and not needs_truth(metrics[name])]
    for metric in judged if yardstick else ():
        pairs = paired_values(run, rows, metric)
        low, high = _interval(pairs)
        preferred, duels = _truth_preferred(run, rows, metric)
        means = pairs.groupby("method")[["metric_value", "headline_value"]].mean()
        records.append(
            {
                "metric": metric,
                "videos": len(pairs),
                "rho": _spearman(pairs),
                "low": low,
                "high": high,
                "within_case": _mean_inside(pairs, "case_id"),
                "within_method": _mean_inside(pairs, "method"),
                "over_methods": _spearman(means),
                "truth_preferred": preferred,
                "duels": duels,
            }
        )
    if not records:
        return pd.DataFrame(columns=["metric", "rho"])
    table = pd.DataFrame.from_records(records)
    return table.sort_values("rho", ascending=False, na_position="last", kind="stable", ignore_index=True)


def _interval(pairs: pd.DataFrame) -> tuple[float, float]:
    """95% interval of Spearman's rho over videos; the bootstrap draws references with all their videos."""
    names, cluster = np.unique(pairs["reference_id"].to_numpy(dtype=str), return_inverse=True)
    if len(names) < 2 or len(pairs) < MIN_VIDEOS:
        return float("nan"), float("nan")
    left, right = pairs["metric_value"].to_numpy(), pairs["headline_value"].to_numpy()
    found = clustered_spearman(left, right, cluster, cluster_weights(len(names)))
    return percentile_interval(found, len(names))


def _spearman(pairs: pd.DataFrame) -> float:
    left, right = pairs["metric_value"], pairs["headline_value"]
    if len(pairs) < MIN_VIDEOS or left.nunique() < 2 or right.nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(left, right).statistic)


def _mean_inside(pairs: pd.DataFrame, column: str) -> float:
    """Mean of the rank correlations inside each group, leaving out groups that are too small or do not vary."""
    groups = pairs[column]
    ranks = pairs[["metric_value", "headline_value"]].groupby(groups).rank()
    ranks -= ranks.groupby(groups).transform("mean")
    left, right = ranks["metric_value"], ranks["headline_value"]
    parts = pd.DataFrame({"left": left**2, "right": right**2, "both": left * right}).groupby(groups)
    sums = parts.sum()[(parts.size() >= MIN_VIDEOS)]
    sums = sums[(sums["left"] > 0) & (sums["right"] > 0)]
    return float((sums["both"] / np.sqrt(sums["left"] * sums["right"])).mean())


def _truth_preferred(run: StoredRun, rows: pd.DataFrame, metric: str) -> tuple[float, int]:
    """Share of duels between the true and a wrong video of one case that the true video wins, and their number."""
    if run.info["metrics"][metric]["higher_is_better"] is None:
        return float("nan"), 0
    mine = rows[(rows["metric"] == metric) & rows["value"].notna()]
    values = mine.pivot_table(index="case_id", columns="method", values="value", aggfunc="mean") * _sign(run, metric)
    truth = next((name for name in TRUE_VIDEOS if name in values), None)
    wrong = [name for name in WRONG_VIDEOS if name in values]
    if truth is None or not wrong:
        return float("nan"), 0
    gaps = values[wrong].rsub(values[truth], axis=0).to_numpy().ravel()
    gaps = gaps[np.isfinite(gaps)]
    return (float(np.mean((np.sign(gaps) + 1) / 2)), len(gaps)) if len(gaps) else (float("nan"), 0)


def _sign(run: StoredRun, metric: str) -> float:
    return -1.0 if run.info["metrics"][metric]["higher_is_better"] is False else 1.0
