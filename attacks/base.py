"""Run a preset on a batch of inputs of a base classifier."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from attacks.geometry import clip, inside
from attacks.job import Job, Tally
from attacks.judge import Judge
from attacks.lattice import on_lattice
from attacks.losses import margin
from attacks.outcomes import AttackOutcome, AttackStatus
from attacks.presets import minimal_stages, stages
from attacks.problem import Problem


def attack_base(judge: Judge, problem: Problem, job: Job) -> list[AttackOutcome]:
    """Outcomes of the problem's inputs.

    An input leaves as soon as the judge confirms that it is broken; with ``eps`` None every attack
    runs and the nearest confirmed point counts.
    """
    tally = begin(problem, job)
    if job.threat.eps is None:
        _nearest(judge, problem, tally)
    else:
        _within(judge, problem, tally)
    return tally.outcomes()


def begin(problem: Problem, job: Job) -> Tally:
    """The tally of a batch before any attack: what is misclassified, or has no finite scores."""
    oracle = problem.oracle
    oracle.focus(problem.samples)
    scores = oracle.answers(problem.x)
    oracle.focus(None)
    finite = scores.isfinite().all(1).tolist()
    right = (scores.argmax(1) == problem.label).tolist()
    tally = Tally(job, problem, False, [f and r for f, r in zip(finite, right, strict=True)])
    for i, ok in enumerate(finite):
        if not ok:
            tally.status[i] = AttackStatus.ERROR
            tally.facts[i] = {"details": {"error": "the model's scores are not finite"}}
    return tally


def _within(judge: Judge, problem: Problem, tally: Tally) -> None:
    for stage in stages(tally.job.preset, problem):
        rows = tally.standing()
        if not rows:
            break
        began = time.perf_counter()
        part = problem.take(torch.tensor(rows, device=problem.x.device))
        found = inside(part.x, stage.run(part), part.eps, part.p, part.box)
        if (grid := tally.job.threat.grid) is not None:
            found = on_lattice(part, found, grid, within=True, gradients=tally.job.preset != "black-box")
        claimed = claims(part, found)
        whole, found = part.whole(part.x), part.whole(found)
        verdicts = judge.verdicts(whole[claimed], part.judged[claimed], found[claimed], part.eps[claimed])
        for k, verdict in zip(claimed.tolist(), verdicts, strict=True):
            tally.settle(rows[k], stage.name, verdict, found[k])
        tally.charge(rows, time.perf_counter() - began)
        tally.notify(stage.name)


def _nearest(judge: Judge, problem: Problem, tally: Tally) -> None:
    rows = tally.standing()
    if not rows:
        return
    began = time.perf_counter()
    part = problem.take(torch.tensor(rows, device=problem.x.device))
    points, names = minimal_stages(part)
    grid = tally.job.threat.grid
    if grid is not None:
        points = on_lattice(part, points, grid, within=False)
    for k, row in enumerate(rows):
        one = part.take(torch.tensor([k], device=part.x.device))
        outward(judge, one, points[k : k + 1], tally, row, names[k], steps=8 if grid is None else 1)
    tally.charge(rows, time.perf_counter() - began)
    tally.notify("minimal")


def outward(
    judge: Judge, one: Problem, point: Tensor, tally: Tally, row: int, name: str, *, steps: int = 8
) -> None:
    """Judge a boundary point, stepping outwards a little at a time until every evaluation agrees.

    Single and double precision disagree about half of the points that sit on the boundary itself. At most
    ``steps`` points are judged: one where they lie on a lattice.
    """
    if not bool((point != one.x).any()):
        return
    step = 1e-6
    for _ in range(steps):
        whole = one.whole(point)
        verdict = judge.verdicts(one.whole(one.x), one.judged, whole, None)[0]
        tally.settle(row, name, verdict, whole[0])
        if verdict.broken:
            return
        point = clip(one.x + (point - one.x) * (1 + step), one.box)
        step *= 4


def claims(part: Problem, found: Tensor) -> Tensor:
    """Positions whose class the attack believes it has changed."""
    part.oracle.focus(part.samples)
    scores = part.oracle.scores(found)
    part.oracle.focus(None)
    return (margin(scores, part.y) < 0).nonzero().squeeze(1)
