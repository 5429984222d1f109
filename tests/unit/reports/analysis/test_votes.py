"""Strengths and agreement of paired votes, against published numbers and slow or independent computations."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from reports.analysis.votes import PRIOR, bradley_terry, krippendorff_alpha

# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section E: four observers, twelve units.
ABSENT = np.nan
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, ABSENT, ABSENT, ABSENT],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, ABSENT, 3],
        [ABSENT, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, ABSENT],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, ABSENT],
    ]
).T


def slow_strengths(wins: np.ndarray) -> np.ndarray:
    """The likelihood, pair by pair, by a general optimiser."""
    count = len(wins)
    pairs = [(i, j) for i, j in itertools.permutations(range(count), 2) if wins[i, j] + wins[j, i] > 0]

    def loss(strengths):
        return sum((wins[i, j] + PRIOR) * np.log1p(np.exp(strengths[j] - strengths[i])) for i, j in pairs)

    found = optimize.minimize(loss, np.zeros(count), method="BFGS", options={"gtol": 1e-8}).x
    return found - found.mean()


@pytest.mark.parametrize("seed", range(4))
def test_strengths_are_those_of_the_largest_likelihood(seed):
    generator = np.random.default_rng(seed)
    wins = np.triu(generator.integers(0, 9, (5, 5)) / 2, 1)
    wins += np.triu(generator.integers(0, 9, (5, 5)) / 2, 1).T
    assert bradley_terry(wins) == pytest.approx(slow_strengths(wins), abs=1e-4)


def test_two_methods_have_the_log_odds_of_their_votes():
    found = bradley_terry(np.array([[0, 29.5], [9.5, 0]]))
    assert found == pytest.approx([np.log(30 / 10) / 2, -np.log(30 / 10) / 2])


def test_who_wins_everything_is_finite_and_resamples_are_independent():
    wins = np.zeros((2, 3, 3))
    wins[0, 0, 1] = wins[0, 0, 2] = wins[0, 1, 2] = 400
    wins[1, 0, 1] = wins[1, 1, 0] = 5
    found = bradley_terry(wins)
    assert np.isfinite(found).all() and found[0, 0] > found[0, 1] + 3 > found[0, 2] + 6
    assert found[1, 0] == pytest.approx(found[1, 1])


def test_methods_that_never_met_even_through_others_have_no_strength():
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[2, 3] = 3
    assert np.isnan(bradley_terry(wins)).all()
    wins[1, 2] = 1
    assert np.isfinite(bradley_terry(wins)).all()


def slow_alpha(values: np.ndarray) -> float:
    """Krippendorff's definition: disagreement inside things over disagreement among all pairable ratings."""
    kept = [row[np.isfinite(row)] for row in values if np.isfinite(row).sum() > 1]
    total = sum(map(len, kept))
    inside = sum((a - b) ** 2 / (len(row) - 1) for row in kept for a, b in itertools.permutations(row, 2))
    among = sum((a - b) ** 2 for a, b in itertools.permutations(np.concatenate(kept), 2))
    return 1 - (inside / total) / (among / (total * (total - 1)))


def test_alpha_is_the_published_one_of_the_published_example():
    assert krippendorff_alpha(PUBLISHED, np.ones((1, 12)))[0] == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_resamples_is_that_of_the_things_drawn():
    draws = np.random.default_rng(0).integers(0, 12, (5, 12))
    weights = np.stack([np.bincount(drawn, minlength=12) for drawn in draws])
    expected = [slow_alpha(PUBLISHED[drawn]) for drawn in draws]
    assert krippendorff_alpha(PUBLISHED, weights) == pytest.approx(expected)


def test_alpha_of_chance_is_0_and_of_no_variation_not_defined():
    votes = np.random.default_rng(1).choice([0, 0.5, 1], (4_000, 3))
    assert krippendorff_alpha(votes, np.ones((1, 4_000)))[0] == pytest.approx(0, abs=0.03)
    assert np.isnan(krippendorff_alpha(np.ones((3, 2)), np.ones((1, 3))))
    assert np.isnan(krippendorff_alpha(np.array([[1.0, np.nan]]), np.ones((1, 1))))
