"""Level 2 for statements about a population: who was counted, the proof behind the rules, every bound again.

Nothing of ``certify.population`` is used for what a bound rests on. That P_c <= 0 on the whole of [0, p*] is
proved in whole numbers, rounded up; the gambler's capital is computed again with other arithmetic,
binomial tails are summed. A rule must also be the one that its pilot gives, or as good on the pilot:
weights chosen to fit the counted inputs would prove nothing. For that the certifier's own
search is run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from certify.population.plan import Plan
from certify.population.rules import Rule, design, design_mean, rejudged
from certify.population.statements import DOCUMENT, MOST_REPEATS, Statement, sentence, stated
from certify.records import Record, Status
from certify.store.read import StoredRun
from certify.verification.bernstein import never_positive
from certify.verification.gambler import fixed_log_capital, means_to_test, timed_log_capital
from certify.verification.independent import lower_bound, tail_at_least

Found = tuple[str, bool | None, str]

CLOSE = 1e-9
#: Capital counts as 1/alpha if the logarithm is short of it by this: two arithmetics differ by less.
_SHORT = 1e-7
#: A rule may promise this much less on its pilot than the one that the search finds now.
_AS_GOOD = 1e-3
_NORMAL = NormalDist()


class Fault(Exception):
    """What is wrong with the run."""


def population_checks(stored: StoredRun) -> Iterator[Found]:
    """(check, ok, detail); ok is None where the run is not complete and states nothing yet."""
    options, document = stored.settings["mode_options"], stored.documents.get(DOCUMENT)
    order = drawn(int(options["of"]), int(options["inputs"]), stored.settings["seed"])
    try:
        by_id = _records(stored, order)
    except Fault as fault:
        yield "inputs", False, str(fault)
        return
    left = [id for id in order if id not in by_id]
    if left and document is None:
        yield "inputs", None, f"{len(left)} of {len(order)} inputs have no counts yet: nothing is stated"
        return
    if left or document is None:
        said = "states something" if left else "states nothing, and all inputs are there"
        yield "inputs", False, f"{len(left)} of {len(order)} inputs have no counts, and the run {said}"
        return
    yield "inputs", True, f"{len(order)} counted, drawn by the seed; {options['pilot']} of them as the pilot"
    right = np.array([by_id[id].counts[by_id[id].target or 0] for id in order], dtype=np.int64)
    statements = _Statements(stored, document, right)
    for name, check in (
        ("rules", statements.rules), ("pilot", statements.pilots), ("bounds", statements.bounds),
        ("statements", statements.sentences),
    ):  # fmt: skip
        try:
            yield name, True, check()
        except Fault as fault:
            yield name, False, str(fault)
            return


def drawn(of: int, inputs: int, seed: Any) -> list[int]:
    """The ids that the seed draws, the pilot's first: by the SHA-256 of "seed population id"."""
    keys = [(hashlib.sha256(f"{seed} population {id}".encode()).digest(), id) for id in range(of)]
    return [id for _, id in sorted(keys)[:inputs]]


def _records(stored: StoredRun, order: Sequence[int]) -> dict[int, Record]:
    options, wanted = stored.settings["mode_options"], set(order)
    data = stored.settings.get("data")
    of = data.get("count", options["of"]) if isinstance(data, Mapping) else options["of"]
    if of != options["of"]:
        raise Fault(f"its inputs were drawn from {options['of']}, its data set has {of}")
    if not 0 <= int(options["pilot"]) <= len(order) // 2 or len(order) > int(options["of"]):
        raise Fault(f"{options['pilot']} of {len(order)} inputs cannot be the pilot")
    found, digests = {}, []
    for r in stored.run:
        if r.index not in wanted:
            raise Fault(f"input {r.index} is not among those that the seed draws")
        if r.status is Status.FAILED:
            continue
        if fault := _record_fault(r, int(options["n"]), int(stored.settings["num_classes"])):
            raise Fault(f"input {r.index}: {fault}")
        found[r.index] = r
        digests.append(r.details.get("input"))
    repeats = len(digests) - len(set(digests))
    if repeats > MOST_REPEATS * len(order):
        raise Fault(f"{repeats} of {len(order)} inputs repeat others")
    return found


def _record_fault(r: Record, n: int, classes: int) -> str | None:
    if r.status is not Status.COUNTED:
        return f"it is {r.status}, which no run about a population makes of an input"
    if r.target is None or not 0 <= r.target < classes:
        return f"its true class {r.target} is not among the {classes} counted ones"
    if r.samples != n or len(r.counts) != classes or min(r.counts) < 0 or sum(r.counts) > n:
        return f"{len(r.counts)} counts with sum {sum(r.counts)} do not come from {n} copies"
    if r.label is not None or r.radius != 0 or r.p_lower != 0 or r.p_upper != 1:
        return "it claims something of its own"
    if not r.details.get("input"):
        return "it does not name its input by a hash"
    return None


class _Statements:
    """The stored statements and rules beside the counts they must follow from."""

    def __init__(self, stored: StoredRun, document: Mapping[str, Any], right: np.ndarray) -> None:
        self.settings, self.options = stored.settings, stored.settings["mode_options"]
        self.n, self.tv = int(self.options["n"]), float(self.options["tv"])
        self.pilot, self.counted = np.split(right, [int(self.options["pilot"])])
        self.repeats = len(right) - len({r.details.get("input") for r in stored.run})
        self.radii = [float(r) for r in self.options["radii"]]
        self.one_pass = bool(self.options["one_pass"])
        # One copy of each input gives one bound, on the mean of p, that all statements follow from.
        alone = self.n == 1 and self.options["about"] == "population"
        self.share = float(self.options["alpha"]) / (1 if alone else len(self.radii) + self.one_pass)
        said = stated(document)
        self.stated, self.found = said.statements, said.rules

    def rules(self) -> str:
        """Every rule is about what it should be, and its weights are proved to be at most the indicator."""
        known = {"one_pass"} if self.one_pass else set()
        for radius in self.radii:
            known |= {f"lower {radius!r}", f"upper {radius!r}"}
        if set(self.found) - known:
            raise Fault(
                f"there are rules for {sorted(set(self.found) - known)}, which nothing is stated about"
            )
        for name, rule in self.found.items():
            if fault := self._rule_fault(name, rule):
                raise Fault(f"the rule for {name}: {fault}")
        return f"{len(self.found)} rules, each proved for every p"

    def _rule_fault(self, name: str, rule: Rule) -> str | None:
        weights = rule.weights
        same = {"n": self.n, "inputs": len(self.counted), "about": self.options["about"]}
        for key, value in same.items():
            if getattr(rule, key) != value:
                return f"{key} is {getattr(rule, key)}, not {value}"
        if not rule.alpha <= self.share * (1 + 1e-12) or len(weights) != self.n + 1:
            return f"its level is {rule.alpha:g} of {self.share:g}, for {len(weights)} counts"
        if name == "one_pass":
            if rule.p_target != 0 or any(abs(c - k / self.n) > 1e-15 for k, c in enumerate(weights)):
                return "its weights are not k / n"
            return None if rule.method in ("mean", "threshold") else f"method {rule.method!r}"
        if not rule.p_target >= self._target(name):
            return f"p is {rule.p_target:.12g}, the radius needs {self._target(name):.12g}"
        if self.n == 1 and self.options["about"] == "population" and rule.method != "threshold":
            return "from one copy of each input all statements must rest on one bound"
        if rule.method == "threshold":
            return None if 1 <= (rule.threshold or 0) <= self.n else "it has no threshold"
        if rule.method != "minorant":
            return f"method {rule.method!r} is unknown"
        if max(weights) > 1.0:
            return f"a weight is {max(weights):.12g}, above 1"
        if not never_positive(weights, rule.p_target):
            return f"its expected weight is not at most 0 for every p up to {rule.p_target:.9g}"
        return None

    def _target(self, name: str) -> float:
        """What p must exceed, by the standard library's normal law."""
        side, _, radius = name.partition(" ")
        p = _NORMAL.cdf(float(radius) / float(self.settings["sigma"]))
        return p + self.tv if side == "lower" else 1.0 - (p - self.tv)

    def pilots(self) -> str:
        """Every rule is the one that the pilot gives, or one that is as good on the pilot."""
        for name, rule in self.found.items():
            apart = self.n - self.pilot if name.startswith("upper") else self.pilot
            again = rejudged(rule, apart)
            for key in ("variance", "stake", "anticipated"):
                here, there = getattr(again, key), getattr(rule, key)
                if not abs(here - there) <= 1e-6 * max(1.0, abs(here)):
                    raise Fault(f"the rule for {name}: {key} is {there:.9g}, the pilot gives {here:.9g}")
            how = self.n, len(self.counted), rule.alpha, rule.about
            if name == "one_pass":
                best = design_mean(apart, *how)
            else:
                best = design(apart, self.n, rule.p_target, *how[1:])
            if not rule.anticipated >= best.anticipated - _AS_GOOD:
                raise Fault(
                    f"the rule for {name} promises {rule.anticipated:.6g} on its pilot, where the search "
                    f"finds {best.anticipated:.6g}: it was not chosen by the pilot"
                )
        return "every rule is as good on its pilot as the best one found"

    def bounds(self) -> str:
        """Every end follows from the counts."""
        for row, radius in zip(self.stated, self.radii, strict=True):
            for side, claimed in (("lower", row.lower), ("upper", 1.0 - row.upper)):
                proved = self._proved(f"{side} {radius!r}", claimed)
                if abs(claimed - proved) > CLOSE:
                    end = row.lower if side == "lower" else row.upper
                    raise Fault(f"the {side} end at {radius:g} is {end:.9g}, the counts prove another")
        return f"{2 * len(self.radii)} ends recomputed"

    def _proved(self, name: str, claimed: float) -> float:
        """``claimed`` where the counts prove it and no more; else another number."""
        rule = self.found.get(name)
        if rule is None:
            return 0.0
        counts = self.n - self.counted if name.startswith("upper") else self.counted
        if rule.method == "threshold":
            u = rule.threshold or 0
            a = tail_at_least(u, self.n, rule.p_target) if rule.p_target > 0 else 0.0
            k = int((counts >= u).sum())
            return max(0.0, (lower_bound(k, len(counts), rule.alpha) - a) / (1 - a)) if a < 1 else 0.0
        if rule.anticipated <= 0:
            return 0.0
        means = means_to_test(rule.anticipated, rule.variance, len(counts))
        here = int(np.searchsorted(means, claimed - CLOSE, side="right"))
        # Up to the claimed mean all must be refuted; the next one must not.
        tried = means[: here + 2]
        weights = np.array(rule.weights)
        if rule.about == "set":
            histogram = np.bincount(counts, minlength=self.n + 1)
            best = fixed_log_capital(weights, histogram, tried, rule.alpha, rule.stake)
        else:
            best = timed_log_capital(weights, counts, tried, rule.alpha, rule.variance)
        refuted = np.flatnonzero(~(best >= -_SHORT))
        count = int(refuted[0]) if len(refuted) else len(tried)
        return float(tried[count - 1]) if count else 0.0

    def sentences(self) -> str:
        """The one-copy accuracies and the sentences say what the bounds say."""
        accuracy = self._mean() if self.one_pass else None
        for row, radius in zip(self.stated, self.radii, strict=True):
            self._check_row(row, radius, accuracy)
        return f"{len(self.stated)} statements say what was proved"

    def _mean(self) -> float:
        """The largest mean that the counts prove for one copy."""
        rule = self.found["one_pass"]
        if rule.method == "threshold":
            return lower_bound(int((self.counted >= 1).sum()), len(self.counted), rule.alpha)
        return self._proved("one_pass", 1.0)

    def _check_row(self, row: Statement, radius: float, accuracy: float | None) -> None:
        fixed = {
            "radius": radius, "samples_per_input": self.n, "inputs": int(self.options["inputs"]),
            "counted": len(self.counted), "pilot": len(self.pilot), "repeats": self.repeats,
            "passes": int(self.options["inputs"]) * self.n, "confidence": 1 - float(self.options["alpha"]),
        }  # fmt: skip
        for key, value in fixed.items():
            if getattr(row, key) != value:
                raise Fault(f"radius {radius:g}: {key} is {getattr(row, key)}, not {value}")
        for key, value in self._one_copy(radius, accuracy).items():
            said = getattr(row, key)
            if (said is None) != (value is None) or (value is not None and abs(said - value) > CLOSE):
                raise Fault(f"radius {radius:g}: {key} is {said}, the counts give {value}")
        if row.statement != sentence(Plan.of_settings(self.settings), row):
            raise Fault(f"radius {radius:g}: the sentence does not say what its numbers say")

    def _one_copy(self, radius: float, accuracy: float | None) -> dict[str, float | None]:
        if accuracy is None:
            return {"one_pass": None, "shifted": None}
        sigma, shift, h = float(self.settings["sigma"]), self.options["shift"], accuracy - self.tv
        left = _NORMAL.cdf(_NORMAL.inv_cdf(h) - radius / sigma) - self.tv if 0 < h < 1 else 0.0
        moved = None
        if shift is not None:
            moved = max(0.0, accuracy - (2 * _NORMAL.cdf(shift / (2 * sigma)) - 1) - 2 * self.tv)
        return {"one_pass": max(0.0, left), "shifted": moved}
