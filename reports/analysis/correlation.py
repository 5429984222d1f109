"""Spearman's rank correlation in thousands of bootstrap resamples."""

import numpy as np

RESAMPLES_AT_ONCE = 500
FEW_CLUSTERS = 20
"""Largest ratio of clusters^3 to observations at which sums over clusters are faster than sums over observations."""


def clustered_spearman(left: np.ndarray, right: np.ndarray, cluster: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Spearman's rho in resamples that draw whole clusters, float [B]; NaN where a side does not vary.

    Args:
        left: Values, float [N].
        right: Values, float [N].
        cluster: Cluster of each observation, int [N], 0 to K - 1, none of them empty.
        draws: Number of times that each cluster is drawn, int [B, K], each row with a positive sum.
    """
    if draws.shape[1] ** 3 <= FEW_CLUSTERS * len(left):
        return _correlations(*_cluster_sums(left, right, cluster, draws))
    parts = np.split(draws, range(RESAMPLES_AT_ONCE, len(draws), RESAMPLES_AT_ONCE))
    return np.concatenate([weighted_spearman(left, right, part[:, cluster]) for part in parts])


def _cluster_sums(left: np.ndarray, right: np.ndarray, cluster: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Squares of ranks, left and right, and their products, summed over each resample: float [3, B].

    An observation's rank, less the mean rank, is a sum over clusters of how it ranks among that cluster's observations,
    times how often the cluster is drawn. So each sum is cubic in the draws, with coefficients [K, K, K] that are summed
    over the observations once for all resamples. They are multiples of a quarter, so that no bit is lost below
    2^51 of them.
    """
    count, times = draws.shape[1], draws.astype(float)
    one, other = (_ranks_among(side, cluster, count) for side in (left, right))
    sums = np.zeros((3, len(draws)))
    for place in range(count):
        mine = cluster == place
        for row, (first, second) in enumerate(((one, one), (other, other), (one, other))):
            inner = times @ (first[mine].T @ second[mine])
            sums[row] += times[:, place] * np.einsum("bk,bk->b", inner, times)
    return sums


def _ranks_among(values: np.ndarray, cluster: np.ndarray, count: int) -> np.ndarray:
    """Rank of each value among those of each cluster, with mid-ranks for ties, less the mean rank: float [N, K]."""
    ranks = np.empty((len(values), count))
    for place in range(count):
        among = np.sort(values[cluster == place])
        below, up_to = (np.searchsorted(among, values, side) for side in ("left", "right"))
        ranks[:, place] = (below + up_to - len(among)) / 2
    return ranks


def weighted_spearman(left: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's rho as if observation i occurred `weights[b, i]` times in resample b.

    Values are float [N], weights int [B, N], each row with a positive sum.

    Returns:
        Correlations, float [B]; NaN where a side does not vary.
    """
    total = weights.sum(axis=1, keepdims=True)
    # With mid-ranks for ties, the mean rank is half the number of observations.
    one, other = (_weighted_ranks(side, weights) - total / 2 for side in (left, right))
    sums = ((weights * first * second).sum(axis=1) for first, second in ((one, one), (other, other), (one, other)))
    return _correlations(*sums)


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks (from 0) of values that occur several times: float [B, N]."""
    order = np.argsort(values, kind="stable")
    _, first, group = np.unique(values[order], return_index=True, return_inverse=True)
    mass = np.add.reduceat(weights[:, order], first, axis=1)
    ranks = np.empty(weights.shape)
    ranks[:, order] = (np.cumsum(mass, axis=1) - mass / 2)[:, group]
    return ranks


def _correlations(left: np.ndarray, right: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Correlations from sums of squares and of products."""
    varies = np.minimum(left, right) > 1e-9
    return np.divide(both, np.sqrt(left * right), out=np.full(len(both), np.nan), where=varies)
