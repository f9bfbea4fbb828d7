"""The smallest perturbation that changes the class, by every road that is good at it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.apgd import apgd_margin, ranked_targets
from attacks.ddn import ddn
from attacks.fab import fab_targeted
from attacks.geometry import clip, column, norm
from attacks.losses import margin
from attacks.problem import Problem


def minimal(
    problem: Problem, *, ddn_steps: int = 100, fab_steps: int = 30, targets: int = 9
) -> tuple[Tensor, list[str]]:
    """The nearest point of another class per row, and the attack it came from.

    DDN (l_2 only) and FAB-T both run; the nearer point is then walked along the boundary by FAB
    towards the class it has reached, and every result is pulled to the boundary by bisection. Where
    both fail, inputs of growing balls are attacked. Rows where nothing is found get the input
    itself and the name "".
    """
    best, nearest = problem.x, torch.full_like(problem.eps, math.inf)
    names = [""] * len(problem)
    roads = [("fab-t", lambda: fab_targeted(problem, steps=fab_steps, targets=targets, within=False))]
    if problem.p == 2:
        roads.insert(0, ("ddn", lambda: ddn(problem, steps=ddn_steps)))
    for name, run in roads:
        best, nearest = _nearer(problem, best, nearest, run(), names, name)
    failed = (~nearest.isfinite()).nonzero().squeeze(1)
    if len(failed):
        found = torch.zeros_like(best).index_copy(0, failed, growing(problem.take(failed)))
        found = torch.where(column(nearest.isfinite(), best), best, found)
        best, nearest = _nearer(problem, best, nearest, found, names, "growing-apgd")
    for _ in range(2):
        again = _walked(problem, best, steps=20)
        best, nearest = _nearer(problem, best, nearest, again, names, "boundary-walk")
    return best, names


def bisect(problem: Problem, point: Tensor, *, steps: int = 24) -> Tensor:
    """``point`` pulled towards the input to where its class changes; as it is if it has the input's class."""
    oracle, x = problem.oracle, problem.x
    oracle.focus(problem.samples)
    changed = margin(oracle.scores(point), problem.y) < 0
    low, high = torch.zeros_like(problem.eps), torch.ones_like(problem.eps)
    for _ in range(steps):
        mid = (low + high) / 2
        hit = margin(oracle.scores(_between(problem, point, mid)), problem.y) < 0
        low, high = torch.where(hit, low, mid), torch.where(hit, mid, high)
    oracle.focus(None)
    return torch.where(column(changed, x), _between(problem, point, high), point)


def growing(problem: Problem, *, doublings: int = 14) -> Tensor:
    """APGD in balls that double until a point of another class is found; the input where none is."""
    scale = problem.box[1] - problem.box[0]
    scale = scale if math.isfinite(scale) else 1.0
    found = problem.x.clone()
    left = torch.arange(len(problem), device=found.device)
    size = scale * 1e-3
    for _ in range(doublings):
        part = problem.take(left)
        part.eps.fill_(size)
        point = apgd_margin(part, steps=30, restarts=2, purpose=f"growing/{size:g}")
        problem.oracle.focus(part.samples)
        hit = margin(problem.oracle.scores(point), part.y) < 0
        problem.oracle.focus(None)
        found[left[hit]] = point[hit]
        left = left[~hit]
        if not len(left):
            break
        size *= 2.0
    return found


def _between(problem: Problem, point: Tensor, share: Tensor) -> Tensor:
    return clip(problem.x + column(share, point) * (point - problem.x), problem.box)


def _nearer(
    problem: Problem, best: Tensor, nearest: Tensor, point: Tensor, names: list[str], name: str
) -> tuple[Tensor, Tensor]:
    point = bisect(problem, point)
    problem.oracle.focus(problem.samples)
    changed = margin(problem.oracle.scores(point), problem.y) < 0
    problem.oracle.focus(None)
    far = torch.where(changed, norm(point - problem.x, problem.p), math.inf)
    closer = far < nearest
    for row in closer.nonzero().squeeze(1).tolist():
        names[row] = name
    return torch.where(column(closer, best), point, best), torch.minimum(far, nearest)


def _walked(problem: Problem, point: Tensor, *, steps: int) -> Tensor:
    problem.oracle.focus(problem.samples)
    scores = problem.oracle.scores(point)
    problem.oracle.focus(None)
    reached = ranked_targets(scores, problem.y, 1)
    return fab_targeted(problem, steps=steps, within=False, start=point, wanted=reached)
