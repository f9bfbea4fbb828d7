"""The Fast Adaptive Boundary attack: walk along the decision boundary, back towards the input."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.apgd import decided, ranked_targets
from attacks.geometry import clip, column, norm
from attacks.hyperplane import to_hyperplane
from attacks.losses import margin, targeted_margin
from attacks.problem import Problem


def fab_targeted(
    problem: Problem,
    *,
    steps: int = 100,
    targets: int = 9,
    within: bool = True,
    start: Tensor | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """The nearest point of another class found towards each of the likeliest wrong classes.

    Each step replaces the boundary by its tangent hyperplane, projects both the current point and
    the input on it, and takes a mix of the two with an overshoot of 5 %; a point that has changed
    class is drawn back to 90 % of its distance. All targets of all inputs run side by side. With
    ``within`` an input leaves once a point inside its ``eps`` is found; else the nearest point
    counts. ``start`` and ``wanted`` (rows, t) replace the input itself and the ranked classes.
    Returns (rows, *shape), the input where nothing was found.

    Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", with one change: the tangent is taken at the point that was just classified, which
    saves one evaluation in three.
    """
    if wanted is None:
        problem.oracle.focus(problem.samples)
        wanted = ranked_targets(problem.oracle.scores(problem.x), problem.y, targets)
        problem.oracle.focus(None)
    per = wanted.shape[1]
    best, nearest = problem.x.clone(), torch.full_like(problem.eps, math.inf)
    size = max(problem.rows // per, 1)
    for first in range(0, len(problem), size):
        rows = torch.arange(first, min(first + size, len(problem)), device=wanted.device)
        part = problem.take(rows)
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(per)
        begin = part.x[owner] if start is None else start[rows][owner]
        point, far = _walk(part, begin, owner, wanted[rows].flatten(), steps, within)
        best[rows], nearest[rows] = point, far
    return best


@dataclass
class _State:
    owner: Tensor
    target: Tensor
    label: Tensor
    center: Tensor
    point: Tensor
    best: Tensor
    nearest: Tensor
    won: Tensor

    def keep(self, rows: Tensor) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name)[rows])


def _walk(
    problem: Problem, start: Tensor, owner: Tensor, target: Tensor, steps: int, within: bool
) -> tuple[Tensor, Tensor]:
    oracle, p, box = problem.oracle, problem.p, problem.box
    best, nearest = problem.x.clone(), torch.full_like(problem.eps, math.inf)
    far = torch.full((len(owner),), math.inf, dtype=start.dtype, device=start.device)
    s = _State(
        owner, target, problem.y[owner], problem.x[owner], start, start, far, torch.zeros_like(far) > 0
    )
    oracle.focus(problem.samples[s.owner])
    for i in range(steps):
        scores, value, gradient = oracle.ascend(s.point, lambda z: targeted_margin(z, s.label, s.target))
        back = _note(s, scores, problem.eps[s.owner] if within else None, p)
        s.point = _stepped(s.center, s.point, back, value, gradient, p, box)
        if within and i % 5 == 4 and not _drop(s, best, nearest, problem):
            oracle.focus(None)
            return best, nearest
    _note(s, oracle.scores(s.point), problem.eps[s.owner] if within else None, p)
    _collect(best, nearest, s)
    oracle.focus(None)
    return best, nearest


def _note(s: _State, scores: Tensor, eps: Tensor | None, p: float) -> Tensor:
    """Remember points that have changed class; return where each row goes on from."""
    value = margin(scores, s.label)
    changed = value < 0
    far = torch.where(changed, norm(s.point - s.center, p), math.inf)
    if eps is not None:
        s.won = s.won | (decided(value, scores) & (far <= eps))
    closer = far < s.nearest
    s.best = torch.where(column(closer, s.point), s.point, s.best)
    s.nearest = torch.where(closer, far, s.nearest)
    return torch.where(column(changed, s.point), s.center + 0.9 * (s.point - s.center), s.point)


def _stepped(
    center: Tensor, point: Tensor, back: Tensor, value: Tensor, gradient: Tensor, p: float, box
) -> Tensor:
    """Project ``back`` and the input on the tangent of the boundary taken at ``point``; mix the two."""
    rows = len(center)
    normal = gradient.flatten(1)
    both = torch.cat([back.flatten(1), center.flatten(1)])
    away = both - point.flatten(1).repeat(2, 1)
    excess = value.repeat(2) + (normal.repeat(2, 1) * away).sum(1)
    move = to_hyperplane(both, normal.repeat(2, 1), excess, p, box)
    size = norm(move, p).clamp_min(1e-8)
    share = (size[:rows] / (size[:rows] + size[rows:])).clamp_max(0.1)[:, None]
    ends = both + 1.05 * move
    return clip((ends[:rows] * (1 - share) + ends[rows:] * share).view_as(center), box)


def _drop(s: _State, best: Tensor, nearest: Tensor, problem: Problem) -> bool:
    """Let the rows of inputs broken within eps leave the batch; False when none is left."""
    done = torch.zeros(len(problem), device=s.won.device).index_add(0, s.owner, s.won.float()) > 0
    left = (~done[s.owner]).nonzero().squeeze(1)
    if len(left) == len(s.owner):
        return True
    _collect(best, nearest, s)
    s.keep(left)
    problem.oracle.focus(problem.samples[s.owner])
    return bool(len(left))


def _collect(best: Tensor, nearest: Tensor, s: _State) -> None:
    """Merge the rows' nearest points into their inputs'."""
    none = len(s.owner)
    floor = nearest.scatter_reduce(0, s.owner, s.nearest, "amin")
    rows = torch.arange(none, device=floor.device)
    hits = torch.where((s.nearest == floor[s.owner]) & (s.nearest < nearest[s.owner]), rows, none)
    first = torch.full_like(nearest, none, dtype=torch.long).scatter_reduce(0, s.owner, hits, "amin")
    found = column(first < none, best)
    best.copy_(torch.where(found, s.best[first.clamp_max(none - 1)], best))
    nearest.copy_(floor)
