"""The law of the counts over inputs, estimated from a pilot.

It only steers the choice of a rule: a poor estimate costs tightness, never validity.
"""

from __future__ import annotations

import numpy as np

from certify.population.polynomial import chances

_STEPS = 50
#: Share of the law that is replaced by a flat one: no count is called impossible.
_FLAT = 0.02
#: Without a pilot: this share of the inputs has p near 1, the others have any p.
_EASY = 0.8


def support(n: int, upto: float = 1.0) -> np.ndarray:
    """Points from 0 to ``upto``, a quarter of a count's standard deviation apart: even in arcsin(sqrt(p))."""
    end = float(np.arcsin(np.sqrt(upto)))
    return np.sin(np.linspace(0.0, end, 2 + int(np.ceil(end * 8 * np.sqrt(n))))) ** 2


def law_of_counts(pilot: np.ndarray, n: int) -> np.ndarray:
    """Probability of each count 0..n for a fresh input, from the pilot's counts; (n + 1,), all positive.

    Maximum likelihood over the laws of p by expectation-maximisation, from a flat start and stopped
    early, which is smoother than the counts themselves.
    """
    points = support(n)
    likely, flat = chances(n, points), np.full(n + 1, 1 / (n + 1))
    weights = np.full(len(points), 1 / len(points))
    if len(pilot) == 0:
        weights *= 1 - _EASY
        weights[-1] += _EASY
        return (1 - _FLAT) * (weights @ likely) + _FLAT * flat
    # One input's worth of the flat law: a small pilot does not rule out what it has not met.
    seen = (np.bincount(pilot, minlength=n + 1) + flat) / (len(pilot) + 1)
    for _ in range(_STEPS):
        weights = weights * (likely @ (seen / (weights @ likely)))
        weights /= weights.sum()
    return (1 - _FLAT) * (weights @ likely) + _FLAT * flat
