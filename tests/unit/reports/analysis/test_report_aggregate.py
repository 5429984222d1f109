"""The statistics of the reports, held against slow and independent computations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.analysis import statistics as aggregate
from reports.analysis.correlation import FEW_CLUSTERS, clustered_spearman, weighted_spearman


def frame(values, method="a", kind="method", metric="m"):
    """Rows from {(reference, case): [value at seed 0, value at seed 1, ...]}; None is a failed video."""
    rows = [
        {"method": method, "kind": kind, "metric": metric, "reference_id": reference, "case_id": case}
        | {"seed": seed, "fit_seed": seed}
        | {"value": np.nan if value is None else float(value), "status": "failed" if value is None else "ok"}
        for (reference, case), seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


def drawn(generator, references=6, cases=5, seeds=3, shift=0.0):
    return {
        (f"r{r}", f"c{r}-{c}"): list(shift + generator.normal(0.1 * r, 0.2, seeds))
        for r in range(references)
        for c in range(cases)
    }


def test_failures_are_left_out_and_never_zero():
    whole = aggregate.estimate(frame({("r0", "a"): [0.5, 0.5], ("r1", "b"): [0.9, None], ("r1", "c"): [None, None]}))
    assert whole.mean == pytest.approx(0.7)
    assert (whole.cases, whole.references) == (2, 2)


def test_every_case_weighs_the_same_whatever_seeds_it_lost():
    found = aggregate.estimate(frame({("r0", "a"): [0.0, 0.0, 0.0], ("r1", "b"): [1.0, None, None]}))
    assert found.mean == 0.5


def test_no_value_no_mean_and_one_reference_no_interval():
    nothing = aggregate.estimate(frame({("r0", "a"): [None]}))
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
    assert nothing.cases == 0
    one = aggregate.estimate(frame({("r0", "a"): [0.2], ("r0", "b"): [0.4]}))
    assert one.mean == pytest.approx(0.3)
    assert np.isnan([one.low, one.high]).all()


def test_references_weigh_the_same_and_the_interval_is_students():
    values = {("r0", "a"): [0.1], ("r0", "b"): [0.5], ("r1", "c"): [0.9], ("r2", "d"): [0.2], ("r2", "e"): [0.3]}
    found = aggregate.estimate(frame(values))
    expected = stats.ttest_1samp([0.3, 0.9, 0.25], 0).confidence_interval(0.95)
    assert found.mean == pytest.approx((0.3 + 0.9 + 0.25) / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.cases, found.references) == (5, 3)


def test_an_interval_that_ignores_the_references_would_be_narrower():
    rows = frame(drawn(np.random.default_rng(1), seeds=1))
    found = aggregate.estimate(rows)
    naive = aggregate.estimate(rows.assign(reference_id=rows["case_id"]))
    assert naive.high - naive.low < found.high - found.low


def test_same_numbers_every_time_and_for_any_order_of_rows():
    rows = frame(drawn(np.random.default_rng(2)))
    shuffled = rows.sample(frac=1, random_state=3)
    first, second = aggregate.estimate(rows), aggregate.estimate(shuffled)
    assert vars(first) == pytest.approx(vars(second), abs=1e-12)


def test_pairing_uses_only_what_both_have():
    a = frame({("r0", "x"): [1.0, None, 3.0], ("r1", "y"): [None, None, None]}, "a")
    b = frame({("r0", "x"): [0.5, 9.0, 1.5], ("r1", "y"): [1.0, 1.0, 1.0]}, "b")
    found = aggregate.compare(pd.concat([a, b]), "m", "a", "b")
    assert found.estimate.mean == pytest.approx((0.5 + 1.5) / 2)
    assert (found.estimate.cases, found.seeds) == (1, 2)


def test_a_bound_stands_for_every_seed():
    method = frame({("r0", "x"): [1.0, 2.0, 3.0]}, "a")
    bound = frame({("r0", "x"): [0.5]}, "still", kind="bound")
    found = aggregate.compare(pd.concat([method, bound]), "m", "a", "still")
    assert found.estimate.mean == pytest.approx(1.5)
    assert found.seeds == 3


def test_a_bound_that_is_a_sample_is_paired_by_seed():
    method = frame({("r0", "x"): [1.0, 2.0, 3.0]}, "a")
    bound = frame({("r0", "x"): [0.5, 9.0]}, "in-words", kind="bound")
    found = aggregate.compare(pd.concat([method, bound]), "m", "a", "in-words")
    assert found.estimate.mean == pytest.approx((0.5 - 7.0) / 2)
    assert found.seeds == 2
    unfinished = frame({("r0", "x"): [0.5, None, None]}, "in-words", kind="bound")
    assert aggregate.compare(pd.concat([method, unfinished]), "m", "a", "in-words").seeds == 1


def test_nothing_in_common_is_no_comparison():
    rows = pd.concat([frame({("r0", "x"): [1.0]}, "a"), frame({("r1", "y"): [1.0]}, "b")])
    assert aggregate.compare(rows, "m", "a", "b").estimate.cases == 0


@pytest.mark.parametrize("tied", [False, True])
def test_weighted_spearman_equals_scipy_on_repeated_data(tied):
    generator = np.random.default_rng(6)
    left, right = generator.normal(size=(2, 40))
    if tied:
        left, right = left.round(0), right.round(0)
    weights = generator.integers(0, 4, (5, 40))
    found = weighted_spearman(left, right, weights)
    expected = [stats.spearmanr(np.repeat(left, w), np.repeat(right, w)).statistic for w in weights]
    assert found == pytest.approx(expected, abs=1e-12)


def test_weighted_spearman_of_a_constant_is_undefined():
    weights = np.ones((2, 4), dtype=int)
    assert np.isnan(weighted_spearman(np.ones(4), np.arange(4.0), weights)).all()


@pytest.mark.parametrize("clusters", [3, 30])
def test_resampled_clusters_count_with_all_their_observations(clusters):
    generator = np.random.default_rng(7)
    left, right = generator.normal(size=(2, 60)).round(1)
    cluster = np.concatenate([np.arange(clusters), generator.integers(0, clusters, 60 - clusters)])
    assert (clusters**3 <= FEW_CLUSTERS * 60) == (clusters == 3)  # one case for each way to sum
    draws = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=20)
    found = clustered_spearman(left, right, cluster, draws)
    assert found.tolist() == weighted_spearman(left, right, draws[:, cluster]).tolist()  # every bit


def test_a_cluster_that_is_drawn_alone_and_does_not_vary_is_undefined():
    left, right, cluster = np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1])
    assert np.isnan(clustered_spearman(left, right, cluster, np.array([[2, 0], [0, 2]]))).tolist() == [True, False]
