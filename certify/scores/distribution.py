"""The score-distribution radius: every level set of a soft score is a classifier of its own.

For a score h in [0, 1] and q(t) = P(h(x + sigma Z) >= t), each indicator {h >= t} obeys the
Neyman-Pearson bound, so at any distance r

    E h(x' + sigma Z) >= int_0^1 Phi(Phi^-1(q(t)) - r / sigma) dt        (|x' - x| <= r),

and the largest r that keeps the right side at 1/2 is certified: Kumar, Levine, Feizi and
Goldstein, NeurIPS 2020, Theorem 2. For the margin score h_A = (1 + f_A - max_c f_c) / 2 (c over the
other classes) a mean above 1/2 makes A the smoothed class; h_A >= f_A, so nothing is lost against
bounding f_A itself.

q is unknown: it is replaced by a lower confidence band at thresholds fixed beforehand. The
empirical distribution without a band is *not* a certificate: where every sample reaches t it reads
q(t) = 1, and Phi^-1(1) is infinite.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certify.bounds import check_alpha
from certify.errors import InvalidCounts, InvalidSetting

#: Step towards zero after summing a mean, and (relatively) after solving for a radius.
_DOWN = 1e-12


def score_thresholds(bins: int) -> np.ndarray:
    """``bins`` thresholds in (0, 1], the last exactly 1: even in log-odds, so fine near 0 and 1."""
    if bins < 2:
        raise InvalidSetting(
            f"{bins} thresholds describe no distribution",
            why="at least two are needed",
            remedy="use for example bins=64",
        )
    inner = special.expit(np.linspace(-9.0, 9.0, bins - 1))
    out = np.append(inner, 1.0)
    out.setflags(write=False)
    return out


def exceedances(histogram: np.ndarray) -> np.ndarray:
    """How many samples reached each threshold: (B,) from a histogram (B + 1,) of scores.

    ``histogram[b]`` counts samples with b thresholds at or below the score
    (``searchsorted(thresholds, score, side="right")``).
    """
    values = np.asarray(histogram)
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iu" or values.min() < 0:
        raise InvalidCounts(
            "this is not a histogram of scores",
            why="it takes one whole number per bin, one bin more than thresholds",
            remedy="count bin = searchsorted(thresholds, score, side='right')",
        )
    return np.cumsum(values[::-1])[::-1][1:]


def band_lower(reached: ArrayLike, n: int, alpha: float) -> np.ndarray:
    """Lower band on q at B fixed thresholds: P(some band value > q) <= alpha. (B,), nonincreasing.

    The better, per threshold, of two bands at alpha / 2 each: Dvoretzky-Kiefer-Wolfowitz in its
    one-sided form (Massart, Ann. Probab. 18 (1990); its constant needs level <= 1/2) and
    Clopper-Pearson with a union bound over the thresholds. Never reaches 1.
    """
    k = np.asarray(reached, dtype=np.float64)
    check_alpha(alpha, shares=2 * max(1, len(k)))
    if n < 1 or np.any(k < 0) or np.any(k > n):
        raise InvalidCounts(
            f"exceedance counts outside 0..{n}",
            why="each threshold was reached by some of the n samples",
            remedy="pass the counts of the same n samples",
        )
    dkw = k / n - math.sqrt(math.log(2 / alpha) / (2 * n))
    level = alpha / (2 * len(k))
    exact = np.where(
        k == n, math.exp(math.log(level) / n), special.betaincinv(np.maximum(k, 1), n - k + 1, level)
    )
    band = np.maximum(dkw, np.where(k == 0, 0.0, exact)) * (1 - 1e-12)
    # q falls with t: what is proved for a higher threshold holds for every lower one.
    return np.clip(np.maximum.accumulate(band[::-1])[::-1], 0.0, 1.0 - 2**-53)


def mean_at(distance: float, band: np.ndarray, thresholds: np.ndarray) -> float:
    """Lower bound on E h at ``distance`` (in units of sigma) from the point of the band, rounded down.

    Between two thresholds q is at least its value at the upper one.
    """
    widths = np.diff(thresholds, prepend=0.0)
    return float(widths @ special.ndtr(special.ndtri(band) - distance)) - _DOWN


def distribution_radius(band: np.ndarray, thresholds: np.ndarray) -> float:
    """Largest distance (in units of sigma, rounded down) at which E h is proved to exceed 1/2."""
    if mean_at(0.0, band, thresholds) <= 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while mean_at(high, band, thresholds) > 0.5:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if mean_at(middle, band, thresholds) > 0.5:
            low = middle
        else:
            high = middle
    return low * (1 - _DOWN)
