"""Beside nested tests: the leader's probability between two targets, and the runner-up's, at every look.

Nested tests (certify.sequential.nested) say "this class has at least probability t_m". They say nothing below
the first target, where (sigma / 2)(Phi^-1(p_A) - Phi^-1(p_B)) may be large (p_A = .45, p_B = .1), and nothing
about other classes. Here two bounds are read at a look as well. ``label`` is the class that reached the most
targets so far, t_m the largest of them, or, if none was reached (m = 0), the class with the most votes.

* L: the Clopper-Pearson bound on its probability at level a_m w_j, not less than t_m and not more than c_m.
* U: the one from above at level u w_j that belongs to the largest count among all others, samples without a
  class included.
* If m = 0 nothing is said unless the label is told apart from all others (``certify.runner_up.told_apart``,
  level v, which holds at all times together).

The w_j add up to 1 over the looks, and u + v = s alpha, the runner-up's share.

Claim. With the nested tests at level (1 - s) alpha, everything that is said at any look is true with
probability at least 1 - alpha: the targets reached, L as a bound on the label's probability, and U as one on
that of every other class.

Proof. Let 1 be the most probable class, 2 the next (of equal ones those of smaller number; "no class" counts
as one). Both are determined by the probabilities alone. Let t_m <= p_1 < t_(m+1), and e(p_1) the probability
that class 1 reaches t_(m+1) or another class reaches t_1, which the nested tests keep below (1 - s) alpha. If
neither happens, a label that reached a target is class 1, and it reached no more than m of them.

* The label is 1 and reached less than m: L <= c <= the target after those, which is at most p_1.
* The label is 1 and reached m: L > p_1 needs p_1 < c_m, and a Clopper-Pearson bound above p_1 at some look:
  at most the sum of the a_m w_j, which is a_m.
* The label is another class: it reached no target, so it was told apart from class 1: at most v.
* The label is 1 and U < p_2 at some look: U is not less than the bound that belongs to the count of class 2,
  so the probability is at most the sum of the u w_j, which is u.

If p_1 >= c_m, all together is at most e(p_1) + u + v <= alpha. If p_1 < c_m, it is at most
e(p_1) + a_m + u + v, and a_m is what e leaves of (1 - s) alpha on [t_m, c_m), where it is bounded as follows.

* m = 0: any class reaches t_1, all having less than c_0. The boundaries exceed half of the votes, so that
  probability is Schur-convex in the probabilities (certify.sequential) and largest where as many of them as
  possible are c_0; there it is at most the sum over the classes.
* m > 0: f_(m+1)(c_m) for class 1, and f_1(1 - t_m) for all others together.

c_m lies a little below t_(m+1), where reaching it is still improbable: nearly all of (1 - s) alpha is left.
The bounds may be read at any look, also at that at which sampling ends, however that was decided.

Which radius follows, and why U needs no division by the number of classes: certify.runner_up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from certify.bounds import binomial_lower, binomial_upper
from certify.runner_up import told_apart
from certify.sequential.nested import wrong_label
from certify.sequential.uncontested import Uncontested, loosest
from certify.sequential.walks import SAFETY, crossing

#: Of the share for the runner-up: the part that tells classes apart where no target was reached.
APART = 0.1
#: The part of the leader's level that may be gone by the caps; where they are tried, in standard deviations
#: of a share of all samples below the next target.
_GONE, _BELOW = 0.05, (0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
#: The last look's part of a level; the others share the rest.
_LAST = 0.5


@dataclass(frozen=True)
class Gap:
    """Between the target reached and the next one: ``cap`` is c_m, ``level`` is a_m (0: nothing is read)."""

    cap: float
    level: float


class Gaps:
    """The bounds of the module's text for one plan.

    ``looks`` (J,), ``targets`` (M,), ``accept`` (M, J) and ``rule`` are those of the nested tests, made at
    level (1 - share) alpha. ``read``: in how many gaps, from below the first target on, the leader is
    bounded. ``classes``: how many there are ("no class" is not counted).
    """

    def __init__(
        self,
        looks: np.ndarray,
        targets: Sequence[float],
        accept: np.ndarray,
        rule: Uncontested | None,
        *,
        alpha: float,
        share: float,
        classes: int,
        read: int,
    ) -> None:
        self.looks, self.classes = looks, classes
        self.rival_level, self.apart_level = share * alpha * (1 - APART), share * alpha * APART
        self.weights = look_weights(len(looks))
        most = (1 - share) * alpha
        ends = [0.0, *(float(t) for t in targets), None]
        self.gaps = tuple(
            _gap(
                *_errors_in(m, looks, targets, accept, rule),
                ends[m] or 0.0,
                ends[m + 1],
                int(looks[-1]),
                most,
            )
            for m in range(min(read, len(targets) + 1))
        )

    def bounds(self, j: int, votes: int, rival: int, reached: int) -> tuple[float, float]:
        """(L, U) at look j: ``votes`` of the label, which reached so many targets, ``rival`` of the next.

        (0, 1) where nothing is said. L is 0 where the targets alone speak.
        """
        n, weight = int(self.looks[j]), float(self.weights[j])
        if reached == 0 and not told_apart(votes, rival, rivals=self.classes, alpha=self.apart_level):
            return 0.0, 1.0
        lower = 0.0
        if reached < len(self.gaps) and self.gaps[reached].level > 0:
            gap = self.gaps[reached]
            lower = min(gap.cap, binomial_lower(votes, n, gap.level * weight))
        return lower, binomial_upper(rival, n, self.rival_level * weight)


def look_weights(looks: int) -> np.ndarray:
    """(J,): the part of a level that each look may use; half for the last one. They add up to 1 at most."""
    if looks == 1:
        return np.ones(1)
    weights = np.full(looks, (1 - _LAST) / (looks - 1) * (1 - 1e-12))
    weights[-1] = _LAST
    return weights


def hopeful(votes: int, rival: int, n: int) -> tuple[float, float]:
    """The two counts after luck that is hardly ever had: what to go on for, never what is claimed."""
    spread = [2.0 * math.sqrt(k * (1 - k / n) + 1.0) for k in (votes, rival)]
    return min(float(n), votes + spread[0]), max(0.0, rival - spread[1])


def _errors_in(
    m: int, looks: np.ndarray, targets: Sequence[float], accept: np.ndarray, rule: Uncontested | None
) -> tuple[Callable[[float], float], float]:
    """Two parts that bound e(p_1) for t_m <= p_1 < c: a function of c, and what does not depend on it."""
    if m == 0:
        first = loosest(accept[0], rule)
        return lambda c: _any_reaches(looks, first, c), 0.0
    others = wrong_label(looks, accept[0], rule, float(targets[m - 1]))
    if m == len(targets):
        return lambda c: 0.0, others
    return lambda c: crossing(looks, accept[m], c), others


def _any_reaches(looks: np.ndarray, first: np.ndarray, most: float) -> float:
    """Bound on P(some class reaches ``first``) where none has more than the probability ``most``."""
    full = math.floor(1 / most)
    return full * crossing(looks, first, most) + crossing(looks, first, max(0.0, 1 - full * most))


def _gap(
    own: Callable[[float], float], others: float, low: float, target: float | None, n: int, most: float
) -> Gap:
    """The highest cap tried at which ``own`` leaves the leader's level ``most`` nearly whole."""
    if target is None:
        return Gap(1.0, _left(most, others))
    for c in _BELOW:
        cap = target - c * math.sqrt(target * (1 - target) / n)
        if cap <= low:
            break
        if (found := own(cap)) <= _GONE * most:
            return Gap(cap, _left(most, found + others))
    return Gap(low, 0.0)


def _left(most: float, gone: float) -> float:
    """What is left of a level; 0 where that is not worth a bound."""
    left = most - gone * (1 + SAFETY)
    return left if left > _GONE * most else 0.0
