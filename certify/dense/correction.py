"""Many pixels at once: tests and bounds whose family-wise error is at most alpha.

One noisy copy of an image gives every pixel a vote, so the counts of an image's N pixels depend on
each other in an unknown way. Both corrections hold under any dependence.

Holm: reject in the order of the p-values while the j-th is at most alpha / (N - j + 1).
Claim: P(some true hypothesis is rejected) <= alpha.
Proof. Let N0 hypotheses be true, and look at the first true one that is rejected. Before it at most
N - N0 (false ones) were rejected, so its p-value is at most alpha / N0. By the union bound some true
hypothesis has such a p-value with probability at most N0 * alpha / N0. S. Holm, "A simple sequentially
rejective multiple test procedure", Scand. J. Statist. 6 (1979).

Bonferroni: one-sided Clopper-Pearson bounds, each at level alpha / N.
Claim: P(some bound exceeds its pixel's probability) <= alpha. Proof: the union bound. The bounds hold
together, so anything may be read off them afterwards: every pixel its own radius.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certify.bounds import SMALLEST_ALPHA, binomial_lower, check_alpha, check_counts

#: Relative step up after evaluating a tail; the incomplete beta function is good to about 1e-14.
_UP = 1e-10


def p_values(votes: ArrayLike, n: int, threshold: float) -> np.ndarray:
    """P(Bin(n, threshold) >= votes) for every count, rounded up: the hypothesis is p <= threshold.

    ``votes``: whole numbers from 0 to n, any shape; float64 of the same shape, never below the smallest
    alpha that is accepted: tails beyond it are rounded up to it. Raises InvalidCounts.
    """
    found, place = _distinct(votes, n)
    tails = np.ones(len(found))
    some = found > 0
    if threshold < 1.0:
        tails[some] = special.betainc(found[some], n - found[some] + 1.0, threshold) * (1 + _UP)
    return np.clip(tails, SMALLEST_ALPHA, 1.0)[place]


def holm(p: ArrayLike, alpha: float) -> np.ndarray:
    """Which hypotheses Holm's procedure rejects at family-wise level ``alpha``: a mask like ``p``."""
    values = np.asarray(p, dtype=np.float64)
    alpha = check_alpha(alpha, shares=max(1, values.size))
    order = np.argsort(values, axis=None, kind="stable")
    left = values.size - np.arange(values.size)
    passed = np.minimum.accumulate(values.ravel()[order] * left <= alpha)
    rejected = np.zeros(values.size, dtype=bool)
    rejected[order] = passed
    return rejected.reshape(values.shape)


def simultaneous_lower(votes: ArrayLike, n: int, alpha: float) -> np.ndarray:
    """Lower bounds on every pixel's probability that hold together with probability >= 1 - alpha.

    ``votes`` as in ``p_values``; float64 of the same shape, rounded down.
    """
    pixels = max(1, np.asarray(votes).size)
    level = check_alpha(alpha, shares=pixels) / pixels
    found, place = _distinct(votes, n)
    return np.array([binomial_lower(int(k), n, level) for k in found])[place]


def _distinct(votes: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The different counts, and where each pixel finds its own among them."""
    counts = np.asarray(votes)
    found, place = np.unique(counts, return_inverse=True)
    for k in found[[0, -1]] if found.size else ():
        check_counts(k, n)
    return found, place.reshape(counts.shape)
