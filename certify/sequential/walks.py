"""The law of a count that is watched at fixed looks: exact dynamic programme.

A class of probability p has the count K_j ~ Bin(n_j, p) after n_j samples, with independent
increments. ``Walk`` carries the distribution of K_j from look to look while mass that leaves
through a boundary is taken out. Every array is a window of the counts that matter; mass outside
the window is not forgotten but collected in ``lost``, so that ``crossed + lost`` is an upper
bound on a crossing probability.

Accuracy: probabilities are sums and products of positive numbers, so the relative error after
all looks stays below ``SAFETY``; every test inflates its error by that factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

#: Relative inflation of computed probabilities: far above the rounding of a whole programme.
SAFETY = 1e-9
#: A window leaves out at most this much mass on each side (Bernstein's inequality).
_TAIL = 1e-18


class Walk:
    """The sub-distribution of a binomial count after the looks taken so far.

    ``mass[i]`` is the probability that the count is ``low + i`` after ``n`` samples and that no
    boundary was crossed before. ``lost`` is the mass cut off at the window's edges.
    """

    def __init__(self, p: float) -> None:
        self.p = p
        self.n = 0
        self.low = 0
        self.mass = np.ones(1)
        self.lost = 0.0

    def step(self, n: int) -> None:
        """Move on to ``n`` samples (n larger than before)."""
        if not len(self.mass):
            self.n = n
            return
        low, pmf = binomial_window(n - self.n, self.p)
        self.mass = np.convolve(self.mass, pmf)
        self.low += low
        self.n = n
        self.lost += 2 * _TAIL
        first, last = _window(n, self.p)
        self._trim(first, last)

    def tail(self, k: int) -> float:
        """P(count >= k, nothing crossed before), inside the window."""
        return float(self.mass[max(0, k - self.low) :].sum())

    def absorb_above(self, k: int) -> float:
        """Take out the mass at counts >= k and return it."""
        out = self.tail(k)
        self.mass = self.mass[: max(0, k - self.low)]
        return out

    def absorb_below(self, k: int) -> float:
        """Take out the mass at counts <= k and return it."""
        cut = max(0, k - self.low + 1)
        out = float(self.mass[:cut].sum())
        self.mass = self.mass[cut:]
        self.low += cut
        return out

    def remaining(self) -> float:
        return float(self.mass.sum())

    def _trim(self, first: int, last: int) -> None:
        left = max(0, first - self.low)
        right = max(0, self.low + len(self.mass) - 1 - last)
        if left:
            self.lost += float(self.mass[:left].sum())
            self.mass = self.mass[left:]
            self.low += left
        if right:
            self.lost += float(self.mass[len(self.mass) - right :].sum())
            self.mass = self.mass[: len(self.mass) - right]


def crossing(looks: np.ndarray, upper: np.ndarray, p: float, *, mirrored: np.ndarray | None = None) -> float:
    """P(count >= upper_j at some look j), rounded up, for a class of probability p.

    With ``mirrored`` also the other way out: the complement's count n_j - k reaching
    ``mirrored_j``. A boundary above n_j cannot be reached at look j.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p = {p!r} is not a probability")
    walk, crossed = Walk(p), 0.0
    for j, n in enumerate(looks.tolist()):
        walk.step(n)
        crossed += walk.absorb_above(int(upper[j]))
        if mirrored is not None:
            crossed += walk.absorb_below(n - int(mirrored[j]))
        if not len(walk.mass):
            break
    return min(1.0, (crossed + walk.lost) * (1 + SAFETY))


def stopping(
    looks: np.ndarray, upper: np.ndarray, lower: np.ndarray, p: float
) -> Iterator[tuple[int, float, float, float]]:
    """Per look: (samples, P(stop high here), P(stop low here), P(still running))."""
    walk = Walk(p)
    for j, n in enumerate(looks.tolist()):
        walk.step(n)
        up = walk.absorb_above(int(upper[j]))
        down = walk.absorb_below(int(lower[j]))
        yield n, up, down, walk.remaining()
        if not len(walk.mass):
            return


def binomial_window(m: int, p: float) -> tuple[int, np.ndarray]:
    """(first count, probabilities) of Bin(m, p) on the window that holds all but 2e-18.

    Ratios of neighbours are multiplied outward from the mode: relative error about the width
    of the window times the machine epsilon (log-gamma would lose five digits more).
    """
    first, last = _window(m, p)
    if first == last:
        return first, np.ones(1)
    mode = min(max(int((m + 1) * p), first), last)
    odds = p / (1.0 - p)
    up = np.arange(mode, last, dtype=np.float64)
    down = np.arange(mode, first, -1, dtype=np.float64)
    right = np.cumprod((m - up) / (up + 1.0) * odds)
    left = np.cumprod(down / (m - down + 1.0) / odds)
    pmf = np.concatenate([left[::-1], np.ones(1), right])
    return first, pmf / pmf.sum()


def _window(m: int, p: float) -> tuple[int, int]:
    t = -math.log(_TAIL)
    spread = t / 3 + math.sqrt(t * t / 9 + 2 * m * p * (1 - p) * t)
    if p in (0.0, 1.0):
        spread = 0.0
    return max(0, math.floor(m * p - spread)), min(m, math.ceil(m * p + spread))
