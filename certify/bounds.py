"""Confidence bounds for a binomial proportion: Clopper-Pearson, rounded outward.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in
the case of the binomial", Biometrika 26 (1934). For K ~ Bin(n, p) the lower bound is the
largest p with P(Bin(n, p) >= k) <= alpha, hence P(lower(K) > p) <= alpha for every p and n.
"""

from __future__ import annotations

import math
import operator

from scipy import special

from certify.calls import shown
from certify.errors import InvalidCounts, InvalidSetting

#: Relative outward step after solving; scipy's incomplete beta is good to about 1e-14.
_OUTWARD = 1e-12
#: The smallest error probability that is accepted: below it scipy's incomplete beta function and its inverse
#: lose their digits (at 1e-280 the tail at the solution can be many times alpha).
SMALLEST_ALPHA = 1e-250


def binomial_lower(k: int, n: int, alpha: float) -> float:
    """One-sided lower confidence bound on p from k successes in n trials, at level alpha.

    Claim: over K ~ Bin(n, p), P(binomial_lower(K, n, alpha) > p) <= alpha. Exactly 0 for
    k = 0. Rounded down. Raises InvalidCounts (n < 1, k < 0, k > n, not integers) and
    InvalidSetting (alpha outside [1e-250, 0.5)).
    """
    k, n = check_counts(k, n)
    alpha = check_alpha(alpha)
    if k == 0:
        return 0.0
    if k == n:
        return math.exp(math.log(alpha) / n) * (1 - _OUTWARD)
    # Solve for the complement: 1 - p keeps its digits where p is close to one.
    q = float(special.betainccinv(n - k + 1, k, alpha)) * (1 + _OUTWARD)
    if math.isnan(q):  # scipy finds no solution at some tiny alpha: nothing is bounded
        return 0.0
    _check_tail(float(special.betaincc(n - k + 1, k, min(1.0, q))), alpha)
    return max(0.0, 1.0 - q - 2**-52)


def binomial_upper(k: int, n: int, alpha: float) -> float:
    """One-sided upper confidence bound on p; the mirror image of ``binomial_lower``.

    Exactly 1 for k = n. Rounded up.
    """
    k, n = check_counts(k, n)
    alpha = check_alpha(alpha)
    if k == n:
        return 1.0
    if k == 0:
        return -math.expm1(math.log(alpha) / n) * (1 + _OUTWARD)
    q = float(special.betaincinv(n - k, k + 1, alpha)) * (1 - _OUTWARD)
    if math.isnan(q):
        return 1.0
    _check_tail(float(special.betainc(n - k, k + 1, q)), alpha)
    return min(1.0, 1.0 - q + 2**-52)


def binomial_interval(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval at level 1 - alpha (alpha/2 on each side)."""
    half = check_alpha(alpha) / 2
    return binomial_lower(k, n, half), binomial_upper(k, n, half)


def check_alpha(alpha: float, *, name: str = "alpha", shares: int = 1) -> float:
    """The error probability as a float; InvalidSetting unless 1e-250 <= alpha / shares and alpha < 0.5.

    ``shares``: into how many equal parts alpha will be divided; each must still be large enough for the
    bounds to be computed. ``name`` is what the caller calls it.
    """
    try:
        value = float(alpha)
    except Exception:  # what is no number refuses to be one with any error
        value = math.nan
    if not 0.0 < value < 0.5:
        raise InvalidSetting(
            f"{name} = {shown(alpha)} cannot be used",
            why=f"{name} is the probability that a statement is wrong and must lie in (0, 0.5)",
            remedy=f"use a small number such as {name}=0.001",
        )
    if not value / shares >= SMALLEST_ALPHA:
        divided = f" divided by {shares:,}" if shares > 1 else ""
        raise InvalidSetting(
            f"{name} = {alpha!r}{divided} is too small to be computed with",
            why=f"below {SMALLEST_ALPHA:g} the binomial bounds of this program are not at their level",
            remedy=f"use {name} of at least {SMALLEST_ALPHA * shares:g}",
        )
    return value


def _check_tail(tail: float, alpha: float) -> None:
    """Raise InvalidSetting where the tail at the solution is not the alpha that was solved for."""
    if not tail <= alpha * (1 + 1e-9):
        raise InvalidSetting(
            f"alpha = {alpha!r} cannot be solved for",
            why=f"the binomial tail at the solution is {tail!r}",
            remedy="use a larger alpha",
        )


def check_counts(k: int, n: int) -> tuple[int, int]:
    """k and n as Python ints; InvalidCounts where no experiment can have produced them."""
    try:
        k, n = operator.index(k), operator.index(n)
    except Exception as error:  # what is no number refuses to be one with any error
        raise InvalidCounts(
            f"counts k = {shown(k)}, n = {shown(n)} are not integers",
            why="a proportion is bounded from whole numbers of successes and trials",
            remedy="pass integer counts; bounded scores need a bound for means, not a binomial one",
        ) from error
    if not 1 <= n <= 2**53:
        raise InvalidCounts(
            f"n = {shown(n)} trials bound nothing",
            why="a confidence bound needs at least one sample" if n < 1 else "nobody drew so many samples",
            remedy="draw samples first (n >= 1)",
        )
    if not 0 <= k <= n:
        raise InvalidCounts(
            f"k = {k} successes in n = {n} trials is impossible",
            why="k must lie between 0 and n",
            remedy="check which count is the number of successes and which the number of trials",
        )
    return k, n
