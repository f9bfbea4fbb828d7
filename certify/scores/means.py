"""Level-alpha lower bounds on the mean of i.i.d. values in [0, 1].

Soft scores are not counts, so a binomial bound does not apply to their sum: rounding the sum and
calling Clopper-Pearson misses far more often than alpha. Each bound here satisfies
P(lower(X_1..X_n) > E X) <= alpha for every law on [0, 1] and every n. An upper bound is
``1 - lower(1 - values)``.

| name | needs | best where |
|---|---|---|
| hoeffding | the mean | never; the yardstick |
| kl-chernoff | the mean | values near 0 and 1 |
| maurer-pontil | mean and variance | small variance, large n |
| betting | the values in order | almost everywhere; also sequentially |
| kelly-grid | the histogram | like betting, whatever the order |
| sampled-labels | the values and random bits | values near 0 and 1 |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from certify.bounds import binomial_lower, check_alpha
from certify.calls import checked
from certify.errors import InvalidInput

#: Bounds are moved down by this much: more than the rounding of any sum here.
_DOWN = 1e-12
#: Bets of the Kelly grid, as shares of the largest admissible one (halved from step to step).
_BETS = np.append(0.999, 0.7 * 2.0 ** -np.arange(9))


@dataclass(frozen=True)
class MeanBound:
    """A named lower bound: ``lower(values, alpha)``, with its reference."""

    name: str
    reference: str
    lower: Callable[[ArrayLike, float], float]


@checked
def hoeffding_lower(values: ArrayLike, alpha: float) -> float:
    """mean - sqrt(ln(1/alpha) / (2n)). Hoeffding, JASA 58 (1963), Theorem 1."""
    x, alpha = _checked(values, alpha)
    return _floor(float(x.mean()) - math.sqrt(-math.log(alpha) / (2 * len(x))))


@checked
def kl_chernoff_lower(values: ArrayLike, alpha: float) -> float:
    """Smallest p <= mean with n kl(mean, p) <= ln(1/alpha). Hoeffding (1963), Theorem 1, first form."""
    x, alpha = _checked(values, alpha)
    return kl_inverse_lower(float(x.mean()), -math.log(alpha) / len(x))


@checked
def kl_inverse_lower(mean: float, budget: float) -> float:
    """Smallest p <= mean with kl(Bernoulli(mean), Bernoulli(p)) <= budget, rounded down."""
    low, high = 0.0, mean
    for _ in range(100):
        middle = (low + high) / 2
        if middle <= 0.0 or _kl(mean, middle) > budget:
            low = middle
        else:
            high = middle
    return _floor(low)


@checked
def maurer_pontil_lower(values: ArrayLike, alpha: float) -> float:
    """mean - sqrt(2 V ln(2/alpha)/n) - 7 ln(2/alpha)/(3(n-1)), V the sample variance.

    Maurer and Pontil, COLT 2009, Theorem 4. 0 for n = 1.
    """
    x, alpha = _checked(values, alpha)
    if len(x) < 2:
        return 0.0
    log = math.log(2 / alpha)
    width = math.sqrt(2 * float(x.var(ddof=1)) * log / len(x)) + 7 * log / (3 * (len(x) - 1))
    return _floor(float(x.mean()) - width)


@checked
def betting_lower(values: ArrayLike, alpha: float) -> float:
    """Largest mean that a gambler who bets against smaller ones has refuted.

    Capital prod_t (1 + lambda_t(m) (x_t - m)) with lambda_t(m) = min(sqrt(2 ln(1/alpha) /
    (n v_{t-1})), 3/(4m)), v_{t-1} a variance estimate from the past: a nonnegative
    supermartingale if the mean is at most m, so by Ville's inequality it ever reaches 1/alpha with
    probability <= alpha. Decreasing in m, hence inverted by bisection. One-sided form of
    Waudby-Smith and Ramdas, JRSS B 86 (2024), Theorem 3. Depends on the order of the values.
    """
    x, alpha = _checked(values, alpha)
    t = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (t + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (t + 1)
    past = np.append(0.25, variances[:-1])
    bets = np.sqrt(2 * math.log(1 / alpha) / (len(x) * past))

    def refuted(m: float) -> bool:
        gains = np.log1p(np.minimum(bets, 0.75 / m) * (x - m))
        return float(np.cumsum(gains).max()) >= -math.log(alpha)

    return _largest(refuted, float(x.max()))


@checked
def kelly_grid_lower(values: ArrayLike, alpha: float) -> float:
    """Like ``betting_lower``, with a mixture of fixed bets: independent of the order of the values.

    Raises InvalidInput for values outside [0, 1] or none.
    """
    x, alpha = _checked(values, alpha)
    points, counts = np.unique(x, return_counts=True)
    return kelly_grid_histogram(points, counts, alpha)


@checked
def kelly_grid_histogram(points: np.ndarray, counts: np.ndarray, alpha: float) -> float:
    """The Kelly-grid bound from a histogram: ``counts[b]`` values equal to (or above) ``points[b]``.

    Capital mean_g prod_i (1 + (gamma_g / m)(x_i - m)) with fixed shares gamma_g < 1: a mixture of
    nonnegative supermartingales if the mean is at most m, so it reaches 1/alpha at *any* number of
    samples with probability <= alpha, and the bound may be read at every look. The discretised
    Kelly strategy of Waudby-Smith and Ramdas (2024), Appendix B.
    """
    counts = np.asarray(counts, dtype=np.float64)
    points, counts = points[counts > 0], counts[counts > 0]
    if not len(counts):
        return 0.0
    goal = -math.log(alpha)
    low, top = 1e-9 * float(points.max()), float(points.max())
    if top <= 0 or kelly_log_capital(points, counts, low) < goal:
        return 0.0
    from scipy import optimize  # a tenth of what importing torch costs

    root: Any = optimize.brentq(lambda m: kelly_log_capital(points, counts, m) - goal, low, top, xtol=1e-13)
    step = 1e-12
    while root > low and kelly_log_capital(points, counts, root) < goal:  # step back inside the refuted means
        root, step = max(low, root - step), 2 * step
    return _floor(float(root))


@checked
def kelly_log_capital(points: np.ndarray, counts: np.ndarray, m: float) -> float:
    """log of the mixture's capital against 'the mean is at most m'."""
    gains = np.log1p(_BETS[:, None] * (points[None, :] / m - 1)) @ counts
    top = float(gains.max())
    return top + math.log(float(np.exp(gains - top).mean()))


@checked
def sampled_labels_lower(values: ArrayLike, alpha: float, *, generator: np.random.Generator) -> float:
    """Clopper-Pearson on labels drawn as Bernoulli(value): exact, at the price of added variance."""
    x, alpha = _checked(values, alpha)
    hits = int((generator.random(len(x)) < x).sum())
    return binomial_lower(hits, len(x), alpha)


#: The bounds that need nothing but the values, by name.
MEAN_BOUNDS: dict[str, MeanBound] = {
    b.name: b
    for b in (
        MeanBound("hoeffding", "Hoeffding, JASA 58 (1963), Theorem 1", hoeffding_lower),
        MeanBound(
            "kl-chernoff", "Hoeffding, JASA 58 (1963), Theorem 1, relative-entropy form", kl_chernoff_lower
        ),
        MeanBound("maurer-pontil", "Maurer and Pontil, COLT 2009, Theorem 4", maurer_pontil_lower),
        MeanBound("betting", "Waudby-Smith and Ramdas, JRSS B 86 (2024), Theorem 3", betting_lower),
        MeanBound("kelly-grid", "Waudby-Smith and Ramdas, JRSS B 86 (2024), Appendix B", kelly_grid_lower),
    )
}


def _largest(refuted: Callable[[float], bool], top: float) -> float:
    """Supremum of the refuted means below ``top``, from below, for a test that is monotone in m."""
    low, high = 0.0, min(1.0, top)
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and refuted(middle):
            low = middle
        else:
            high = middle
    return _floor(low)


def _kl(q: float, p: float) -> float:
    total = 0.0
    if q > 0:
        total += q * math.log(q / p)
    if q < 1:
        total += (1 - q) * (math.log1p(-q) - math.log1p(-p)) if p < 1 else math.inf
    return total


def _floor(value: float) -> float:
    return max(0.0, value - _DOWN)


def _checked(values: ArrayLike, alpha: float) -> tuple[np.ndarray, float]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.all((x >= 0) & (x <= 1)):
        raise InvalidInput(
            "these values have no bounded mean",
            why="the bounds need at least one value and every value in [0, 1] (NaN is neither)",
            remedy="pass a one-dimensional array of scores between 0 and 1",
        )
    return x, check_alpha(alpha)
