"""Two classifiers on the same inputs: the difference of their certified accuracies.

Each input is right-and-certified for both, one or none. With b inputs for the first only, c for
the second only, out of n: the difference is (b - c)/n. Its interval inverts Tango's score
test (T. Tango, "Equivalence test and confidence interval for the difference in proportions for
the paired-sample design", Statistics in Medicine 17, 1998); the p-value is McNemar's exact one
(b ~ Bin(b + c, 1/2) without a difference). Interval and test are about the population of inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from scipy import optimize, stats

from certify.errors import InvalidCounts


@dataclass(frozen=True)
class Difference:
    """Certified accuracy of the first run minus that of the second at ``radius``.

    ``only_first`` and ``only_second`` count the inputs on which exactly one of them is certified
    and right. [low, high] has level ``level``; ``p_value`` is exact and two-sided, ``p_adjusted``
    the same after Holm's correction over all rows of the comparison.
    """

    radius: float
    inputs: int
    only_first: int
    only_second: int
    value: float
    low: float
    high: float
    level: float
    p_value: float
    p_adjusted: float


def difference(first: Sequence[bool], second: Sequence[bool], *, radius: float, level: float) -> Difference:
    """Compare two outcomes per input, paired by position. Raises InvalidCounts for n = 0."""
    pairs = list(zip(first, second, strict=True))
    b = sum(x and not y for x, y in pairs)
    c = sum(y and not x for x, y in pairs)
    low, high = tango_interval(b, c, len(pairs), level)
    p = float(stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
    return Difference(radius, len(pairs), b, c, (b - c) / len(pairs), low, high, level, p, p)


def tango_interval(b: int, c: int, n: int, level: float) -> tuple[float, float]:
    """Score interval for p10 - p01 from b and c discordant pairs of n; asymptotic, good from small n."""
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise InvalidCounts(
            f"{b} and {c} discordant pairs of {n} are impossible",
            why="both counts are at least 0 and together at most the number of pairs, which is at least 1",
            remedy="compare two runs that share inputs",
        )
    z = float(stats.norm.ppf((1 + level) / 2))
    value = (b - c) / n

    def excess(delta: float, sign: int) -> float:
        return sign * _score(delta, b, c, n) - z

    low, high = -1.0, 1.0
    if value > -1:
        low = _root(lambda d: excess(d, 1), -1 + 1e-12, value)
    if value < 1:
        high = _root(lambda d: excess(d, -1), value, 1 - 1e-12)
    return low, high


def holm(rows: Sequence[Difference]) -> list[Difference]:
    """The rows with p-values adjusted for their number (S. Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].p_value)
    adjusted, running = [0.0] * len(rows), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(rows) - rank) * rows[i].p_value))
        adjusted[i] = running
    return [replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def _score(delta: float, b: int, c: int, n: int) -> float:
    """Tango's statistic for the hypothesis p10 - p01 = delta, with p01 at its constrained maximum."""
    # p01 maximises b ln(p01 + delta) + c ln(p01) + (n - b - c) ln(1 - 2 p01 - delta).
    half = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    p01 = (math.sqrt(max(0.0, half * half - 8 * n * constant)) - half) / (4 * n)
    variance = n * (2 * p01 + delta * (1 - delta))
    gap = b - c - n * delta
    if variance <= 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _root(function, low: float, high: float) -> float:
    """Where a monotone function changes sign; the outer end if it does not."""
    at_low, at_high = function(low), function(high)
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    return cast(float, optimize.brentq(function, low, high, xtol=1e-12))
