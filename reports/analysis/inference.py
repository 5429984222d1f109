"""Inference over references: intervals, tests, corrections, power. Pure functions of one number per reference.

A benchmark is a sample of references. Cases and seeds of one reference are averaged first, so every function here takes
one mean, or one mean paired difference, per reference.
"""

import bisect
import functools
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
ALPHA = 0.05
RESAMPLES = 10_000
POWER = 0.80
EXACT_REFERENCES = 17
"""Largest number of references for which every pattern of signs is tried: 2^17 are fewer than `SIGN_FLIPS`."""
MANY = 1_000_000
"""Largest number of references that power is computed for."""
SIGN_FLIPS = 200_000
"""Number of random sign patterns for more references."""


def student_interval(means: np.ndarray) -> tuple[float, float]:
    """Student's 95% interval of the mean of float [n], one a reference; NaN for fewer than two references.

    For normal means its coverage is exact with any number of references. A bootstrap over few references cannot reach
    beyond the smallest and largest mean, so its interval contains the truth too rarely.
    """
    if len(means) < 2:
        return float("nan"), float("nan")
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    return float(np.mean(means) - reach), float(np.mean(means) + reach)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value of a paired sign-flip test of mean difference 0, for float [n], one a reference.

    Under the null hypothesis that a difference is as likely as its opposite, every pattern of signs is equally likely.
    The p-value is the share of patterns whose mean is at least as far from 0 as the observed one. Up to
    `EXACT_REFERENCES` references all patterns are tried, above that `SIGN_FLIPS` random ones (Ernst, "Permutation
    Methods", 2004).

    Returns:
        p in (0, 1], at least 2 / 2^n for n references if every pattern is tried; NaN without a reference.
    """
    if not len(differences):
        return float("nan")
    if len(differences) == 1:
        return 1.0
    test = stats.permutation_test(
        (differences,),
        lambda x, axis: np.abs(np.mean(x, axis=axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf if len(differences) <= EXACT_REFERENCES else SIGN_FLIPS,
        vectorized=True,
        batch=10_000,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family of tests (Holm, 1979); the family-wise error of those below .05 is 5%.

    Args:
        p_values: p-values, one per test; NaN for a test that could not be made, which stays NaN but counts in the
            family.
    """
    count = len(p_values)
    order = np.argsort([np.inf if np.isnan(p) else p for p in p_values], kind="stable")
    adjusted, reached = [float("nan")] * count, 0.0
    for rank, index in enumerate(order):
        if not np.isnan(p_values[index]):
            reached = max(reached, min(1.0, (count - rank) * p_values[index]))
            adjusted[index] = reached
    return adjusted


def detectable(spread: float, references: int, power: float = POWER, level: float = ALPHA) -> float:
    """Smallest true mean difference that a two-sided paired t-test finds with the given power, in the unit of `spread`.

    `spread` is the standard deviation of the differences between references. NaN for fewer than two references.
    """
    if references < 2 or not np.isfinite(spread):
        return float("nan")
    freedom = references - 1
    critical = stats.t.ppf(1 - level / 2, freedom)
    # The tail of the other side is left out, because at this power it is far below a thousandth.
    shift = special.nctdtrinc(freedom, 1 - power, critical)
    return float(shift * spread / np.sqrt(references))


def references_needed(spread: float, difference: float, level: float = ALPHA, power: float = POWER) -> int:
    """Smallest number of references with which a two-sided paired t-test finds a mean difference above 0.

    Spread, level and power are those of `detectable`.

    Returns:
        A number from 2 to `MANY`, which stands for all larger ones as well.
    """
    many = range(2, MANY)
    return 2 + bisect.bisect_left(many, True, key=lambda count: detectable(spread, count, power, level) <= difference)


def equivalence_p(differences: np.ndarray, margin: float) -> float:
    """p-value of the claim that the mean difference lies within -margin to margin: two one-sided t-tests.

    It is the larger p of the two tests: that the mean is above -margin, and that it is below margin (Schuirmann, 1987).

    Args:
        differences: Differences, float [n], one per reference.
        margin: Margin, above 0.

    Returns:
        p in [0, 1]; NaN for fewer than two references.
    """
    if len(differences) < 2:
        return float("nan")
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    room = margin - abs(np.mean(differences))
    if error == 0:
        return 0.0 if room > 0 else 1.0
    return float(stats.t.sf(room / error, len(differences) - 1))


def resampled_ranks(means: np.ndarray, draws: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Ranks of methods in bootstrap resamples of the references.

    Args:
        means: Means, float [methods, references].
        draws: Number of times that each reference is drawn, [resamples, references].
        higher_is_better: True if the largest mean ranks first.

    Returns:
        Ranks, [resamples, methods], from 1 (best); methods that tie share the mean of their ranks.
    """
    resampled = draws @ means.T
    return stats.rankdata(-resampled if higher_is_better else resampled, axis=1)


@functools.cache
def cluster_weights(clusters: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Number of times that each reference is drawn in each bootstrap resample, int [resamples, clusters], read-only.

    The weights serve statistics without a closed form, such as rank correlations. All statistics with the same number
    of references get the same weights, so that no interval depends on the others that are computed.
    """
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    weights.flags.writeable = False
    return weights


def percentile_interval(statistics: np.ndarray, clusters: int) -> tuple[float, float]:
    """Expanded percentile interval of bootstrap statistics, float [resamples]; NaN values are left out.

    A plain percentile interval over few references is too narrow. The tails are therefore cut further out, so that the
    coverage is 95% for means of normal references (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
    `clusters` is the number of references, 2 or more.
    """
    statistics = statistics[np.isfinite(statistics)]
    if not len(statistics):
        return float("nan"), float("nan")
    reach = np.sqrt(clusters / (clusters - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1)
    low, high = np.quantile(statistics, [stats.norm.sf(reach), stats.norm.cdf(reach)])
    return float(low), float(high)
