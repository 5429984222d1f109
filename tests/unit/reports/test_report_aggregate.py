"""The statistics of the reports, held against slow and independent computations."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import statistics as aggregate
from reports.belief import weighted_spearman


def frame(values, method="a", kind="method", metric="m"):
    """Rows from {(reference, case): [value at seed 0, value at seed 1, ...]}; None is a failed video."""
    rows = [
        {"method": method, "kind": kind, "metric": metric, "reference_id": reference, "case_id": case, "seed": seed}
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


def test_interval_equals_the_full_enumeration_of_cluster_resamples():
    values = {("r0", "a"): [0.1], ("r0", "b"): [0.5], ("r1", "c"): [0.9], ("r2", "d"): [0.2], ("r2", "e"): [0.3]}
    clusters = [[0.1, 0.5], [0.9], [0.2, 0.3]]
    every = [np.mean(sum((clusters[i] for i in draw), [])) for draw in itertools.product(range(3), repeat=3)]
    found = aggregate.estimate(frame(values))
    ends = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx(ends)


def test_interval_agrees_with_scipy_and_is_wider_than_one_that_ignores_the_clusters():
    values = drawn(np.random.default_rng(1), seeds=1)
    rows = frame(values)
    sums = rows.groupby("reference_id")["value"].sum().to_numpy()
    sizes = rows.groupby("reference_id")["value"].size().to_numpy()
    reference = stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=1 - 2 * stats.norm.cdf(-np.sqrt(6 / 5) * 2.5706),  # Student's 97.5% point of 5 degrees
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    ).confidence_interval
    found = aggregate.estimate(rows)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.02)
    naive = aggregate.estimate(rows.assign(reference_id=rows["case_id"]))
    assert naive.high - naive.low < found.high - found.low


@pytest.mark.parametrize("clusters", [6, 8, 20])
def test_intervals_over_few_clusters_hold_the_truth_as_often_as_they_say(clusters):
    drawn_means = np.random.default_rng(clusters).normal(size=(1_000, clusters))
    resampled = drawn_means @ aggregate.cluster_weights(clusters).T / clusters
    ends = [aggregate.percentile_interval(means, clusters) for means in resampled]
    held = np.mean([low <= 0 <= high for low, high in ends])
    plain = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert 0.93 <= held <= 0.97
    assert np.mean((plain[0] <= 0) & (plain[1] >= 0)) < held


def test_same_numbers_every_time_and_for_any_order_of_rows():
    rows = frame(drawn(np.random.default_rng(2)))
    shuffled = rows.sample(frac=1, random_state=3)
    first, second = aggregate.estimate(rows), aggregate.estimate(shuffled)
    assert vars(first) == pytest.approx(vars(second), abs=1e-12)


@pytest.mark.parametrize(
    ("references", "cases", "seeds", "verdict"),
    [
        (6, 2, 3, "beats"),
        (6, 2, 2, "not claimed: 12 cases x 2 seeds"),
        (11, 1, 3, "not claimed: 11 cases x 3 seeds"),
        (1, 12, 3, "not claimed: 1 reference"),
        (1, 1, 1, "not claimed: 1 case x 1 seed"),
    ],
)
def test_claims_need_cases_seeds_and_references(references, cases, seeds, verdict):
    values = drawn(np.random.default_rng(0), references, cases, seeds)
    better = {case: [value + 1 for value in seeds] for case, seeds in values.items()}
    rows = pd.concat([frame(better, "a"), frame(values, "b")])
    found = aggregate.compare(rows, "m", "a", "b")
    assert found.verdict == verdict
    assert found.estimate.mean == pytest.approx(1)


def test_claims_follow_the_direction_of_the_metric():
    values = drawn(np.random.default_rng(0))
    rows = pd.concat([frame(drawn(np.random.default_rng(0), shift=1), "a"), frame(values, "b")])
    verdicts = [aggregate.compare(rows, "m", "a", "b", better).verdict for better in (True, False, None)]
    assert verdicts == ["beats", "is beaten by", "not claimed: the metric has no better side"]
    assert aggregate.compare(rows, "m", "b", "a", True).verdict == "is beaten by"


def test_no_difference_is_said_where_the_interval_holds_zero():
    generator = np.random.default_rng(4)
    rows = pd.concat([frame(drawn(generator), "a"), frame(drawn(generator), "b")])
    found = aggregate.compare(rows, "m", "a", "b")
    assert found.estimate.low <= 0 <= found.estimate.high
    assert found.verdict == "no difference shown"


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
    assert aggregate.compare(rows, "m", "a", "b").verdict == "not compared: no video in common"


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
