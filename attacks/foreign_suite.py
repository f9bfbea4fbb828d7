"""An attack of another library, or a plain function, under the same judge as the presets."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from attacks.base import begin, claims, outward
from attacks.foreign import Foreign, candidates, counted
from attacks.geometry import column, distance, inside
from attacks.job import Job
from attacks.judge import Judge, contained
from attacks.lattice import on_lattice
from attacks.outcomes import AttackOutcome
from attacks.problem import Problem

#: What lies outside the ball by no more than this share of eps (and a few roundings of the inputs) is moved
#: in: libraries compute x + delta in single precision.
_ROUNDING = 1e-5
#: Points judged for a candidate without a size, each a hair farther out (2e-5 of its distance in all).
_STEPS = 4


def attack_foreign(judge: Judge, problem: Problem, job: Job, tool: Foreign) -> list[AttackOutcome]:
    """Outcomes of the problem's inputs, of what ``tool`` finds for those that are classified correctly.

    What the threat's mask keeps is put back, on a lattice the nearest lattice points are tried, and roundings
    at the ball's surface are undone; nothing else is done to a candidate. ``problem`` has whole inputs.
    """
    tally = begin(problem, job)
    rows = tally.standing()
    if not rows:
        return tally.outcomes()
    began = time.perf_counter()
    part = problem.take(torch.tensor(rows, device=problem.x.device))
    with counted(tool.holds if tool.holds is not None else judge.model.model) as asked:
        found = candidates(tool, part.x, _labels(part, tool), seed=job.seed)
    problem.oracle.forwards[rows] += -(-asked[0] // len(rows))
    found = _allowed(part, found, job)
    claimed = claims(part, found)
    if job.threat.eps is None:
        boxed = contained(found, part.box) & (job.threat.grid is None)
        for k in claimed.tolist():
            one, steps = part.take(torch.tensor([k], device=part.x.device)), _STEPS if bool(boxed[k]) else 1
            outward(judge, one, found[k : k + 1], tally, rows[k], tool.name, steps=steps)
    else:
        verdicts = judge.verdicts(part.x[claimed], part.judged[claimed], found[claimed], part.eps[claimed])
        for k, verdict in zip(claimed.tolist(), verdicts, strict=True):
            tally.settle(rows[k], tool.name, verdict, found[k])
    tally.charge(rows, time.perf_counter() - began)
    tally.notify(tool.name)
    return tally.outcomes()


def _labels(part: Problem, tool: Foreign) -> Tensor:
    """The labels that ``tool`` gets: wanted classes where it was set to reach the classes it is given."""
    return part.judged if tool.aims else part.label


def _allowed(part: Problem, found: Tensor, job: Job) -> Tensor:
    threat = job.threat
    if threat.mask is not None:
        found = torch.where(threat.mask.to(found.device), found, part.x)
    if threat.eps is not None:
        slack = 4 * torch.finfo(found.dtype).eps * part.x.flatten(1).abs().amax(1).double().clamp_min(1.0)
        limit = part.eps.double() * (1 + _ROUNDING) + slack
        near = distance(part.x, found, part.p) <= limit
        found = torch.where(column(near, found), inside(part.x, found, part.eps, part.p, part.box), found)
    if threat.grid is not None:
        within = threat.eps is not None
        found = on_lattice(part, found, threat.grid, within=within, gradients=False)
    return found
