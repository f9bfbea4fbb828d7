"""What a weight per count means for the input behind it: polynomials in Bernstein form, bounded for certain.

Let an input's noisy copies be right with probability p each, and give it the weight c_k if k of n are.
Its expected weight is P_c(p) = sum_k c_k C(n, k) p^k (1 - p)^(n - k): the c_k are the Bernstein
coefficients of P_c on [0, 1]. On any subinterval P_c has Bernstein coefficients too (averages of the
c_k, by de Casteljau's scheme), and its values there lie between the least and the largest of them.
Halving the intervals closes the gap quadratically, so *all* p are bounded, not sampled ones.
G. Farin, Curves and Surfaces for CAGD, chapter 5; G. T. Cargo and O. Shisha, J. Res. NBS 70B (1966).
"""

from __future__ import annotations

import numpy as np

#: One average of two numbers of size 1, weights rounded too, errs by less than this.
_ROUNDING = 2.0**-51
#: Intervals are halved this often at most; what is open then is bounded by its coefficients.
_DEPTH = 40
#: Weights are moved down by this much more than needed, so that coarser arithmetic can confirm them.
MARGIN = 1e-6


def chances(n: int, p: np.ndarray) -> np.ndarray:
    """P(Bin(n, p) = k) for every p (rows) and k = 0..n (columns)."""
    from scipy import special

    k, p = np.arange(n + 1), np.asarray(p, dtype=np.float64)[:, None]
    choose = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.exp(choose + special.xlogy(k, p) + special.xlog1py(n - k, -p))


def largest(c: np.ndarray, p: float, *, gap: float = 1e-6) -> float:
    """An upper bound on P_c over the whole of [0, p], at most ``gap`` above its maximum.

    ``c``: (n + 1,) weights. Rounding is on the safe side: each of the n averages of a halving errs by
    at most 2**-51 of the largest weight, and averaging does not enlarge earlier errors.
    """
    c = np.asarray(c, dtype=np.float64)
    rows = _restricted(c, p)[None]
    reached, settled, depth = float(rows[0, [0, -1]].max()), -np.inf, 0
    while len(rows) and depth < _DEPTH:
        tops = rows.max(axis=1)
        # What cannot exceed the largest value seen by more than the gap need not be looked at again.
        small = tops <= reached + gap
        settled = max(settled, float(tops[small].max(initial=-np.inf)))
        rows = _halves(rows[~small])
        reached = max(reached, float(rows[:, [0, -1]].max(initial=-np.inf)))
        depth += 1
    settled = max(settled, float(rows.max(initial=-np.inf)))
    return settled + (depth + 1) * len(c) * _ROUNDING * float(np.abs(c).max())


def lowered(c: np.ndarray, p: float) -> np.ndarray:
    """The weights ``c`` (n + 1,), at most 1 and moved down until P_c <= 0 on the whole of [0, p] is proved.

    The chances of the counts sum to 1, so moving all weights by d moves P_c by d.
    """
    c = np.minimum(np.asarray(c, dtype=np.float64), 1.0)
    return c - max(0.0, largest(c, p) + MARGIN)


def _restricted(c: np.ndarray, p: float) -> np.ndarray:
    """Bernstein coefficients (n + 1,) on [0, p] of the polynomial with coefficients ``c`` on [0, 1]."""
    row, out = c, np.empty(len(c))
    for i in range(len(c)):
        out[i] = row[0]
        row = (1 - p) * row[:-1] + p * row[1:]
    return out


def _halves(rows: np.ndarray) -> np.ndarray:
    """Bernstein coefficients (2 m, n + 1) of m polynomials (m, n + 1) on both halves of their intervals."""
    size = rows.shape[1]
    left, right, work = np.empty_like(rows), np.empty_like(rows), rows
    for i in range(size):
        left[:, i], right[:, size - 1 - i] = work[:, 0], work[:, -1]
        work = (work[:, :-1] + work[:, 1:]) / 2
    return np.concatenate([left, right])
