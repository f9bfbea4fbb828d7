"""Nested sequential tests: the largest of many targets, each at the full alpha.

Targets 1/2 <= p_1 < p_2 < ... < p_M share their looks, and their boundaries are nested: reaching
target m means reaching every smaller one at the same look. If the true top class has
p_{m-1} <= p_A < p_m, a false statement is one of two things: class A reaches target m (all larger
false targets lie inside that event), or another class reaches the lowest target, where it would be
named as the label. So the error is at most

    f_m(p_A) + f_1(1 - p_A),        f_m(p) = P(a class of probability p ever reaches boundary m),

and there is nothing to divide among the targets. The sum is kept <= alpha on the whole interval by
splitting it at a point a: f_m(a) + f_1(1 - p_{m-1}) <= alpha on the left, and f_m(p_m) + f_1(1 - a)
<= alpha on the right, f being increasing. Below p_1 every statement is false and the mirrored
design of target 1 bounds it (certify.sequential gives the argument for many classes; at the last
look certify.sequential.uncontested adds to target 1, and its share is counted in f_1).

Applied to a fine grid of targets this is a sequential Clopper-Pearson bound: the inversion of exact
tests, valid at whatever look sampling ends, floored to the grid. Between two targets nothing may be
interpolated: the exact boundary is concave in p, a chord runs below it, and the error exceeds alpha.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from certify.errors import InvalidSetting
from certify.sequential.boundaries import accept_boundary, futility_boundary
from certify.sequential.uncontested import Uncontested, loosest, mirrored_boundary
from certify.sequential.walks import crossing

#: Where an interval between neighbouring targets is split when its error is bounded.
_SPLIT = 0.75

#: How error may be spent: (looks, p_target, alpha) -> cumulative spending, alpha at the last look.
Spending = Callable[[np.ndarray, float, float], np.ndarray]


class NestedTests:
    """Boundaries of M nested tests on common looks.

    ``accept`` is (M, J) int64, nondecreasing along M. ``errors`` is (M,): an upper bound on the
    probability of a false statement when p_A lies between the target before and each target.
    ``uncontested`` reaches target 1 at the last look beside ``accept`` (None where it adds nothing).
    Targets that n_max samples cannot reach are dropped; ``targets`` holds those that remain.
    Raises InvalidSetting for targets that are no grid in [0.5, 1), or when nothing is reachable.
    """

    def __init__(self, targets: Sequence[float], looks: np.ndarray, alpha: float, spending: Spending) -> None:
        p = np.asarray(targets, dtype=np.float64)
        if len(p) == 0 or p[0] < 0.5 or np.any(np.diff(p) <= 0) or p[-1] >= 1:
            raise InvalidSetting(
                "the targets do not form a grid",
                why="they must increase strictly from 0.5 or more to below 1",
                remedy="use a positive step that leaves distinct probabilities between the targets",
            )
        self.looks = looks
        accept: list[np.ndarray] = []
        errors: list[float] = []
        first, error, self.uncontested = mirrored_boundary(looks, float(p[0]), spending(looks, p[0], alpha))
        others = functools.partial(wrong_label, looks, first, self.uncontested)
        wrong = 1.0  # f_1(1 - p), carried upward: it only shrinks
        for m, target in enumerate(p.tolist()):
            bound = first
            if m > 0:
                left = float(p[m - 1])
                if wrong > 1e-6 * alpha:
                    wrong = others(left)
                bound, error = _next(looks, accept[-1], left, target, alpha, spending, wrong, others)
            if bound[-1] > looks[-1]:
                break  # not even n_max unanimous votes would do
            accept.append(bound)
            errors.append(error)
        if not accept:
            raise InvalidSetting(
                f"n_max = {int(looks[-1])} samples cannot certify anything at alpha = {alpha:g}",
                why="even unanimous votes leave the class in doubt",
                remedy="raise n_max",
            )
        self.targets = p[: len(accept)]
        self.accept = np.stack(accept)
        self.errors = np.array(errors)

    def futility(self, gamma: float) -> np.ndarray:
        """(M, J) int64, nondecreasing along M: where to give up each target."""
        first = loosest(self.accept[0], self.uncontested)
        low = [futility_boundary(self.looks, bound, gamma) for bound in [first, *self.accept[1:]]]
        return np.maximum.accumulate(np.stack(low), axis=0)

    def reached(self, j: int, k: int, second: int | None = None) -> int:
        """How many targets a count of k reaches at look j (they are the smallest ones).

        ``second`` is the largest count of another class; without it, one close to k is assumed.
        """
        best = int(np.searchsorted(self.accept[:, j], k, side="right"))
        if best == 0 and second is not None and self.uncontested and j + 1 == len(self.looks):
            return int(self.uncontested.certifies(k, second))
        return best

    def error_probability(self, p: float) -> float:
        """Upper bound on P(false statement) if the top class has probability p.

        Exact for each of its two parts (see the module's text), whose sum bounds it. A top class
        below 1/2 is bounded by two classes at 1/2 each, the worst case.
        """
        m = int(np.searchsorted(self.targets, p, side="right"))
        if m == 0:
            mirrored = crossing(self.looks, self.accept[0], max(p, 0.5), mirrored=self.accept[0])
            rule = self.uncontested
            return mirrored if rule is None else max(mirrored + rule.slip, rule.error)
        wrong = wrong_label(self.looks, self.accept[0], self.uncontested, p)
        beyond = crossing(self.looks, self.accept[m], p) if m < len(self.targets) else 0.0
        return min(1.0, wrong + beyond)


def wrong_label(looks: np.ndarray, first: np.ndarray, rule: Uncontested | None, p: float) -> float:
    """Bound on P(a class other than the top one, of probability p, reaches target 1)."""
    contested = crossing(looks, first, 1 - p)
    return contested if rule is None else contested + rule.overtaken(int(looks[-1]), p)


def _next(
    looks: np.ndarray,
    before: np.ndarray,
    left: float,
    target: float,
    alpha: float,
    spending: Spending,
    wrong_left: float,
    wrong_label: Callable[[float], float],
) -> tuple[np.ndarray, float]:
    """Boundary of the next target and the error it leaves on [left, target)."""

    def build(reserve: float) -> tuple[np.ndarray, float]:
        spent_by = spending(looks, target, alpha - reserve)
        return accept_boundary(looks, target, spent_by, mirrored=False, at_least=before)

    if wrong_left > 1e-3 * alpha:
        middle = left + _SPLIT * (target - left)
        wrong_middle = wrong_label(middle)
        bound, error = build(wrong_middle)
        worst = max(error + wrong_middle, crossing(looks, bound, middle) + wrong_left)
        if worst <= alpha:
            return bound, worst
    bound, error = build(wrong_left)
    return bound, error + wrong_left
