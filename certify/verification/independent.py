"""A second arithmetic for the verifier: nothing here is shared with the code that certifies.

The certifier inverts incomplete beta functions (scipy). Here a bound is *checked* rather than
computed: p is a valid lower bound for k successes in n trials at level alpha exactly if
P(Bin(n, p) >= k) <= alpha, and that tail is summed term by term. Normal quantiles come from the
standard library (Wichura's AS241). Only numpy and the standard
library are imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
#: Terms below this share of the sum so far no longer change it.
_NEGLIGIBLE = 1e-20
#: Entries of a carried law up to this are cut off at its ends.
_CUT = 1e-30
#: More than one look loses: the entries cut off, and increments outside their window (Bernstein: 1e-38).
_OUTSIDE = 1e-22
#: Most trials of one binomial law that are summed; terms that are summed at once.
MOST_TRIALS, _BLOCK = 10**9, 1 << 14


class Work:
    """How much arithmetic is left; a table that would take hours is refused, not computed."""

    def __init__(self, left: float) -> None:
        self.left = left

    def spend(self, cost: float) -> None:
        """Raise OverflowError where nothing is left."""
        self.left -= cost
        if self.left < 0:
            raise OverflowError("the table takes more arithmetic than any plan of a run")


def tail_at_least(k: int, n: int, p: float, share: float = 1.0) -> float:
    """P(Bin(n, p) >= k), summed from its largest term outward; relative error about 1e-10.

    ``share``: of the probability of k itself only so much counts.
    Raises OverflowError for more trials than are summed in reasonable time (``MOST_TRIALS``).
    """
    if n > MOST_TRIALS:
        raise OverflowError(f"{n} samples are more than are recomputed here ({MOST_TRIALS:,})")
    if share < 1.0:
        return share * tail_at_least(k, n, p) + (1.0 - share) * tail_at_least(k + 1, n, p)
    if k <= 0:
        return 1.0
    if k > n or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    mean = n * p
    if k <= mean:  # the other side is the short one
        return max(0.0, 1.0 - tail_at_most(k - 1, n, p))
    return _geometric_sum(k, n, p, upward=True)


def tail_at_most(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), the mirror image of ``tail_at_least``."""
    if n > MOST_TRIALS:
        raise OverflowError(f"{n} samples are more than are recomputed here ({MOST_TRIALS:,})")
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    if k >= n * p:
        return max(0.0, 1.0 - tail_at_least(k + 1, n, p))
    return _geometric_sum(k, n, p, upward=False)


def lower_bound(k: int, n: int, alpha: float, share: float = 1.0) -> float:
    """Largest p (to 2**-60) with P(Bin(n, p) >= k) <= alpha, by bisection; ``share`` as ``tail_at_least``."""
    if k == 0:
        return 0.0
    low, high = 0.0, k / n if share == 1.0 else 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if tail_at_least(k, n, middle, share) <= alpha:
            low = middle
        else:
            high = middle
    return low


def upper_bound(k: int, n: int, alpha: float) -> float:
    """Smallest p with P(Bin(n, p) <= k) <= alpha; the mirror image of ``lower_bound``."""
    return 1.0 - lower_bound(n - k, n, alpha)


def quantile(p: float) -> float:
    """Phi^-1(p) for 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def normal_radius(p: float, sigma: float) -> float:
    """sigma * Phi^-1(p); 0 for p <= 1/2."""
    return sigma * _NORMAL.inv_cdf(p) if p > 0.5 else 0.0


def ever_reached(
    looks: Sequence[int],
    accept: Sequence[int],
    p: float,
    *,
    mirrored: Sequence[int] | None = None,
    work: Work | None = None,
) -> float:
    """P(a class of probability p has at least accept[j] of looks[j] votes for some j), rounded up.

    With ``mirrored`` also the event that all other votes together reach mirrored[j]. The count's
    distribution is carried from look to look by convolution; what has crossed is taken out. Mass
    outside the carried window is counted as crossed. Raises OverflowError where ``work`` is used up.
    """
    law, first, n, crossed = np.ones(1), 0, 0, 0.0
    for j, look in enumerate(looks):
        if look > MOST_TRIALS:
            raise OverflowError(f"{look} samples are more than are recomputed here ({MOST_TRIALS:,})")
        start, pmf = _increment(look - n, p)
        if work is not None:
            work.spend(len(law) * len(pmf))
        law, first, n = np.convolve(law, pmf), first + start, look
        counts = np.arange(first, first + len(law))
        out = counts >= accept[j]
        if mirrored is not None:
            out |= look - counts >= mirrored[j]
        crossed += math.fsum(law[out])
        kept = np.flatnonzero(~out & (law > _CUT))
        if not len(kept):
            break
        law, first = np.where(out, 0.0, law)[kept[0] : kept[-1] + 1], first + int(kept[0])
    return min(1.0, crossed + _OUTSIDE * len(looks))


def _geometric_sum(k: int, n: int, p: float, *, upward: bool) -> float:
    """Sum of binomial probabilities from k away from the mean, each from its neighbour."""
    term = total = math.exp(_log_pmf(k, n, p))
    odds, i, many = p / (1 - p), k, 32
    while i < n if upward else i > 0:
        many = min(2 * many, _BLOCK)
        steps = np.arange(i, min(n, i + many)) if upward else np.arange(i, max(0, i - many), -1)
        terms = term * np.cumprod(
            (n - steps) / (steps + 1) * odds if upward else steps / (n - steps + 1) / odds
        )
        total += float(terms.sum())
        term = float(terms[-1])
        i += len(steps) if upward else -len(steps)
        if term <= _NEGLIGIBLE * total:  # also where both are below the smallest number
            break
    return min(1.0, total)


def _log_pmf(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def _increment(m: int, p: float) -> tuple[int, np.ndarray]:
    """(first count, probabilities) of Bin(m, p) within 14 standard deviations and 60 counts of the mean."""
    if p <= 0.0 or p >= 1.0:
        return (0 if p <= 0.0 else m), np.ones(1)
    reach = 60 + 14 * math.sqrt(m * p * (1 - p))
    first, last = max(0, math.floor(m * p - reach)), min(m, math.ceil(m * p + reach))
    mode = min(max(int((m + 1) * p), first), last)
    i = np.arange(mode, last)
    right = np.cumprod((m - i) / (i + 1) * (p / (1 - p)))
    i = np.arange(mode, first, -1)
    left = np.cumprod(i / (m - i + 1) * ((1 - p) / p))
    values = np.concatenate([left[::-1], [1.0], right])
    return first, values / math.fsum(values)
