"""Ranks with their uncertainty: worked examples, and how often the intervals hold the true rank."""

import numpy as np
import pandas as pd
import pytest

from reports.analysis.ranks import ranks


def rows_of(values: dict[str, np.ndarray], kind: str = "method") -> pd.DataFrame:
    """One case a reference, one seed; NaN is a failed video."""
    records = [
        {"method": name, "kind": kind, "metric": "m", "reference_id": f"r{place}", "case_id": f"c{place}", "seed": 0}
        | {"value": value, "status": "ok" if np.isfinite(value) else "failed"}
        for name, column in values.items()
        for place, value in enumerate(column)
    ]
    return pd.DataFrame(records)


HARD = np.linspace(-1, 1, 8)


def test_what_is_hard_for_all_moves_no_rank():
    found = ranks(rows_of({"b": HARD, "a": HARD + 0.01, "c": HARD - 0.01}), "m", True)
    assert found.loc["a"].tolist() == [1, 1, 1, 1.0]
    assert found.loc["b"].tolist() == [2, 2, 2, 0.0]
    assert list(found.index) == ["b", "a", "c"]
    assert ranks(rows_of({"b": HARD, "a": HARD + 0.01}), "m", False).loc["b", "rank"] == 1


def test_methods_that_tie_share_rank_and_first_places():
    found = ranks(rows_of({"a": HARD, "b": HARD, "c": HARD - 1}), "m", True)
    assert found.loc["a"].tolist() == found.loc["b"].tolist() == [1.5, 1, 2, 0.5]


def test_without_a_reference_there_is_no_rank_and_others_keep_theirs():
    lacking = np.where(np.arange(8) == 3, np.nan, HARD + 5)
    found = ranks(rows_of({"a": HARD, "lacks": lacking, "b": HARD - 1}), "m", True)
    assert found.loc["lacks"].isna().all()
    assert found["rank"].tolist()[::2] == [1, 2]


def test_few_references_rank_without_an_interval():
    found = ranks(rows_of({"a": np.zeros(5), "b": np.ones(5)}), "m", True)
    assert found["rank"].tolist() == [2, 1]
    assert found[["low", "high", "first"]].isna().all(axis=None)


def test_bounds_and_metrics_without_a_better_side_are_not_ranked():
    rows = pd.concat([rows_of({"a": HARD}), rows_of({"oracle": HARD + 9}, "bound")])
    assert ranks(rows, "m", True)["rank"].to_dict() == {"a": 1}
    assert ranks(rows, "m", None)["rank"].isna().all()


@pytest.mark.parametrize("references", [6, 12, 24])
def test_intervals_hold_the_true_rank_at_least_as_often_as_they_say(references):
    generator, truth = np.random.default_rng(references), np.array([0.6, 0.3, 0.0, -0.3])
    held = []
    for _ in range(60):
        values = truth + generator.normal(size=(references, 1)) + generator.normal(size=(references, 4))
        found = ranks(rows_of(dict(zip("abcd", values.T, strict=True))), "m", True)
        held.append((found["low"] <= np.arange(1, 5)) & (np.arange(1, 5) <= found["high"]))
    assert np.mean(held) >= 0.95
