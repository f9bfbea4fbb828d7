"""One run, read once: the records, the attacks on them and what follows from both.

Everything a report shows is derived here from stored evidence; nothing is certified, attacked
or sampled again.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from certify.bounds import binomial_interval
from certify.chances import error_probability
from certify.files.text import printable
from certify.radii import formula_table
from certify.records import Estimate, Record, Run, Status, robust_low
from certify.runner_up import share_of
from reports.attack_groups import AttackGroup, established, grouped
from reports.vocabulary import CLAIMED, PROVED, Vocabulary

#: Confidence level of every interval over inputs (the certificates have their own alpha).
LEVEL = 0.95
#: What is known of an input at one radius, in the order of the bars.
VERDICTS = ("proof", "inconclusive", "not attacked", "counterexample")


@dataclass(frozen=True)
class Point:
    """One input: what was proved and what was found."""

    record: Record
    attack: Mapping[str, Any] | None  # the nearest confirmed attack on the smoothed classifier
    distance: float | None  # its distance, in the run's norm


@dataclass(frozen=True)
class Evidence:
    """A stored run and everything derived from it. ``name`` is what the report calls it."""

    name: str
    path: Path | None
    settings: Mapping[str, Any]
    run: Run
    attacks: Sequence[Mapping[str, Any]]
    documents: Mapping[str, Any]
    arrays: Any

    @classmethod
    def of(cls, stored: Any, name: str | None = None) -> Evidence:
        """From ``certify.store.read_run(path)`` or any object with the same attributes."""
        path = None if stored.path is None else Path(stored.path)
        return cls(
            name=name or (path.resolve().name if path else "run"),
            path=path,
            settings=stored.settings,
            run=stored.run,
            attacks=list(stored.attacks),
            documents=dict(stored.documents),
            arrays=stored.arrays,
        )

    # settings -----------------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        return float(self.settings["sigma"])

    @property
    def dim(self) -> int | None:
        """Coordinates of one input; None where the run does not say (an imported log)."""
        shape = self.settings.get("input_shape")
        dim = self.settings.get("dim") or (math.prod(shape) if shape else None)
        return int(dim) if dim else None

    @property
    def alpha(self) -> float:
        """The probability that one certificate is wrong, a transfer's share included."""
        return error_probability(self.settings)

    @property
    def norm(self) -> str:
        return str(self.settings.get("norm") or "2")

    @property
    def imported(self) -> bool:
        """Whether the records were copied from another tool's log."""
        return bool(self.settings.get("imported"))

    @property
    def two_sided(self) -> bool:
        """Whether the run bounded the runner-up, so that its radii are not those of published tables."""
        return share_of(self.settings) > 0

    @property
    def say(self) -> Vocabulary:
        """The words for this run's certificates."""
        return CLAIMED if self.imported else PROVED

    @cached_property
    def labelled(self) -> bool:
        return len(self.run) > 0 and all(r.target is not None for r in self.run)

    @property
    def classes(self) -> tuple[str, ...]:
        data = self.settings.get("data")
        return tuple(map(printable, data.get("classes") or ())) if isinstance(data, Mapping) else ()

    def class_name(self, label: int | None) -> str:
        if label is None:
            return "–"
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    # certificates -------------------------------------------------------------------------

    def on(self, inputs: Collection[int]) -> Evidence:
        """The same evidence about these inputs alone."""
        kept = [r for r in self.run if r.index in inputs]
        return replace(self, run=Run(kept, self.settings, self.run.guarantee))

    def number(self, status: Status | str) -> int:
        return sum(r.status == status for r in self.run)

    @cached_property
    def radii(self) -> tuple[float, ...]:
        """The radii of the summary table: a round step, from 0 past the largest certificate."""
        if self._decided:
            return 0.0, self._decided
        best = max((r.radius for r in self.run if r.certified), default=0.0)
        step = _round_step(best if best > 0 else self.sigma, most=5)
        steps = max(2, math.ceil(best / step - 1e-9) + 1)
        return tuple(round(i * step, 10) for i in range(steps))

    @cached_property
    def headline_radius(self) -> float:
        """The radius of the first sentence: the one decided, else about two sigma."""
        if self._decided:
            return self._decided
        reached = [r for r in self.radii if r <= 2 * self.sigma + 1e-12]
        return reached[-1]

    @property
    def _decided(self) -> float | None:
        """The one radius in question where the run only decided whether it holds."""
        options = self.settings.get("mode_options") or {}
        known = self.settings.get("mode") == "decide" and options.get("radius")
        return float(options["radius"]) if known else None

    def certified_accuracy(self, at: Sequence[float]) -> list[Estimate]:
        """Share of inputs proved correct at each radius; without labels, share proved constant.

        The numbers of ``Run.accuracy``, from radii sorted once: a curve asks for hundreds of them.
        """
        n, reached = len(self.run), self._reached
        rows = [_estimate(len(reached) - bisect_left(reached, x), n, x) for x in at]
        if not (n and self.labelled):
            return rows
        return [replace(row, robust_low=robust_low(row.low, self.settings)) for row in rows]

    @cached_property
    def _reached(self) -> list[float]:
        wins = (r for r in self.run if (r.correct if self.labelled else r.certified))
        return sorted(r.radius for r in wins)

    @cached_property
    def formulas(self) -> dict[int, dict[str, dict[str, Any]]]:
        """By certified input: its radius by every formula of ``certify.radii``, by name.

        Empty where the formulas say nothing: another norm, or an unknown dimension.
        """
        if self.norm != "2" or self.dim is None:
            return {}
        return {
            r.index: {row["name"]: row for row in formula_table(r, self.sigma, self.dim)}
            for r in self.run
            if r.certified
        }

    # attacks ------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> tuple[AttackGroup, ...]:
        return grouped(self.attacks, self.norm)

    @cached_property
    def by_index(self) -> dict[int, Record]:
        return {r.index: r for r in self.run}

    def nearest(self, *, smoothed: bool) -> dict[int, Mapping[str, Any]]:
        """Per input the nearest confirmed attack in the run's norm, whatever its own norm.

        On the smoothed classifier only a class other than the certified one counts: that is what
        a radius has to stay below.
        """
        best: dict[int, Mapping[str, Any]] = {}
        for o in self._outcomes(smoothed):
            size = self.size(o)
            if o["status"] != "broken" or size is None:
                continue
            record = self.by_index[o["index"]]
            if smoothed and record.certified and o.get("prediction") == record.label:
                continue
            held = best.get(o["index"])
            if held is None or size < (self.size(held) or 0.0):
                best[o["index"]] = o
        return best

    def size(self, outcome: Mapping[str, Any]) -> float | None:
        """An adversarial example's distance in the run's norm; None where it was not measured."""
        if str(outcome["norm"]) == self.norm:
            found = outcome.get("distance")
        else:
            found = outcome.get({"2": "distance_l2", "inf": "distance_linf"}.get(self.norm, ""))
        return None if found is None else float(found)

    def distances(self, *, smoothed: bool) -> list[float]:
        """The sizes of the nearest confirmed attacks."""
        return [size for o in self.nearest(smoothed=smoothed).values() if (size := self.size(o)) is not None]

    def attacked(self, *, smoothed: bool) -> set[int]:
        return {o["index"] for o in self._outcomes(smoothed)}

    def wrong(self, *, smoothed: bool) -> set[int]:
        """Attacked inputs whose class was wrong before any attack.

        The smoothed classifier may also have abstained there, which is no error: only a class
        that was established and is not the true one counts.
        """
        found = {o["index"] for o in self._outcomes(smoothed) if o["status"] == "clean_error"}
        if not smoothed:
            return found
        told = {
            o["index"]
            for o in self._outcomes(smoothed)
            if o["status"] == "clean_error" and established(o) not in (None, o.get("target"))
        }
        return told | {
            i for i in self.attacked(smoothed=True) if self.by_index[i].certified and not self._right(i)
        }

    def _right(self, index: int) -> bool:
        return self.by_index[index].correct is not False

    def _outcomes(self, smoothed: bool) -> list[Mapping[str, Any]]:
        """Outcomes against one target, on inputs that this run certified or tried to.

        Unbroken balls are left out: an attack that stays inside the certified ball says nothing
        about what lies beyond it.
        """
        return [
            o
            for g in self.groups
            if g.smoothed == smoothed
            for o in g.outcomes
            if o["index"] in self.by_index and (not g.inside or o["status"] == "broken")
        ]

    @cached_property
    def challenged(self) -> int:
        """Certified balls attacked from inside."""
        return sum(len(g.outcomes) for g in self.groups if g.inside)

    @cached_property
    def confronted(self) -> Evidence:
        """The evidence about the inputs that were attacked, so that certificate and attack share every input.

        Those attacked on the smoothed classifier; where there are none, those attacked on the base model;
        without any attack all inputs.
        """
        inputs = self.attacked(smoothed=True) or self.attacked(smoothed=False)
        return self.on(inputs) if inputs and inputs != self.by_index.keys() else self

    def attack_reach(self, *, smoothed: bool) -> float:
        """The largest distance the attacks searched; infinite for a minimal-distance attack."""
        reach = 0.0
        for g in self.groups:
            if g.smoothed == smoothed and g.norm == self.norm and not g.inside:
                reach = math.inf if g.eps is None else max(reach, g.eps)
        return reach

    def attacked_accuracy(self, at: Sequence[float], *, smoothed: bool) -> list[Estimate]:
        """Share of the attacked inputs not shown wrong, nor broken within each distance.

        An upper bound on what any certificate can reach on these inputs. Empty without attacks.
        """
        inputs = self.attacked(smoothed=smoothed)
        if not inputs:
            return []
        nearest, wrong = self.nearest(smoothed=smoothed), self.wrong(smoothed=smoothed)
        gone = sorted(0.0 if i in wrong else self.size(nearest[i]) or 0.0 for i in wrong | nearest.keys())
        # The ball of radius r is closed: a counterexample at exactly r refutes radius r.
        return [_estimate(len(inputs) - bisect_right(gone, r), len(inputs), r) for r in at]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        nearest = self.nearest(smoothed=True)
        found = ((r, nearest.get(r.index)) for r in self.run)
        return tuple(Point(r, o, None if o is None else self.size(o)) for r, o in found)

    @cached_property
    def contradictions(self) -> tuple[Mapping[str, Any], ...]:
        """Confirmed attacks inside a certified ball: one is enough to invalidate the run."""
        outcomes = []
        for o in self.attacks:
            if (size := self.size(o)) is not None:
                outcomes.append(SimpleNamespace(**{**o, "distance": size, "payload": o}))
        return tuple(hit.payload for hit in self.run.contradictions(outcomes))

    # verdict ------------------------------------------------------------------------------

    def verdict(self, radius: float) -> dict[str, int]:
        """Inputs by verdict at ``radius``; the four numbers add up to all inputs.

        Proof: certified with the true label at this radius. Counterexample: a confirmed attack
        on the smoothed classifier at this distance or less, or a certificate for a wrong label.
        Inconclusive: attacked, and neither. Not attacked: neither, and no attack looked beyond a
        certified ball.
        """
        found = self.verdicts(radius)
        return {kind: found.count(kind) for kind in VERDICTS}

    def verdicts(self, radius: float) -> list[str]:
        """The verdict of every input at ``radius``, in input order."""
        wrong, tried = self.wrong(smoothed=True), self.attacked(smoothed=True)
        return [
            verdict_of(p, radius, clean_error=p.record.index in wrong, attacked=p.record.index in tried)
            for p in self.points
        ]


def verdict_of(point: Point, radius: float, *, attacked: bool, clean_error: bool = False) -> str:
    """One of ``VERDICTS`` for one input at one radius."""
    record = point.record
    if record.certified and record.correct is not False and record.radius >= radius:
        return "proof"
    if record.certified and record.correct is False:
        return "counterexample"
    if clean_error or (point.distance is not None and point.distance <= radius):
        return "counterexample"
    return "inconclusive" if attacked else "not attacked"


def _estimate(k: int, n: int, at: float) -> Estimate:
    if n == 0:
        return Estimate(0.0, 0.0, 1.0, LEVEL, "clopper-pearson", at=float(at))
    low, high = binomial_interval(k, n, 1 - LEVEL)
    return Estimate(k / n, low, high, LEVEL, "clopper-pearson", at=float(at))


def _round_step(extent: float, most: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that covers ``extent`` in ``most`` steps."""
    power = 10.0 ** math.floor(math.log10(extent / most))
    for factor in np.array([1, 2.5, 5, 10, 25]):
        if factor * power * most >= extent * (1 - 1e-12):
            return float(factor * power)
    return 100 * power
