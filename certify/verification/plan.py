"""The boundaries of a sequential run: is their error probability what the run promises?

Targets p_1 < ... < p_M are tested at common looks. A record claims p_m if at some look n_j the
leader's count reached accept[m][j]. The claim is false if the class's probability is below p_m.
For a leader with probability p in [p_{m-1}, p_m), a false claim means that it reached boundary
m, or that another class (probability at most 1 - p) reached boundary 1. Both probabilities grow
with their argument, so on a piece [a, b] of that interval the error is at most
reach_m(b) + reach_1(1 - a); pieces are halved until the bound is at most alpha. Below p_1 every
claim is false, and the worst case is two classes with p_1 and 1 - p_1.

A run may also claim p_1 at the last look n from fewer votes where every other class has at most
``rival`` of them. With a split m < 1 - p_1, either the second class's probability is at most m, and
the three classes p_1, m, 1 - p_1 - m are the worst case; or two classes exceed m, one of them had
at most ``rival`` votes, and 2 P(Bin(n, m) <= rival) is added to the error of the boundary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from certify.records import Record
from certify.verification.ball import between_of, reach_of
from certify.verification.independent import Work, ever_reached
from certify.verification.rivals import share_of
from certify.verification.sides import ROUNDING, PlanFault, Sides

_HALVINGS = 12
#: More looks and targets than any plan has; the work that checking one may take (multiplications).
_MOST, _WORK = 5000, 10**11


def looks_of(options: Mapping[str, Any]) -> list[int]:
    """The looks that a mode's options stand for: first, each later by the factor growth, up to n_max.

    One, where there is nothing to look at before the end; with planned stakes, as many as the blocks of
    any plan for so many samples. Raises PlanFault for more than any plan has.
    """
    if options.get("bets") == "timed":
        last = int(options["n_max"])
        return [last] * (_BLOCKS * max(1, last.bit_length() - 4))
    if "growth" not in options:
        return [int(options["n_max"] if "n_max" in options else options["n"])]
    last, growth = int(options["n_max"]), float(options["growth"])
    looks = [min(int(options["first"]), last)]
    while looks[-1] < last:
        if len(looks) > _MOST or not 1 < growth < math.inf:
            raise PlanFault(f"looks that grow by the factor {growth} are those of no plan")
        looks.append(min(last, max(looks[-1] + 1, math.ceil(looks[-1] * growth))))
    return looks


#: Blocks up to a horizon at most: each is 1/24 of it or more.
_BLOCKS = 24


class _Rule:
    """What certifies the first target at the last look beside its boundary."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.votes, self.rival = int(body["votes"]), int(body["rival"])
        self.split = float(body["split"])


class Plan:
    """Looks, targets and boundaries of a run, with the settings that fixed them."""

    def __init__(self, body: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.looks: list[int] = [int(n) for n in body["looks"]]
        self.targets: list[float] = [float(p) for p in body["targets"]]
        self.accept: list[list[int]] = [[int(k) for k in row] for row in body["accept"]]
        rule = body.get("uncontested")
        self.uncontested = None if rule is None else _Rule(rule)
        self.settings = settings
        options = settings["mode_options"]
        share = share_of(settings)
        self.alpha = float(settings["alpha"]) * (1 - share)
        self.tv = float(options.get("tv", 0.0))
        self.n_max = int(options["n_max"])
        self.error = 0.0
        self.work = Work(_WORK)
        self.sides = None
        if share:
            alpha, classes = float(settings["alpha"]), int(settings["num_classes"])
            self.sides = Sides(body["runner_up"], share=share, alpha=alpha, classes=classes)
        self._check_shape(options)
        self._check_settings(options)

    @classmethod
    def of(cls, body: Any, settings: Mapping[str, Any]) -> Plan:
        """The stored plan. Raises PlanFault where it is missing or malformed."""
        if not isinstance(body, Mapping):
            raise PlanFault("the run holds no table of its boundaries")
        try:
            return cls(body, settings)
        except (ArithmeticError, LookupError, TypeError, ValueError) as cause:
            raise PlanFault(f"the table of boundaries is malformed: {cause!r}") from cause

    def _check_shape(self, options: Mapping[str, Any]) -> None:
        if max(len(self.looks), len(self.targets)) > _MOST:
            raise PlanFault(f"{len(self.looks)} looks and {len(self.targets)} targets are those of no plan")
        increasing = all(a < b for a, b in pairwise(self.looks))
        if not self.looks or not increasing or self.looks[0] < 1 or self.looks[-1] != self.n_max:
            raise PlanFault(f"looks must increase to n_max = {self.n_max}")
        rising = all(a < b for a, b in pairwise(self.targets))
        if not self.targets or not rising or not all(0.5 <= p < 1 for p in self.targets):
            raise PlanFault("targets must increase from 1/2 or more to below 1")
        if len(self.accept) != len(self.targets) or any(len(row) != len(self.looks) for row in self.accept):
            raise PlanFault("every target needs one boundary per look")
        for j, n in enumerate(self.looks):
            column = [row[j] for row in self.accept]
            if column[0] <= n // 2 or any(a > b for a, b in pairwise(column)):
                raise PlanFault(
                    f"the boundaries at look {n} must exceed half and not fall from target to target"
                )
        if self.sides and (
            len(self.sides.weights) != len(self.looks) or len(self.sides.caps) > len(self.targets) + 1
        ):
            raise PlanFault("the bounds on both sides are not those of these looks and targets")
        self._check_rule()
        if "p_target" in options and not abs(self.targets[0] - options["p_target"] - self.tv) <= 1e-12:
            raise PlanFault(f"the run tests p = {options['p_target']}, its boundaries {self.targets[0]}")

    def _check_settings(self, options: Mapping[str, Any]) -> None:
        """The table is that of the settings: what is later taken again at another level starts from those."""
        if "growth" in options and self.looks != looks_of(options):
            raise PlanFault("the looks are not the ones that first, growth and n_max of the settings give")
        if "p_targets" not in options:
            return
        needed, radii = [float(p) for p in options["p_targets"]], [float(r) for r in options["radii"]]
        apart = [abs(p + self.tv - said) for p, said in zip(needed, self.targets, strict=False)]
        if len(self.targets) > len(needed) or max(apart) > 1e-12:
            raise PlanFault("the targets are not the ones that the settings name")
        reach = reach_of(self.settings)
        if len(radii) != len(needed) or any(a >= b for a, b in pairwise(radii)) or reach is None:
            raise PlanFault("the radii of the settings are no increasing list, one for each probability")
        for p, radius in zip(needed, radii, strict=True):
            if radius > reach(p) * (1 + 1e-11) + 1e-15:
                raise PlanFault(f"class probability {p:.9g} does not prove radius {radius:.9g}")

    def _check_rule(self) -> None:
        rule, n, first = self.uncontested, self.looks[-1], self.targets[0]
        if rule is None:
            return
        # Only classes with more than half of the votes may be claimed: the proof needs it.
        if not (n // 2 < rule.votes <= n and 0 <= rule.rival <= n // 2):
            raise PlanFault(f"{rule.votes} votes against {rule.rival} of {n} are no rule for the last look")
        if not (1 - first) / 2 <= rule.split < 1 - first:
            raise PlanFault(f"a split at {rule.split:.9g} proves nothing about the target {first:.9g}")

    def check_error(self, records: Sequence[Record]) -> None:
        """Bound the error of every target up to the largest claimed; PlanFault if it exceeds alpha."""
        last = max((self.claimed(r) for r in records if r.certified), default=0)
        if self.sides:
            self._check_gaps(self.sides)
            last = max(last, 0)
        for m in range(min(last + 1, len(self.targets))):
            error = self._error_of_first() if m == 0 else self._error_of(m)
            self.error = max(self.error, error)
            if error > self.alpha * (1 + ROUNDING):
                raise PlanFault(
                    f"target {self.targets[m]:.9g} is wrongly reached with probability {error:.6g}, "
                    f"alpha is {self.alpha:g}"
                )

    def _check_gaps(self, sides: Sides) -> None:
        """Below each cap, what the boundaries may say falsely and the gap's own level fit together."""
        rule, first = self.uncontested, self.accept[0]
        lowest = first if rule is None else [*first[:-1], min(rule.votes, first[-1])]
        for m, (cap, level) in enumerate(zip(sides.caps, sides.levels, strict=True)):
            if level == 0:
                continue
            if m == 0:
                full = math.floor(1 / cap) if cap > 0 else 0
                error = full * self._reached(self.looks, lowest, cap)
                error += self._reached(self.looks, lowest, max(0.0, 1 - full * cap))
            else:
                error = self._other_reached(self.targets[m - 1])
                error += self._reached(self.looks, self.accept[m], cap) if m < len(self.targets) else 0.0
            sides.check_gap(m, self.targets, error)

    def claimed(self, record: Record) -> int:
        """The target's position that a certified record claims (0 in decide mode; -1: none of them)."""
        target = record.details.get("target", 0)
        return target if isinstance(target, int) else len(self.targets)

    def fault(self, record: Record) -> str | None:
        """Why the record does not follow from the boundaries, or None."""
        if record.samples not in self.looks:
            return f"sampling ended at {record.samples}, which is not a look"
        look, said = self.looks.index(record.samples), record.details.get("look")
        if said != look:
            return (
                f"it says that it ended at look {said}, its {record.samples} samples are those of look {look}"
            )
        if not record.certified:
            fine = record.p_lower == 0.0 and (self.sides is None or record.pb_upper == 1.0)
            return None if fine else f"an abstention claims p_lower = {record.p_lower:.9g}"
        m, label = self.claimed(record), record.label
        if m == -1 and self.sides and label is not None and 0 <= label < len(record.counts):
            return self.sides.fault(record, look, 0, 0.0, self.tv) or self._radius_fault(record, m)
        if not 0 <= m < len(self.targets) or label is None or not 0 <= label < len(record.counts):
            return f"target {m} or class {label} does not exist"
        n = int(record.details.get("reached_at", record.samples))
        k = int(record.details.get("reached_count", record.counts[label]))
        final = record.counts[label]
        possible = 0 <= k <= n and k <= final <= k + record.samples - n
        if n not in self.looks or n > record.samples or not possible:
            return f"{k} votes at {n} samples cannot have become {final} at {record.samples}"
        needed = self._needed(record, m, n)
        if k < needed:
            return f"{k} of {n} votes do not reach the boundary {needed} of p = {self.targets[m]:.9g}"
        if self.sides:
            base = self.targets[m] - self.tv
            return self.sides.fault(record, look, m + 1, base, self.tv) or self._radius_fault(record, m)
        if not abs(record.p_lower - (self.targets[m] - self.tv)) <= 1e-12:
            return f"p_lower is {record.p_lower:.12g}, the boundary proves {self.targets[m] - self.tv:.12g}"
        return self._radius_fault(record, m)

    def _needed(self, record: Record, m: int, n: int) -> int:
        """The votes that target m needs at the look of n samples."""
        needed, rule = self.accept[m][self.looks.index(n)], self.uncontested
        if m == 0 and rule is not None and n == self.looks[-1]:
            rivals = [k for label, k in enumerate(record.counts) if label != record.label]
            if max(rivals, default=0) <= rule.rival:
                return min(needed, rule.votes)
        return needed

    def _radius_fault(self, record: Record, m: int) -> str | None:
        options = self.settings["mode_options"]
        if self.sides:
            return self._two_sided_fault(record, m)
        asked = {"decide": [options.get("radius")], "grid": options.get("radii")}.get(self.settings["mode"])
        if asked is not None and (m >= len(asked) or record.radius != asked[m]):
            return f"radius {record.radius:.9g} is not the one that was tested"
        return None

    def _two_sided_fault(self, record: Record, m: int) -> str | None:
        """Tested radii: one of those asked for, proved by target m or both bounds; and the one-sided one."""
        options, both = self.settings["mode_options"], between_of(self.settings)
        asked = {"decide": [options.get("radius")], "grid": options.get("radii")}.get(self.settings["mode"])
        if asked is None or both is None:
            return None
        alone = asked[m] if m >= 0 else 0.0
        if record.details.get("one_sided") != alone:
            return f"its radius without the runner-up is not the {alone:.9g} that its target proves"
        proved = max(alone, both(record.p_lower, record.pb_upper) * (1 + 1e-12))
        if record.radius not in asked or not alone <= record.radius <= proved:
            return f"radius {record.radius:.9g} is not the one that was tested"
        return None

    def _reached(self, looks: Sequence[int], accept: Sequence[int], p: float, **mirrored: Any) -> float:
        return ever_reached(looks, accept, p, work=self.work, **mirrored)

    def _error_of_first(self) -> float:
        first = self.targets[0]
        mirrored = self._reached(self.looks, self.accept[0], first, mirrored=self.accept[0])
        rule = self.uncontested
        if rule is None:
            return mirrored
        n, lowered = self.looks[-1], [*self.accept[0][:-1], min(rule.votes, self.accept[0][-1])]
        apart = sum(
            self._reached(self.looks, lowered, p) for p in (first, rule.split, 1 - first - rule.split)
        )
        return max(apart, mirrored + 2 * self._reached([n], [n - rule.rival], 1 - rule.split))

    def _other_reached(self, p: float) -> float:
        """P(a class beside the top one, whose probability is p, reaches the first target), bounded."""
        reached, rule = self._reached(self.looks, self.accept[0], 1 - p), self.uncontested
        if rule is not None:
            reached += self._reached(self.looks[-1:], [self.looks[-1] - rule.rival], 1 - p)
        return reached

    def _error_of(self, m: int) -> float:
        pieces, worst = [(self.targets[m - 1], self.targets[m], 0)], 0.0
        while pieces:
            low, high, depth = pieces.pop()
            error = self._reached(self.looks, self.accept[m], high)
            error += self._other_reached(low)
            if error > self.alpha * (1 + ROUNDING) and depth < _HALVINGS:
                middle = (low + high) / 2
                pieces += [(low, middle, depth + 1), (middle, high, depth + 1)]
            else:
                worst = max(worst, error)
        return worst
