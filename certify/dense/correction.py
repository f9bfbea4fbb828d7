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

With ``wrong`` = w > 0 both allow that many mistakes in an image (the (w + 1)-family-wise error). k = w + 1.
Step-down: reject in the order of the p-values while the j-th is at most k alpha / (N + k - max(j, k)).
Claim: P(more than w true hypotheses are rejected) <= alpha.
Proof. Let N0 > w hypotheses be true, and let the k-th true one be rejected in place j. Before it at most
N - N0 false ones were, and w true ones, so k <= j <= N - N0 + k, and its p-value is at most
k alpha / (N + k - j) <= k alpha / N0. So are those of the true ones before it: k true hypotheses have
p-values of at most k alpha / N0. Of N0 true ones at most k alpha are expected to have such, so by Markov's
inequality k of them do with probability at most alpha.
Bounds at level k alpha / N each: at most k alpha of them are expected to fail, so k do with probability at
most alpha. E. L. Lehmann and J. P. Romano, "Generalizations of the familywise error rate", Ann. Statist. 33
(2005), Theorems 2.1 and 2.2.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certify.bounds import SMALLEST_ALPHA, binomial_lower, check_alpha, check_counts
from certify.calls import checked
from certify.limits import within

#: Relative step up after evaluating a tail; the incomplete beta function is good to about 1e-14.
_UP = 1e-10


@checked
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


@checked
def most_wrong_pixels(tolerate: float, pixels: int) -> int:
    """How many of ``pixels`` may be wrong where the share ``tolerate`` may: rounded down.

    The share counts as the decimal number that it is printed as: 0.001 of 1,000 pixels is one pixel.
    """
    return math.floor(Fraction(repr(float(tolerate))) * pixels)


@checked
def holm(p: ArrayLike, alpha: float, *, wrong: int = 0) -> np.ndarray:
    """Which hypotheses Holm's procedure rejects at family-wise level ``alpha``: a mask like ``p``.

    ``wrong``: how many of the rejected ones may be true (Lehmann and Romano's step-down procedure).
    """
    values = np.asarray(p, dtype=np.float64)
    alpha = check_alpha(alpha, shares=max(1, values.size))
    order = np.argsort(values, axis=None, kind="stable")
    within("wrong", wrong, 0, math.inf, "a number of mistakes")
    left = values.size - np.maximum(np.arange(values.size) - min(int(wrong), values.size), 0)
    passed = np.minimum.accumulate(values.ravel()[order] * left <= alpha * (wrong + 1))
    rejected = np.zeros(values.size, dtype=bool)
    rejected[order] = passed
    return rejected.reshape(values.shape)


@checked
def simultaneous_lower(votes: ArrayLike, n: int, alpha: float, *, wrong: int = 0) -> np.ndarray:
    """Lower bounds on every pixel's probability that hold together with probability >= 1 - alpha.

    ``votes`` as in ``p_values``; float64 of the same shape, rounded down. ``wrong``: all but at most so many.
    """
    pixels = max(1, np.asarray(votes).size)
    within("wrong", wrong, 0, math.inf, "a number of mistakes")
    level = check_alpha(alpha, shares=pixels) / pixels * min(wrong + 1, pixels)
    found, place = _distinct(votes, n)
    return np.array([binomial_lower(int(k), n, level) for k in found])[place]


def _distinct(votes: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The different counts, and where each pixel finds its own among them."""
    counts = np.asarray(votes)
    found, place = np.unique(counts, return_inverse=True)
    for k in found[[0, -1]] if found.size else ():
        check_counts(k, n)
    return found, place.reshape(counts.shape)
