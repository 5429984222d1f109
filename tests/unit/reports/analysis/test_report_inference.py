"""Intervals, tests and corrections over references, against slow or independent computations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.analysis.inference import (
    MANY,
    detectable,
    equivalence_p,
    holm,
    references_needed,
    resampled_ranks,
    sign_flip_p,
    student_interval,
)

DRAWS = {"normal": lambda g, shape: g.normal(size=shape), "exponential": lambda g, shape: g.exponential(size=shape) - 1}


def coverage(kind: str, references: int, draws: int = 4_000) -> float:
    samples = DRAWS[kind](np.random.default_rng(references), (draws, references))
    ends = [student_interval(sample) for sample in samples]
    return float(np.mean([low <= 0 <= high for low, high in ends]))


@pytest.mark.parametrize("references", [3, 4, 6, 8, 12, 24, 48])
def test_the_interval_holds_the_truth_as_often_as_it_says_for_normal_references(references):
    assert coverage("normal", references) >= 0.94


@pytest.mark.parametrize(("references", "least"), [(2, 0.87), (6, 0.86), (12, 0.89), (24, 0.91), (48, 0.92)])
def test_the_interval_of_skewed_references_loses_what_the_documents_say(references, least):
    assert coverage("exponential", references) >= least


def test_the_interval_is_scipys():
    means = np.random.default_rng(1).normal(size=9)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert student_interval(means) == pytest.approx((expected.low, expected.high))
    assert np.isnan(student_interval(means[:1])).all()


def slow_sign_flip(differences: np.ndarray) -> float:
    observed = abs(differences.mean()) * (1 - 1e-12)
    patterns = itertools.product((-1, 1), repeat=len(differences))
    return float(np.mean([abs((differences * signs).mean()) >= observed for signs in patterns]))


@pytest.mark.parametrize("references", [2, 5, 9])
def test_the_sign_flip_test_tries_every_pattern(references):
    differences = np.random.default_rng(references).normal(0.4, 1, references)
    assert sign_flip_p(differences) == pytest.approx(slow_sign_flip(differences))


def test_the_smallest_p_is_that_of_one_sign_and_its_opposite():
    assert sign_flip_p(np.full(6, 0.2)) == pytest.approx(2 / 2**6)
    assert sign_flip_p(np.ones(1)) == 1.0
    assert np.isnan(sign_flip_p(np.ones(0)))


def test_many_references_are_drawn_from_with_a_seed():
    differences = np.random.default_rng(3).normal(0.35, 1, 24)
    p = sign_flip_p(differences)
    assert p == sign_flip_p(differences) != sign_flip_p(differences, seed=1)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)


def test_the_sign_flip_test_errs_as_seldom_as_it_says():
    generator = np.random.default_rng(5)
    found = [sign_flip_p(generator.normal(size=7)) for _ in range(600)]
    assert np.mean(np.array(found) <= 0.05) <= 0.07


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, float("nan")]) == pytest.approx([0.04, float("nan")], nan_ok=True)
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_p(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


@pytest.mark.parametrize("references", [3, 6, 24])
def test_a_difference_that_is_detectable_is_found_four_times_in_five(references):
    difference = detectable(2.0, references)
    samples = np.random.default_rng(references).normal(difference, 2.0, (4_000, references))
    assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.02)
    assert np.isnan(detectable(1.0, 1))


@pytest.mark.parametrize(("difference", "level"), [(0.1, 0.05), (1.5, 0.003), (20.0, 0.05)])
def test_the_references_needed_are_the_fewest_that_suffice(difference, level):
    count = references_needed(1.0, difference, level)
    assert detectable(1.0, count, level=level) <= difference
    assert count == 2 or detectable(1.0, count - 1, level=level) > difference


def test_a_difference_out_of_reach_needs_as_many_as_are_looked_at():
    assert references_needed(1.0, 1e-6) == MANY and references_needed(0.0, 0.1) == 2


@pytest.mark.parametrize("shift", [0.0, 0.03, -0.03, 0.07])
def test_equivalence_is_the_worse_of_two_one_sided_tests(shift):
    differences = np.array([0.01, -0.02, 0.015, 0.0, -0.01, 0.005]) + shift
    sides = [
        stats.ttest_1samp(differences, -0.05, alternative="greater").pvalue,
        stats.ttest_1samp(differences, 0.05, alternative="less").pvalue,
    ]
    assert equivalence_p(differences, 0.05) == pytest.approx(max(sides))


def test_equivalence_of_equal_numbers_and_of_one_number():
    assert equivalence_p(np.full(5, 0.04), 0.05) == 0 and equivalence_p(np.full(5, 0.06), 0.05) == 1
    assert np.isnan(equivalence_p(np.array([0.0]), 0.05))


def test_ranks_in_resamples():
    means = np.array([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    draws = np.array([[2, 0], [0, 2], [1, 1]])
    assert resampled_ranks(means, draws, True).tolist() == [[1, 2.5, 2.5], [3, 1.5, 1.5], [2, 2, 2]]
    assert resampled_ranks(means, draws, False).tolist()[0] == [3, 1.5, 1.5]
