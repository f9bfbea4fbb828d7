"""Targeted attacks: the class must become a wanted one.

Towards class t every model has two answers: t, or anything else. An oracle that gives the best other score
and t's as two classes turns every search into a targeted one; the judge asks for the class itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attacks.base import attack_base
from attacks.job import Job
from attacks.judge import Judge
from attacks.oracle import Oracle
from attacks.outcomes import AttackOutcome
from attacks.problem import Problem
from certify.calls import shown
from certify.errors import InvalidInput, InvalidSetting

#: The preset that attacks towards every other class.
ALL = "all-targets"


class AimedOracle(Oracle):
    """``inner``'s answers as two classes: 0, anything but the wanted class, and 1, the wanted class.

    ``wanted`` (inputs,): the class that each of the oracle's inputs is to become.
    """

    def __init__(self, inner: Oracle, wanted: Tensor) -> None:
        super().__init__(inner.model, len(wanted))
        self.inner, self.wanted = inner, wanted
        self.forwards, self.backwards, self.plateau = inner.forwards, inner.backwards, inner.plateau
        self._samples: Tensor | None = None

    def focus(self, samples: Tensor | None) -> None:
        self.inner.focus(samples)
        self._samples = samples

    def scores(self, x: Tensor) -> Tensor:
        return self._two(self.inner.scores(x))

    def differentiable(self, x: Tensor) -> Tensor:
        return self._two(self.inner.differentiable(x))

    def answers(self, x: Tensor) -> Tensor:
        return self.inner.answers(x)

    def own(self, x: Tensor) -> Tensor:
        return self.inner.own(x)

    def _two(self, scores: Tensor) -> Tensor:
        if self._samples is None or len(self._samples) != len(scores):
            raise RuntimeError("the inputs behind these rows were not named")
        wanted = self.wanted[self._samples][:, None]
        others = scores.scatter(1, wanted, -torch.inf).amax(1)
        both = torch.stack([others, scores.gather(1, wanted).squeeze(1)], 1)
        return torch.where(scores.isfinite().all(1, keepdim=True), both, torch.nan)


def aimed(problem: Problem, wanted: Tensor) -> Problem:
    """``problem`` (of all the oracle's inputs) with the classes ``wanted`` (rows,) as the only success.

    Raises InvalidInput where an input is of the wanted class already.
    """
    same = (wanted == problem.y).nonzero().squeeze(1).tolist()
    if same:
        raise InvalidInput(
            f"input {problem.streams.ids[same[0]]} is of the wanted class {int(wanted[same[0]])} already",
            why="a targeted attack changes the class into another one",
            remedy="leave such inputs out, or give every input a target of its own",
        )
    return replace(
        problem, oracle=AimedOracle(problem.oracle, wanted), y=torch.zeros_like(problem.y), classes=2,
        truth=problem.y, wanted=wanted,
    )  # fmt: skip


def read_target(target: Any, *, inputs: int, classes: int) -> Tensor | None:
    """(inputs,) wanted classes of one class for all, or one for each. Raises InvalidSetting."""
    if target is None:
        return None
    try:
        found = torch.as_tensor(target).detach().cpu()
        whole = not found.is_floating_point() and not found.is_complex() and found.dtype != torch.bool
        fine = whole and found.shape in ((), (inputs,)) and bool(((found >= 0) & (found < classes)).all())
    except Exception:  # whatever is no number or array fails with an error of its own
        found, fine = torch.zeros(()), False
    if not fine:
        raise InvalidSetting(
            f"target = {shown(target)} names no classes",
            why=f"it is a class from 0 to {classes - 1}, or one for each of the {inputs} inputs",
            remedy="give target=3 or target=tensor, or leave it out: any other class will do",
        )
    return found.long().expand(inputs)


def attack_all(judge: Judge, problem: Problem, job: Job) -> list[AttackOutcome]:
    """One outcome per input: the nearest of what is found towards every other class.

    ``details.targets`` maps each other class to the distance of its confirmed point, None without one.
    """
    part = replace(job, preset="minimal" if job.threat.eps is None else "standard")
    rounds = [
        attack_base(judge, aimed(problem, (problem.y + ahead) % problem.classes), part)
        for ahead in range(1, problem.classes)
    ]
    return [_nearest(outcomes) for outcomes in zip(*rounds, strict=True)]


def _nearest(outcomes: Sequence[AttackOutcome]) -> AttackOutcome:
    best = min(outcomes, key=lambda o: math.inf if o.distance is None else o.distance)
    if not best.broken:  # unconfirmed says more than survived
        best = next((o for o in outcomes if str(o.status) == "unconfirmed"), best)
    targets = {str(o.details["wanted"]): o.distance for o in outcomes}
    return replace(
        best, preset=ALL, details=dict(best.details) | {"targets": dict(sorted(targets.items()))},
        forwards=outcomes[-1].forwards, backwards=outcomes[-1].backwards,
        seconds=sum(o.seconds for o in outcomes),
    )  # fmt: skip
