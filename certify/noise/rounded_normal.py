"""The normal law rounded to integers, exactly enough to be part of a proof.

Smoothing with integer noise J = round(s Z), Z ~ N(0, 1), is smoothing with Gaussian noise of
the classifier that rounds its input first, because round(i + e) = i + round(e) for integers i:
Gaussian certificates hold as they stand. The sampler draws U uniform on {0, ..., 2**64 - 1} and
returns J = j for T_{j-1} <= U < T_j, where T_j is 2**64 Phi((j + 1/2)/s) rounded to an integer.

Claim. With the M thresholds 0 < T_j < 2**64, the total variation distance between the law drawn
and the rounded normal is at most (M + 2) 2**-65 (1 + 2**-30).
Proof. Write F_j for the drawn and G_j for the ideal cumulative probability at j. Then
TV = 1/2 sum_j |(F_j - G_j) - (F_{j-1} - G_{j-1})|. Rounding moves each kept threshold by at most
2**-65 (and the computation of Phi by less than 2**-100), so the steps among kept thresholds
contribute at most sum_kept |F_j - G_j| <= M 2**-65 (1 + 2**-30). Beyond the last kept threshold
F = 1 while G climbs monotonically to 1 from at least 1 - 2**-65 - 2**-100: together with the
lower end by symmetry at most 2 * 2**-65 (1 + 2**-30) more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from certify.errors import InvalidSetting

#: Largest s = sigma / step: beyond it computing the thresholds (18 per unit of s) takes seconds.
MAX_SCALE = 4096
SLICE_BITS = 16

_BITS = 192
_INVERSE_ROOT_TWO_PI = 0x662114CF50D942343F2CF1402EAE38BFD3829F30512706D8C0471B4802639D2E  # * 2**-256
_WORD_BITS = 64


@dataclass(frozen=True, eq=False)
class RoundedNormal:
    """Tables that turn 64 uniform bits into round(s Z).

    ``thresholds`` uint64 (M,): T_{-m}, ..., T_{m-1}, increasing. ``guide`` (2**16,): the value
    that the first 16 bits decide, or ``undecided`` where a threshold cuts through them.
    ``reach`` is m: every value lies in [-m, m].
    """

    scale: Fraction
    thresholds: np.ndarray
    guide: np.ndarray
    reach: int

    @property
    def undecided(self) -> int:
        return int(np.iinfo(self.guide.dtype).min)

    @property
    def tv(self) -> float:
        """Bound on the total variation distance of one value from the rounded normal law."""
        return (len(self.thresholds) + 2) * 2.0**-65 * (1 + 2.0**-20)

    @cached_property
    def undecided_share(self) -> float:
        """Probability that 16 bits do not decide a value (exact: a multiple of 2**-16)."""
        return float(np.count_nonzero(self.guide == self.undecided)) / (1 << SLICE_BITS)

    def refine(self, slices: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Values for 64-bit draws whose upper 16 bits are ``slices``, the rest from ``words``."""
        draws = (slices.astype(np.uint64) << np.uint64(48)) | (words >> np.uint64(SLICE_BITS))
        return np.searchsorted(self.thresholds, draws, side="right") - self.reach


def rounded_normal(sigma: float, step: Fraction) -> RoundedNormal:
    """The law of round(sigma / step * N(0, 1)), its tables cached.

    Raises InvalidSetting when sigma / step exceeds 4096.
    """
    scale = Fraction(sigma) / step
    if scale > MAX_SCALE:
        raise InvalidSetting(
            f"sigma = {sigma:g} is too wide for a grid of step {float(step):g}",
            why=f"lattice noise needs sigma / step <= {MAX_SCALE}, here it is {float(scale):.6g}",
            remedy="declare a coarser grid (a larger power of two)",
        )
    return _tables(scale)


@lru_cache(maxsize=32)
def _tables(scale: Fraction) -> RoundedNormal:
    upper = []
    while True:
        value = threshold(len(upper), scale)
        if value >= 1 << _WORD_BITS:
            break
        upper.append(value)
    # Phi(-x) = 1 - Phi(x): the lower thresholds mirror the upper ones.
    both = [(1 << _WORD_BITS) - t for t in reversed(upper)] + upper
    thresholds = np.array(both, dtype=np.uint64)
    first = np.arange(1 << SLICE_BITS, dtype=np.uint64) << np.uint64(48)
    low = np.searchsorted(thresholds, first, side="right")
    high = np.searchsorted(thresholds, first | np.uint64((1 << 48) - 1), side="right")
    dtype = np.int16 if len(upper) < 1 << 14 else np.int32
    guide = np.where(low == high, low - len(upper), np.iinfo(dtype).min).astype(dtype)
    thresholds.setflags(write=False)
    guide.setflags(write=False)
    return RoundedNormal(scale, thresholds, guide, len(upper))


def threshold(j: int, scale: Fraction) -> int:
    """2**64 Phi((j + 1/2) / scale) for j >= 0, rounded to the nearest integer.

    Phi(x) - 1/2 = S(x) / (sqrt(2 pi) exp(x^2/2)), S(x) = sum_k x^(2k+1) / (1 3 5 ... (2k+1)).
    Both series have positive terms only. Each is summed in integers at 192 fractional bits,
    every term rounded down once: with fewer than 2**9 terms and x >= 2**-13 the relative error is
    below 2**9 2**13 2**-192 for S and less for exp, so the result is off by less than 2**-160.
    """
    x = Fraction(2 * j + 1, 2) / scale
    if x > 10:
        return 1 << _WORD_BITS  # 1 - Phi(10) < 2**-76
    square = x * x
    odd = _series((x.numerator << _BITS) // x.denominator, square, 3)
    exponential = _series(1 << _BITS, square, 2)
    above_half = (odd * _INVERSE_ROOT_TWO_PI << _WORD_BITS) // exponential
    return (1 << _WORD_BITS - 1) + ((above_half + (1 << 255)) >> 256)


def _series(first: int, square: Fraction, divisor: int) -> int:
    """first * (1 + square/divisor (1 + square/(divisor + 2) (...))) in fixed point."""
    a, b = square.numerator, square.denominator
    total, term, divisor_now = first, first, divisor
    while term:
        term = term * a // (b * divisor_now)
        total += term
        divisor_now += 2
    return total


def overflow_bound(share: float, dim: int, reserve: int) -> float:
    """Upper bound on P(more than ``reserve`` of ``dim`` draws are undecided), Chernoff's."""
    if reserve >= dim:
        return 0.0
    t = (reserve + 1) / dim
    if t <= share:
        return 1.0
    divergence = t * math.log(t / share) if share > 0 else math.inf
    if t < 1:
        divergence += (1 - t) * math.log((1 - t) / (1 - share))
    return math.exp(-dim * divergence) * (1 + 1e-9) if math.isfinite(divergence) else 0.0


def reserve_for(share: float, dim: int) -> int:
    """Fewest extra words per sample that run out with probability below 2**-52."""
    low, high = 0, dim
    while low < high:
        middle = (low + high) // 2
        if overflow_bound(share, dim, middle) < 2.0**-52:
            high = middle
        else:
            low = middle + 1
    return low
