"""The randomised Clopper-Pearson bound: exact, where the usual one wastes what lies between two counts.

A count is a whole number, so the usual bound errs with less than alpha for nearly every p. A uniform number U
that is drawn beside the count fills the gaps (W. L. Stevens, "Fiducial limits of the parameter of a
discontinuous distribution", Biometrika 37, 1950; for smoothing: V. Voracek, "Treatment of statistical
estimation problems in randomized smoothing for adversarial robustness", NeurIPS 2024).

Claim. Let K ~ Bin(n, p) and U, uniform on (0, 1], be independent, and u >= U. With

    T_q(k, u) = P(Bin(n, q) > k) + u P(Bin(n, q) = k)

let L(k, u) be the largest q with T_q(k, u) <= alpha, 0 where there is none. Then P(L(K, u) > p) <= alpha for
every p, and L(k, u) is at least the Clopper-Pearson bound, which is L(k, 1).

Proof. T_q(k, u) = (1 - u) P(Bin(n, q) >= k + 1) + u P(Bin(n, q) >= k) grows with q, so L > p means that
T_p(K, u) <= alpha. T grows with u, so T_p(K, U) <= alpha, too. And T_p(K, U) is uniform on (0, 1]: given K it
is uniform between P(Bin > K) and P(Bin >= K), and these intervals of the lengths P(Bin = K) fill (0, 1].

u = max(U, sqrt(alpha)): for K = n the bound is (alpha / u)^(1/n), 1 for U <= alpha, which no finite radius
belongs to. With the floor unanimous votes never prove more than the usual bound does from 2n samples.

U is drawn by SHA-256 from the seed and the id of the input, a function unrelated to the generator of the
noise. It is stored, and anybody can draw it again: whoever fixed the seed has fixed U. A seed that was chosen
after looking at the results would make any bound worthless, this one or the usual one.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from scipy import optimize, special

from certify.bounds import binomial_lower, check_alpha, check_counts
from certify.calls import checked
from certify.errors import InvalidSetting

#: Where a record keeps its uniform number, and the sentence that a guarantee adds.
UNIFORM = "uniform"
DRAWN = (
    " The bound on the class is randomised (Stevens 1950): a uniform number per input, which SHA-256 draws "
    "from the seed and the input's id, is taken as random, too."
)
#: Relative room after solving, as the incomplete beta function is good to about 1e-14.
_OUTWARD = 1e-12


def uniform_of(seed: int, id: int) -> float:
    """The number in (0, 1] that belongs to the input ``id`` of a run with this seed; 53 bits of SHA-256."""
    word = hashlib.sha256(f"certify: randomised bound, seed {seed}, input {id}".encode()).digest()
    return ((int.from_bytes(word[:8], "big") >> 11) + 1) / 2**53


@checked
def randomised_lower(k: int, n: int, alpha: float, uniform: float) -> float:
    """L(k, max(uniform, sqrt(alpha))) of the module's text, rounded down.

    ``k`` successes in ``n`` trials; ``uniform``: in (0, 1], drawn independently of them. With ``uniform`` 1
    it is ``certify.bounds.binomial_lower``. Raises InvalidCounts and InvalidSetting as that does, and
    InvalidSetting for a ``uniform`` outside (0, 1].
    """
    k, n = check_counts(k, n)
    alpha = check_alpha(alpha)
    if not 0.0 < uniform <= 1.0:
        raise InvalidSetting(
            f"uniform = {uniform!r} cannot be used",
            why="it is a uniform random number in (0, 1]",
            remedy="draw it with certify.randomised.uniform_of(seed, id)",
        )
    u, plain = max(uniform, math.sqrt(alpha)), binomial_lower(k, n, alpha)
    if k == 0 or u == 1.0:
        return plain
    if k == n:
        return max(plain, math.exp(math.log(alpha / u) / n) * (1 - _OUTWARD))
    # In the complement, which keeps its digits where p is close to one.
    most, least = 1.0 - plain, 1.0 - binomial_lower(k + 1, n, alpha)
    found: Any = optimize.brentq(_beyond, least, most, args=(k, n, u, alpha), xtol=1e-300)
    q = min(most, float(found) * (1 + _OUTWARD))
    while q < most and _beyond(q, k, n, u, alpha) > 0:
        q = min(most, q * (1 + _OUTWARD))
    return max(plain, 1.0 - q - 2**-52)


def _beyond(q: float, k: int, n: int, u: float, alpha: float) -> float:
    """log of T_p(k, u) / alpha for p = 1 - q; falls with q."""
    above = special.betaincc(n - k, k + 1, q)
    return math.log(max((1 - u) * above + u * special.betaincc(n - k + 1, k, q), 1e-300) / alpha)
