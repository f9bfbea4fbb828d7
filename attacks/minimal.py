"""The smallest perturbation that changes the class, by every road that is good at it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.apgd import apgd_margin, ranked_targets
from attacks.ddn import ddn
from attacks.fab import fab_targeted
from attacks.faces import MOST, faces
from attacks.geometry import clip, column, norm, random_start
from attacks.losses import margin
from attacks.problem import Problem
from attacks.ranges import width
from attacks.rays import rays

#: Inputs with at most this many coordinates are also searched along random rays.
FEW = 16


def minimal(
    problem: Problem, *, ddn_steps: int = 100, fab_steps: int = 25, starts: int = 5, targets: int = 9
) -> tuple[Tensor, list[str]]:
    """The nearest point of another class per row, and the attack it came from.

    DDN (l2 only), then FAB-T from the input and from ``starts`` random points at half the best
    distance: the boundary has many nearest points, and each start reaches its own. The best is then
    walked along the boundary by FAB, and every result is pulled to the boundary by bisection. Where
    all fail, balls of growing size are attacked. Rows where nothing is found get the input itself
    and the name "".
    """
    best, nearest = problem.x, torch.full_like(problem.eps, math.inf)
    names = [""] * len(problem)
    if problem.p == 2:
        for reach in (1.0, 8.0):
            point = ddn(problem, steps=ddn_steps, reach=reach)
            best, nearest = _nearer(problem, best, nearest, point, names, "ddn")
    for start in range(starts + 1):
        begin = None if start == 0 else _half_way(problem, nearest, f"minimal/{start}")
        point = fab_targeted(problem, steps=fab_steps, targets=targets, within=False, start=begin)
        best, nearest = _nearer(problem, best, nearest, point, names, "fab-t")
    failed = (~nearest.isfinite()).nonzero().squeeze(1)
    if len(failed):
        found = best.index_copy(0, failed, growing(problem.take(failed)))
        best, nearest = _nearer(problem, best, nearest, found, names, "growing-apgd")
    if math.prod(problem.shape) <= FEW:
        best, nearest = _nearer(problem, best, nearest, rays(problem, nearest), names, "rays")
    for classes in (3, 1):
        point = _walked(problem, best, steps=30, classes=classes)
        best, nearest = _nearer(problem, best, nearest, point, names, "boundary-walk")
    if problem.wanted is not None and math.prod(problem.shape) <= MOST:
        best, nearest = _nearer(problem, best, nearest, faces(problem, best), names, "faces")
    return best, names


def _half_way(problem: Problem, nearest: Tensor, purpose: str) -> Tensor:
    """Random points at half the distance known so far; the input itself where none is known."""
    size = torch.where(nearest.isfinite(), nearest / 2, torch.zeros_like(nearest))
    return random_start(problem.x, problem.noise(purpose), size, problem.p, problem.box)


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


def deepened(problem: Problem, point: Tensor, *, depths: int = 8) -> Tensor:
    """``point`` moved on along its ray, up to the ball's surface, to where the margin is lowest.

    A nearest point lies on the boundary, where rounding decides; the ball may have room behind it.
    """
    oracle, x = problem.oracle, problem.x
    oracle.focus(problem.samples)
    best, lowest = point, margin(oracle.scores(point), problem.y)
    reach = problem.eps / norm(point - x, problem.p).clamp_min(1e-30)
    for depth in range(1, depths + 1):
        factor = 1 + (reach - 1).clamp_min(0.0) * depth / depths
        # A hair less than the surface: the ball must hold the point after rounding, too.
        there = clip(x + (point - x) * column(factor * (1 - 1e-6), x), problem.box)
        value = margin(oracle.scores(there), problem.y)
        lower = (value < lowest) & (reach > 1)
        best, lowest = torch.where(column(lower, x), there, best), torch.where(lower, value, lowest)
    oracle.focus(None)
    return best


def growing(problem: Problem, *, doublings: int = 14) -> Tensor:
    """APGD in balls that double until a point of another class is found; the input where none is."""
    scale = width(problem.box)
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


def _walked(problem: Problem, point: Tensor, *, steps: int, classes: int) -> Tensor:
    problem.oracle.focus(problem.samples)
    scores = problem.oracle.scores(point)
    problem.oracle.focus(None)
    reached = ranked_targets(scores, problem.y, classes)
    return fab_targeted(problem, steps=steps, within=False, start=point, wanted=reached)
