"""Lower bounds on the mean of weights by betting against smaller means.

Against "the mean is at most a" a gambler stakes s_t >= 0 on each input before he sees it. His capital
prod_t (1 + s_t (x_t - a)), at first 1, is a nonnegative supermartingale if that is true, so it
reaches 1/alpha with probability <= alpha (Ville 1939). How he chooses the stakes is his own affair;
the means are tested in increasing order, up to the first that is not refuted. If mu is the mean, more
than mu is claimed only if the first mean above mu is refuted: one test, one alpha.
Waudby-Smith and Ramdas, JRSS B 86 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: A block of inputs, on which stakes do not change, is this part of the inputs that are left.
_PART = 48
#: No stake can lose more than this share of the capital on one input.
_MOST = 0.95
#: The goal is aimed at from above by this share: at the end no stake is left to hit it exactly.
_ABOVE = 0.05
#: Capital counts as 1/alpha if it is more by this much: more than the rounding of any product here.
_OUTWARD = 1e-9


def means_to_test(anticipated: float, width: float) -> np.ndarray:
    """Means in [0, 1), increasing: close together around the anticipated bound, further apart elsewhere."""
    near = anticipated + width * np.arange(-200, 201) / 100
    far = np.arange(200) / 200
    values = np.concatenate([near, far[(far < near[0]) | (far > near[-1])]])
    return np.unique(values[(values >= 0) & (values < 1)])


def in_blocks(counts: np.ndarray, n: int) -> list[np.ndarray]:
    """Histograms (n + 1,) of the counts over consecutive blocks of inputs; stakes change between blocks."""
    found, start = [], 0
    while start < len(counts):
        size = max(1, (len(counts) - start) // _PART)
        found.append(np.bincount(counts[start : start + size], minlength=n + 1))
        start += size
    return found


def timed_bets(
    weights: np.ndarray, blocks: Sequence[np.ndarray], means: np.ndarray, alpha: float, variance: float
) -> float:
    """The largest of ``means`` up to which all are refuted, 0 if none; for independent draws of inputs.

    ``weights``: (n + 1,) per count. ``blocks``: histograms of the inputs' counts, in an order that does not
    depend on them. ``means``: increasing, from 0. ``variance``: of an input's weight, as far as known
    beforehand; it only steers the stakes.
    """
    return _before_first_failure(means, log_shares(weights, blocks, means, alpha, variance))


def log_shares(
    weights: np.ndarray, blocks: Sequence[np.ndarray], means: np.ndarray, alpha: float, variance: float
) -> np.ndarray:
    """log(alpha times the capital) against each of the means, (len(means),): 0 or more refutes.

    The gambler knows that the game ends with the last block. For sums that move like a Brownian motion he
    plays the hedge of an option that pays 1/alpha if the sum ends above its alpha quantile: so all his
    capital lies where it counts, while a fixed stake wastes what it wins beyond 1/alpha. ``blocks``
    may hold arrays (len(means), n + 1): one series of inputs per mean.
    """
    from scipy import special

    value = np.full(len(means), math.log(alpha))
    most, left = _most(weights, means), sum(int(block.reshape(-1, len(weights))[0].sum()) for block in blocks)
    for block in blocks:
        price = np.minimum(value, 0.0) - math.log1p(_ABOVE)
        depth = special.ndtri_exp(price)
        stake = np.exp(-(depth**2) / 2 - price) / math.sqrt(2 * math.pi * variance * left)
        stake = np.where(value >= _OUTWARD, 0.0, np.minimum(stake, most))
        seen = np.flatnonzero(block.reshape(-1, len(weights)).any(axis=0))
        gains = np.log1p(stake[:, None] * (weights[seen] - means[:, None]))
        value = value + (gains * block[..., seen]).sum(axis=-1)
        left -= int(block.reshape(-1, len(weights))[0].sum())
    return value


def fixed_bet(
    weights: np.ndarray, histogram: np.ndarray, means: np.ndarray, alpha: float, stake: float
) -> float:
    """As ``timed_bets`` with one stake for all inputs; also for a random subset of a finite set of inputs.

    The capital is a product of g_i = 1 + stake (x_i - a) >= 0 that knows no order, so one ``histogram``
    (n + 1,) is enough. For independent values with means mu_i its mean is a product of
    1 + stake (mu_i - a), at most the power of their average; over random subsets of a given size such
    products average to at most the power of the average over the whole set (Maclaurin's
    inequality). So it suffices that the set's average is at most a.
    """
    seen = np.flatnonzero(histogram)
    stakes = np.minimum(stake, _most(weights, means))
    gains = np.log1p(stakes[:, None] * (weights[seen] - means[:, None])) @ histogram[seen]
    return _before_first_failure(means, math.log(alpha) + gains)


def _most(weights: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The largest stakes: what is left of the capital stays positive whatever count comes."""
    return _MOST / np.maximum(means - float(weights.min()), 1e-12)


def _before_first_failure(means: np.ndarray, value: np.ndarray) -> float:
    """Not a number is no success either."""
    failed = ~(value >= _OUTWARD)
    count = int(np.argmax(failed)) if failed.any() else len(means)
    return float(means[count - 1]) if count else 0.0
