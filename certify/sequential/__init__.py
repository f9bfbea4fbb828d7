"""The exact group-sequential test: is the probability of the leading class at least p_target?

Votes are counted at looks n_1 < ... < n_J that are fixed before sampling. The class whose count
reaches ``accept_j`` at look j is certified; sampling ends early (without certificate) when the
leader's count has fallen to ``futility_j``. Between looks nothing is decided.

Why one test serves every class, without samples spent on choosing one
----------------------------------------------------------------------
``accept_j > n_j / 2``, so at each look at most one class, the leader, can reach it. Let E be the
event that a class with p_c < p_target is ever certified, were sampling never stopped early
(early stopping only makes E smaller). Two cases.

1. Some class has p_A >= p_target. Only the others are false, and a class reaches the boundary
   only if all the others together do: P(E) <= f(1 - p_target), with f(p) the probability that a
   class of probability p ever reaches the boundary; f increases in p.
2. Every p_c < p_target. Merge probability from a smaller class into a larger one: seen only at
   their own samples, the difference of the two counts is a +-1 walk, whose absolute value is a
   Markov chain: from k >= 1 it moves up with probability (a^(k+1) + b^(k+1)) / (a^k + b^k), a and
   b = 1 - a being the two shares, which increases in |a - b| and in k; from 0 it always moves up.
   So |difference| grows stochastically, path by path, and with it the chance that the larger of
   the two counts ever reaches the boundary: P(E) is Schur-convex in (p_c). Vectors bounded by
   p_target are majorised by (p_target, 1 - p_target).

Hence P(E) <= P(either of two classes with probabilities p_target and 1 - p_target ever reaches
the boundary) in both cases. That is the number ``false_certification``, computed exactly below
and kept <= alpha. At p_target = 1/2 it halves the budget of each side; from about 0.6 on the
second class adds nothing that can be seen. Where the other classes stay well below half of the
votes, ``uncontested`` gives the second half back.

References: group-sequential error spending, Lan and DeMets, Biometrika 70 (1983); exact binomial
boundaries by recursion, Armitage, McPherson and Rowe, JRSS A 132 (1969); the reflected walk and
Schur-convexity of multinomial maxima, Olkin, Biometrika 59 (1972).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from certify.bounds import check_alpha
from certify.calls import checked
from certify.sequential.boundaries import (
    check_gamma,
    check_p_target,
    check_probability,
    futility_boundary,
    plan_looks,
    spending,
)
from certify.sequential.uncontested import Uncontested, loosest, mirrored_boundary
from certify.sequential.walks import crossing, stopping

#: See ``certify.sequential.boundaries.spending``: one radius is asked for, so early looks may spend more.
_SHIFT = 3e-4


@dataclass(frozen=True)
class Operating:
    """What a test does to a class of a given probability: chances of each end, and the cost."""

    certified: float
    futile: float
    exhausted: float
    samples: float


@dataclass(frozen=True)
class ExactSequentialTest:
    """Certify a class as having probability >= ``p_target``, wrongly with probability <= alpha.

    ``n_max`` is the last look; looks start at ``first`` and grow by the factor ``growth``.
    ``gamma`` is the chance of giving up early on an input that the last look would just accept;
    it costs power only, never alpha. Plans are computed once and cached. Raises InvalidSetting
    for settings outside alpha in (0, 0.5), p_target in [0.5, 1), growth > 1, first >= 1,
    n_max >= 1, gamma in [0, 0.5).
    """

    alpha: float
    p_target: float
    n_max: int = 100_000
    first: int = 16
    growth: float = 1.1
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_p_target(self.p_target)
        check_gamma(self.gamma)
        plan_looks(self.first, self.growth, self.n_max)

    @property
    def looks(self) -> np.ndarray:
        """Cumulative numbers of samples at which counts are read: (J,) int64, increasing."""
        return plan_looks(self.first, self.growth, self.n_max)

    @property
    def accept(self) -> np.ndarray:
        """(J,) int64: the leader is certified when its count is >= accept[j]; n_j + 1 means never."""
        return _plan(self)[0]

    @property
    def uncontested(self) -> Uncontested | None:
        """What certifies at the last look beside ``accept``; None except near p_target = 1/2."""
        return _plan(self)[3]

    @property
    def futility(self) -> np.ndarray:
        """(J,) int64: give up when the leader's count is <= futility[j]; -1 means never."""
        return _plan(self)[1]

    @property
    def false_certification(self) -> float:
        """Upper bound (rounded up) on P(some class with p_c < p_target is certified), any classes."""
        return _plan(self)[2]

    def error_probability(self, p: float) -> float:
        """P(a class of probability p ever reaches ``accept``), exact, rounded up; without ``uncontested``.

        Computed as if futility did not stop sampling: the bound holds even when someone
        continues past it.
        """
        return crossing(self.looks, self.accept, check_probability(p))

    def operating(self, p: float) -> Operating:
        """Exact chances and expected samples for a leader of probability p, futility included.

        The other classes are taken never to overtake the leader, nor to leave it uncontested.
        """
        return operating(self.looks, self.accept, self.futility, check_probability(p))

    def expected_samples(self, p: float) -> float:
        """Expected number of samples until the test ends, for a leader of probability p."""
        return self.operating(p).samples


@checked
def operating(looks: np.ndarray, accept: np.ndarray, futility: np.ndarray, p: float) -> Operating:
    """Exact operating characteristics of a pair of boundaries for a class of probability p."""
    certified = futile = samples = 0.0
    n, left = 0, 1.0
    for n, up, down, running in stopping(looks, accept, futility, p):
        certified, futile, samples = certified + up, futile + down, samples + n * (up + down)
        left = running
    return Operating(certified, futile, left, samples + n * left)


@functools.lru_cache(maxsize=512)
def _plan(test: ExactSequentialTest) -> tuple[np.ndarray, np.ndarray, float, Uncontested | None]:
    looks = test.looks
    spent_by = spending(looks, test.p_target, test.alpha, _SHIFT)
    accept, error, rule = mirrored_boundary(looks, test.p_target, spent_by)
    return accept, futility_boundary(looks, loosest(accept, rule), test.gamma), error, rule
