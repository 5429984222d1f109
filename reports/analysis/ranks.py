"""Ranks of the methods with their uncertainty, by a bootstrap over references."""

import numpy as np
import pandas as pd

from reports.analysis.claims import MIN_REFERENCES
from reports.analysis.inference import cluster_weights, percentile_interval, resampled_ranks
from reports.analysis.statistics import by_reference

COLUMNS = ("rank", "low", "high", "first")


def ranks(rows: pd.DataFrame, metric: str, higher_is_better: bool | None) -> pd.DataFrame:
    """Each method's rank among all of them, its 95% interval, and how often it comes first, by the rows of `tidy`.

    Every resample draws whole references, and all methods get the same ones: what makes a reference hard for all of
    them moves no rank. A method that lacks a value for some reference has no rank, since it could gain from that. Nor
    is anything ranked by a metric without a better direction.

    Returns:
        Index method, in the order of `rows`; columns rank (1 is best, methods that tie share the mean of their ranks),
        low, high (whole ranks) and first (share of resamples in which it ranks first, 0 to 1; those that tie share it).
        NaN without a rank. With fewer than `MIN_REFERENCES` references only rank is a number.
    """
    mine = rows[(rows["metric"] == metric) & (rows["kind"] == "method")]
    names = list(dict.fromkeys(mine["method"]))
    found = pd.DataFrame(np.nan, index=pd.Index(names, name="method"), columns=list(COLUMNS))
    means = pd.DataFrame({name: by_reference(mine[mine["method"] == name]) for name in names})
    means = means.loc[:, means.notna().all()]
    if higher_is_better is None or not means.size:
        return found
    values, references = means.to_numpy(float).T, len(means)
    found.loc[means.columns, "rank"] = resampled_ranks(values, np.ones((1, references)), higher_is_better)[0]
    if references >= MIN_REFERENCES:
        drawn = resampled_ranks(values, cluster_weights(references), higher_is_better)
        ends = np.array([percentile_interval(column, references) for column in drawn.T])
        found.loc[means.columns, ["low", "high"]] = np.column_stack([np.floor(ends[:, 0]), np.ceil(ends[:, 1])])
        leading = drawn == drawn.min(axis=1, keepdims=True)
        found.loc[means.columns, "first"] = (leading / leading.sum(axis=1, keepdims=True)).mean(axis=0)
    return found
