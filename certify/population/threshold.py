"""The threshold rule: count the inputs of which at least u of n noisy copies were right.

Let a = P(Bin(n, p*) >= u). An input with p <= p* is counted with probability at most a, so the
probability Q that an input is counted is at most A + (1 - A) a, where A is the share of inputs with
p > p*. Hence A >= (Q - a) / (1 - a), and Q has an exact binomial lower bound. As weights: c_k = 1 for
k >= u and -a / (1 - a) below.
"""

from __future__ import annotations

import numpy as np

from certify.bounds import binomial_lower

#: a is moved up by this share, more than what the incomplete beta function is off by.
_OUTWARD = 1e-10


def false_share(u: int, n: int, p_target: float) -> float:
    """P(Bin(n, p_target) >= u), rounded up, for 1 <= u <= n."""
    from scipy import special

    return min(1.0, float(special.betainc(u, n - u + 1, p_target)) * (1 + _OUTWARD) + 1e-300)


def threshold_bound(reached: int, inputs: int, a: float, alpha: float) -> float:
    """Lower bound on A if ``reached`` of ``inputs`` were counted; ``a`` as above."""
    if a >= 1.0:
        return 0.0
    return max(0.0, (binomial_lower(reached, inputs, alpha) - a) / (1 - a) - 1e-15)


def best_threshold(law: np.ndarray, p_target: float, inputs: int, alpha: float) -> tuple[int, float]:
    """(u, the bound to expect) for the u that is best under ``law``, the probability of each count 0..n."""
    n = len(law) - 1
    reach = np.cumsum(law[::-1])[::-1]
    best = n, 0.0
    for u in range(1, n + 1):
        a = false_share(u, n, p_target)
        # Where even the plain share leaves nothing better, the bound need not be computed.
        if a < 1.0 and (reach[u] - a) / (1 - a) > best[1]:
            found = threshold_bound(int(reach[u] * inputs), inputs, a, alpha)
            best = (u, found) if found > best[1] else best
    return best
