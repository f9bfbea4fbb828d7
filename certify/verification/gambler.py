"""The capital of a gambler against means, a second time: nothing is shared with ``certify.population``.

Any stakes that are chosen before an input is seen make the capital a fair test, so the stakes here need
not be equal to the certifier's to the last digit; they follow the same rule with normal quantiles from the
standard library. The capital may be looked at at any time: what counts is the largest it ever was.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()


def means_to_test(anticipated: float, variance: float, inputs: int) -> np.ndarray:
    """The means that are tested one after the other, by what was anticipated before the count."""
    width = 3.3 * math.sqrt(variance / inputs)
    near = [anticipated + width * (i / 100) for i in range(-200, 201)]
    far = [i / 200 for i in range(200)]
    values = near + [a for a in far if a < near[0] or a > near[-1]]
    return np.array(sorted(a for a in values if 0 <= a < 1))


def timed_log_capital(
    weights: np.ndarray, counts: np.ndarray, means: np.ndarray, alpha: float, variance: float
) -> np.ndarray:
    """The largest log(alpha times the capital) against each mean, over the ends of the blocks."""
    best = np.full(len(means), -math.inf)
    now, left, start = np.full(len(means), math.log(alpha)), len(counts), 0
    most = 0.95 / (means - min(weights) + 1e-300)
    while left:
        size = max(1, left // 48)
        seen, often = np.unique(counts[start : start + size], return_counts=True)
        for j in np.flatnonzero(best < 0.0):  # a goal that was reached stays reached
            price = min(now[j], 0.0) - math.log(1.05)
            z = quantile(price)
            stake = math.exp(-z * z / 2 - price) / math.sqrt(2 * math.pi * variance * left)
            now[j] += float(often @ np.log1p(min(stake, most[j]) * (weights[seen] - means[j])))
        best = np.maximum(best, now)
        start, left = start + size, left - size
    return best


def fixed_log_capital(
    weights: np.ndarray, histogram: np.ndarray, means: np.ndarray, alpha: float, stake: float
) -> np.ndarray:
    """log(alpha times the capital) against each mean of a gambler whose stake never changes."""
    out = []
    for a in means:
        s = min(stake, 0.95 / (a - min(weights) + 1e-300))
        gains = [
            k * math.log1p(s * (c - a))
            for c, k in zip(weights.tolist(), histogram.tolist(), strict=True)
            if k
        ]
        out.append(math.log(alpha) + math.fsum(gains))
    return np.array(out)


def quantile(log_p: float) -> float:
    """z with log Phi(z) = log_p; far in the tail by Newton's method on Mills' ratio."""
    if log_p > -600.0:
        return _NORMAL.inv_cdf(math.exp(log_p))
    z = -math.sqrt(-2 * log_p)
    for _ in range(8):
        value = -z * z / 2 - math.log(-z) - math.log(2 * math.pi) / 2 + math.log1p(-1 / z**2 + 3 / z**4)
        z += (value - log_p) / z
    return z
