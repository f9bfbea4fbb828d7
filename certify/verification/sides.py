"""What a sequential run says of the leader between two targets, and of the runner-up, at a look.

The plan names, for each gap between targets, a cap and a level; a level for the other classes and one that
tells classes apart; and what share of a level each look may use. A record that ended at look j, after its
class had reached m targets, may claim the Clopper-Pearson bound at the gap's level (up to the cap) for its
class, and the one from above for the most-voted other class. Where no target was reached its class must be
told apart: 2^(k+l) B(k + 1/2, l + 1/2) / pi, with k votes against l, must have reached the number of classes
over that level.

Of a leader with probability p between two targets two things may be claimed falsely: the next target (or one
of another class), and, for p below the cap, the bound. So the error of the boundaries up to the cap and the
gap's level must fit into the leader's part of alpha; the rest of it pays for all else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from certify.records import Record
from certify.verification.independent import lower_bound, tail_at_least
from certify.verification.rivals import most_voted, upper_fault

CLOSE = 1e-9
#: Two programmes may disagree on a probability, and on a logarithm of bets, by this share.
ROUNDING, _BETS = 1e-7, 1e-9


class PlanFault(Exception):
    """What is wrong with a run's boundaries."""


class Sides:
    """The part of a stored plan that is about both sides."""

    def __init__(self, body: Mapping[str, Any], *, share: float, alpha: float, classes: int) -> None:
        self.caps = [float(c) for c in body["caps"]]
        self.levels = [float(a) for a in body["levels"]]
        self.rivals, self.apart = float(body["rivals"]), float(body["apart"])
        self.weights = [float(w) for w in body["weights"]]
        self.most, self.classes = (1 - share) * alpha, classes
        parts = (*self.levels, self.rivals, self.apart, *self.weights)
        if len(self.caps) != len(self.levels) or not all(0 <= part <= 1 for part in parts):
            raise PlanFault("every gap needs a cap, and a level between 0 and 1")
        if not self.rivals + self.apart <= share * alpha * (1 + CLOSE):
            raise PlanFault(
                f"the other classes' bounds have level {self.rivals + self.apart:g}, not {share:g} alpha"
            )
        if not math.fsum(self.weights) <= 1 + CLOSE:
            raise PlanFault("the looks use more than the whole of a level")

    def check_gap(self, m: int, targets: Sequence[float], error: float) -> None:
        """PlanFault where gap m claims too much; ``error``: that of the boundaries below its cap."""
        low, high = (targets[m - 1] if m else 0.0), (targets[m] if m < len(targets) else 1.0)
        if not low < self.caps[m] <= high:
            raise PlanFault(
                f"the cap {self.caps[m]:.9g} does not lie between the targets {low:.9g} and {high:.9g}"
            )
        if not error + self.levels[m] <= self.most * (1 + ROUNDING):
            raise PlanFault(
                f"below {self.caps[m]:.9g} something false is said with probability "
                f"{error + self.levels[m]:.6g}, the leader's part of alpha is {self.most:g}"
            )

    def fault(self, r: Record, look: int, reached: int, base: float, tv: float) -> str | None:
        """Why p_lower and pb_upper do not follow from the record's votes, or None.

        ``base``: what the targets that its class reached prove by themselves.
        """
        label, n, weight = r.label or 0, r.samples, self.weights[look]
        k, rival = r.counts[label], most_voted(r.counts, n, label)
        if reached == 0 and not self._told_apart(k, rival):
            return f"{k} votes against {rival} do not tell its class from every other one"
        level = self.levels[reached] * weight if reached < len(self.levels) else 0.0
        bound = min(self.caps[reached], lower_bound(k, n, level)) - tv if level > 0 else 0.0
        expected = max(base, bound)
        said = f"p_lower is {r.p_lower:.12g}, {k} of {n} votes and the targets prove {expected:.12g}"
        if abs(r.p_lower - expected) > CLOSE:
            return said
        if r.p_lower > base + 1e-12 and (
            r.p_lower + tv > self.caps[reached] + 1e-12
            or tail_at_least(k, n, r.p_lower + tv) > level * (1 + CLOSE)
        ):
            return said
        return upper_fault(r, label, n, self.rivals * weight, tv)

    def _told_apart(self, k: int, m: int) -> bool:
        if k <= m:
            return False
        beta = math.lgamma(k + 0.5) + math.lgamma(m + 0.5) - math.lgamma(k + m + 1.0)
        won = (k + m) * math.log(2.0) + beta - math.log(math.pi)
        return self.apart > 0 and won >= math.log(self.classes / self.apart) - _BETS * (k + m)
