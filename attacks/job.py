"""What all inputs of one attack call have in common, and how a verdict becomes an outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from attacks.budget import Budget
from attacks.outcomes import AttackOutcome, AttackStatus
from attacks.problem import Problem
from attacks.threat import Threat


@dataclass(frozen=True)
class Job:
    """The settings of one call. ``notify(stage, correct, survived)`` speaks about the batch at work.

    ``certified``: the labels are certified classes, so a smoothed input is attacked even where the
    prediction test abstains on it.
    """

    threat: Threat
    preset: str
    seed: int
    budget: Budget
    notify: Callable[[str, int, int], None]
    certified: bool = False


def _number(value: float | None) -> float | None:
    """``value``, None where it is infinite or no number: JSON has no word for these."""
    return None if value is None or not math.isfinite(value) else value


def _restricted(threat: Threat) -> dict[str, Any]:
    return {"threat": threat.restrictions} if threat.restrictions else {}


@dataclass
class Tally:
    """The state of one batch: who still stands, what was found, what it took."""

    job: Job
    problem: Problem
    smoothed: bool
    correct: list[bool]
    status: list[AttackStatus] = field(init=False)
    facts: list[Any] = field(init=False)
    point: list[np.ndarray | None] = field(init=False)
    seconds: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.correct)
        self.status = [AttackStatus.SURVIVED if c else AttackStatus.CLEAN_ERROR for c in self.correct]
        self.facts = [{} for _ in range(n)]
        self.point = [None] * n
        self.seconds = np.zeros(n)

    def standing(self) -> list[int]:
        """Rows that no judge has declared broken."""
        still = (AttackStatus.SURVIVED, AttackStatus.UNCONFIRMED)
        return [i for i, s in enumerate(self.status) if s in still]

    def charge(self, rows: list[int], seconds: float) -> None:
        self.seconds[rows] += seconds / max(len(rows), 1)

    def settle(self, row: int, attack: str, verdict: Any, x_adv: Tensor, details: dict | None = None) -> None:
        """Write down what the judge said about a candidate for one row; a break is final."""
        if self.status[row] is AttackStatus.BROKEN:
            return
        self.status[row] = AttackStatus.BROKEN if verdict.broken else AttackStatus.UNCONFIRMED
        facts = {
            "by_attack": attack,
            "prediction": verdict.prediction,
            "margin32": _number(getattr(verdict, "margin32", None)),
            "margin64": _number(getattr(verdict, "margin64", None)),
            "in_ball": verdict.in_ball,
            "in_box": verdict.in_box,
            "details": (details or {}) | _restricted(self.job.threat),
        }
        if verdict.broken:
            facts |= {
                "distance": verdict.distance,
                "distance_l2": verdict.distance_l2,
                "distance_linf": verdict.distance_linf,
            }
            self.point[row] = x_adv.detach().cpu().numpy().copy()
        self.facts[row] = facts

    def notify(self, stage: str) -> None:
        self.job.notify(stage, sum(self.correct), len(self.standing()))

    def outcomes(self) -> list[AttackOutcome]:
        """One outcome per row, in order."""
        problem, job = self.problem, self.job
        problem.oracle.focus(None)
        given = job.threat.eps
        sizes = problem.eps.tolist()
        out = []
        for i, target in enumerate(problem.label.tolist()):
            facts: dict[str, Any] = {"details": _restricted(job.threat)} | self.facts[i]
            if problem.oracle.plateau[i] and self.status[i] is AttackStatus.SURVIVED:
                facts["details"] = facts["details"] | {"plateau": True}
            if problem.wanted is not None:
                facts["details"] = facts["details"] | {"wanted": int(problem.wanted[i])}
            out.append(
                AttackOutcome(
                    index=problem.streams.ids[i],
                    target=target,
                    smoothed=self.smoothed,
                    norm=job.threat.norm_name,
                    eps=given if given is None or abs(sizes[i] - given) <= 1e-6 * given else sizes[i],
                    preset=job.preset,
                    clean_correct=self.correct[i],
                    status=self.status[i],
                    forwards=int(problem.oracle.forwards[i]),
                    backwards=int(problem.oracle.backwards[i]),
                    seconds=float(self.seconds[i]),
                    seed=job.seed,
                    adversarial=self.point[i],
                    **facts,
                )
            )
        return out
