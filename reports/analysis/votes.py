"""Paired votes: strengths after Bradley and Terry, and agreement of raters after Krippendorff. Pure functions."""

import numpy as np
from scipy.sparse import csgraph

PRIOR = 0.5
"""Wins that are added to each side of every two things that were compared; without them a thing that wins all its
comparisons has no finite strength."""

_STEPS = 100
_LONGEST = 2.0  # change of a strength in one step
_SETTLED = 1e-9


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths by which each thing is preferred to another with odds exp(difference).

    They maximise the likelihood of the model P(i over j) = 1 / (1 + exp(s_j - s_i)) (Bradley and Terry, 1952), a tie
    counting as half a win for both, with `PRIOR` added. Newton's method with bounded steps.

    Args:
        wins: Number of times that i was preferred to j, float [..., n, n]; halves for ties. Resamples may have other
            numbers, but the same pairs are compared in all.

    Returns:
        Strengths with mean 0, float [..., n]; NaN if some things cannot be compared, not even through others.
    """
    count = wins.shape[-1]
    compared = (wins + np.swapaxes(wins, -1, -2)).reshape(-1, count, count).sum(axis=0) > 0
    np.fill_diagonal(compared, False)
    if csgraph.connected_components(compared, directed=False)[0] > 1:
        return np.full(wins.shape[:-1], np.nan)
    wins = np.where(compared, wins + PRIOR, 0.0)
    met = wins + np.swapaxes(wins, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))
        slope = (wins - met * share).sum(axis=-1)
        bend = met * share * (1 - share)
        # The ones fix the mean, which no comparison does.
        curve = np.eye(count) * bend.sum(axis=-1)[..., None] - bend + 1.0
        step = np.clip(np.linalg.solve(curve, slope[..., None])[..., 0], -_LONGEST, _LONGEST)
        strengths += step - step.mean(axis=-1, keepdims=True)
        if np.abs(step).max() < _SETTLED:
            return strengths
    raise ArithmeticError("strengths: Newton's method did not settle")


def krippendorff_alpha(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Agreement of raters beyond chance, with squared differences as distances (Krippendorff, 2004, interval data).

    1 is full agreement, 0 what chance gives, below 0 less. A thing that fewer than two raters saw says nothing.

    Args:
        values: Ratings, float [things, raters]; NaN where a rater gave none.
        weights: Number of times that each thing counts in each resample, [resamples, things].

    Returns:
        Alpha of each resample, float [resamples]; NaN where no two ratings of a thing are there, or all are equal.
    """
    levels = np.unique(values[np.isfinite(values)])
    counts = (values[:, :, None] == levels).sum(axis=1).astype(float)
    raters = counts.sum(axis=1)
    seen = raters >= 2
    counts, raters, weights = counts[seen], raters[seen], np.asarray(weights, float)[:, seen]
    apart = (levels[:, None] - levels) ** 2
    inside = np.einsum("ua,ab,ub->u", counts, apart, counts) / np.maximum(raters - 1, 1)
    total, marginal = weights @ raters, weights @ counts
    among = np.einsum("ba,ac,bc->b", marginal, apart, marginal)
    # (sum inside / n) / (sum among / (n (n - 1))), of ordered pairs of ratings.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - np.where(among > 0, (weights @ inside) * (total - 1) / among, np.nan))
