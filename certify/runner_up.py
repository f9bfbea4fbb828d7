"""Two bounds instead of one: the leader's probability from below, the runner-up's from above.

With p_B := 1 - p_A a certificate leaves all that the leader does not have to one rival. Where it is spread
over many classes most of the radius is thrown away: (sigma / 2)(Phi^-1(p_A) - Phi^-1(p_B)) with a bound on
p_B is much larger, and exists below p_A = 1/2. The error probability alpha is divided: a share ``SHARE`` pays
for the runner-up, all else for the leader.

Claim. Let class A be chosen before n independent samples are drawn (by others, say). Let L be the one-sided
Clopper-Pearson bound on p_A at level (1 - s) alpha, and U the one from above at level s alpha that belongs to
the *largest* count k among all others: every other class, and the samples that have no class. Then with
probability at least 1 - alpha both p_A >= L and p_c <= U for every c other than A.

Proof. Let B be the most probable of the others (of several any one that is fixed beforehand). Which it is
depends on the probabilities, not on the samples. U(k) increases in k and k >= k_B, so U >= U(k_B), which is
below p_B with probability at most s alpha. L exceeds p_A with probability at most (1 - s) alpha. Outside of
these two events p_c <= p_B <= U for all c.

So the level is *not* divided among the rivals: that U is too small for the one class that matters is a single
event, however many others there are (an intersection-union test: R. L. Berger, Technometrics 24, 1982).

Which radius is used. Outside of the two events p_B <= min(U, 1 - L), so the radius of J. Cohen et al. 2019,
Theorem 1, holds with p_B := min(U, 1 - L): the larger of the two radii, as a radius falls with p_B. Nothing
is chosen by looking: both bounds hold together.

What it costs. The leader is bounded at (1 - s) alpha instead of alpha. Where the other radius adds nothing
(two classes share all votes; unanimous votes) that is the whole loss: with s = 0.01 at most 0.0013 sigma at
alpha = 0.001 from ten samples on (the tests search for the worst counts). An even split would lose up to
0.024 sigma. The runner-up pays little for its small share: normal quantiles grow with the root of a
logarithm.

Noise that is drawn from a law within total variation distance ``tv`` of the theorem's moves the probability
of every event by at most ``tv``: it is subtracted from L and added to U.

Choosing A on the samples that bound it is covered where it can be proved: certify.sequential.gaps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from certify.bounds import binomial_lower, binomial_upper, check_alpha
from certify.calls import checked
from certify.errors import InvalidSetting, UnreadableFile
from certify.limits import within

#: The share of alpha that pays for the bound on the runner-up.
SHARE = 0.01
#: Where a record keeps the radius that p_B := 1 - p_A would have, and a run's options the share.
ONE_SIDED, OPTION = "one_sided", "runner_up"
#: Error of the logarithm in ``told_apart``, with room: three log-gammas of at most 1e11.
_LOST = 1e-3


def share_of(settings: Mapping[str, Any]) -> float:
    """The share of alpha that a run's procedure gave to the runner-up; 0 where p_B := 1 - p_A."""
    return float((settings.get("mode_options") or {}).get(OPTION, 0.0))


def going_on(asked: bool | None, store: Any) -> bool | None:
    """Whether to bound the runner-up: as asked, else as the run in ``store`` does, else None.

    ``store``: a run directory or an open ``RunStore``, None for a run in memory. Raises what
    ``certify.store.read_run`` raises where the directory cannot be read.
    """
    if asked is not None or store is None:
        return asked
    if not isinstance(store, str | os.PathLike):
        return share_of(store.settings) > 0
    from certify.store import read_run

    try:
        return share_of(read_run(store).settings) > 0
    except UnreadableFile:  # no run is there yet, or it stopped before it began
        return None


def check_share(share: float, alpha: float) -> float:
    """The share of alpha for the runner-up; InvalidSetting unless it is 0, or in (0, 1) and worth a bound."""
    if share == 0:
        return 0.0
    if not 0.0 < share < 1.0:
        raise InvalidSetting(
            f"a share of {share!r} of alpha cannot pay for the runner-up",
            why="alpha is divided between the leader and the runner-up, and both need some of it",
            remedy=f"use {SHARE:g}, or 0 for p_B := 1 - p_A",
        )
    check_alpha(share * alpha, name="the runner-up's share of alpha")
    return float(share)


def rival_votes(counts: np.ndarray, samples: int, label: int) -> int:
    """The most votes that anything but ``label`` has: another class, or the samples without one.

    ``counts``: (K,) whole numbers with a sum of at most ``samples``.
    """
    others = np.delete(counts, label)
    return max(int(others.max(initial=0)), samples - int(counts.sum()))


@checked
def leader_lower(votes: int, samples: int, alpha: float, *, share: float = SHARE, tv: float = 0.0) -> float:
    """L of the module's text, less ``tv``: a lower bound on the leader's probability.

    Raises InvalidCounts and InvalidSetting as ``certify.bounds.binomial_lower``.
    """
    return max(0.0, binomial_lower(votes, samples, (1 - share) * alpha) - tv)


@checked
def rivals_upper(votes: int, samples: int, alpha: float, *, share: float = SHARE, tv: float = 0.0) -> float:
    """U of the module's text, plus ``tv``: an upper bound on the probability of every other class.

    ``votes``: as ``rival_votes`` counts them. Raises InvalidCounts and InvalidSetting as
    ``certify.bounds.binomial_upper``.
    """
    return raised(binomial_upper(votes, samples, share * alpha), tv)


def raised(upper: float, tv: float) -> float:
    """An upper bound on a probability, under a law within total variation distance ``tv``; rounded up."""
    return upper if tv == 0 else min(1.0, float(np.nextafter(upper + tv, 2.0)))


@checked
def told_apart(votes: int, rival: int, *, rivals: int, alpha: float) -> bool:
    """Whether ``votes`` show their class to be more probable than one with ``rival`` votes.

    Claim: let class c have at least the probability of ``rivals`` others. Over all sample numbers together,
    one of these is ever told apart from c with probability at most alpha.

    Proof. Of the samples that vote for one of two classes let a share q <= 1/2 vote for the first, k so
    far, and l for the second. For theta >= 1/2 the product (2 theta)^k (2 - 2 theta)^l is a nonnegative
    supermartingale from 1: its factor has the mean 2 (theta q + (1 - theta)(1 - q)) <= 1. So is its mean over
    theta from the upper half of Beta(1/2, 1/2). For k > l that mean is at least 2^(k+l) B(k + 1/2, l + 1/2)
    / B(1/2, 1/2), as Beta(k + 1/2, l + 1/2) has half of its mass or more above 1/2. By Ville's inequality it
    ever reaches rivals / alpha with probability at most alpha / rivals; then the union bound.

    Source: R. Krichevsky, V. Trofimov, IEEE Transactions on Information Theory 27 (1981), the mixture.
    """
    check_alpha(alpha)
    for name, value in (("votes", votes), ("rival", rival)):
        within(name, value, 0, 2**53, "a number of votes")
    within("rivals", rivals, 1, 2**53, "a number of classes")
    if votes <= rival:
        return False
    k, m = votes, rival
    beta = math.lgamma(k + 0.5) + math.lgamma(m + 0.5) - math.lgamma(k + m + 1.0)
    return (k + m) * math.log(2.0) + beta - math.log(math.pi) - _LOST >= math.log(rivals / alpha)
