"""Auto-PGD: projected gradient ascent that sets its own step size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.geometry import column, norm, project, random_start, unit
from attacks.losses import cross_entropy, lost_margin, margin, targeted
from attacks.problem import Problem

#: loss(scores, label, target) -> (rows,); untargeted losses ignore the target.
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: The l1 attack first climbs in balls this many times as large, for 30 % of its steps each.
WIDER = (3.0, 2.0)

#: A margin below -DECISIVE times the spread of the scores ends the search on a row: rounding cannot undo it.
DECISIVE = 1e-4


def apgd_ce(problem: Problem, *, steps: int = 100, restarts: int = 1, purpose: str = "apgd-ce") -> Tensor:
    """APGD on the cross-entropy. Croce and Hein 2020, "Reliable evaluation", algorithm 1."""
    return _restarted(problem, lambda s, y, t: cross_entropy(s, y), steps, restarts, purpose)


def apgd_margin(
    problem: Problem, *, steps: int = 100, restarts: int = 1, purpose: str = "apgd-margin"
) -> Tensor:
    """APGD on minus the margin: keeps a gradient where the cross-entropy's has vanished."""
    return _restarted(problem, lambda s, y, t: lost_margin(s, y), steps, restarts, purpose)


def apgd_targeted(
    problem: Problem, *, steps: int = 100, targets: int = 9, restarts: int = 1, purpose: str = "apgd-t"
) -> Tensor:
    """APGD towards each of the ``targets`` highest-scoring wrong classes in turn.

    The likeliest class goes first, alone; the others then run side by side on what is left, and an
    input leaves all of them as soon as one succeeds. Loss: targeted DLR, or the targeted margin
    below four classes. Returns candidates (rows, *shape).
    """
    oracle = problem.oracle
    oracle.focus(problem.samples)
    scores = oracle.scores(problem.x)
    oracle.focus(None)
    wrong = ranked_targets(scores, problem.y, targets)
    best, lowest = problem.x.clone(), margin(scores, problem.y)
    for restart in range(restarts):
        for group in (wrong[:, :1], wrong[:, 1:]):
            left = (~decided(lowest, scores)).nonzero().squeeze(1)
            if not len(left) or not group.shape[1]:
                continue
            name = f"{purpose}/{restart}"
            point, value = _rows(problem.take(left), group[left], targeted, steps, name)
            _merge(best, lowest, left, point, value)
    return best


def ranked_targets(scores: Tensor, label: Tensor, targets: int) -> Tensor:
    """(rows, t) wrong classes by falling score, t = min(targets, classes - 1)."""
    others = scores.scatter(1, label[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, : min(targets, scores.shape[1] - 1)]


def decided(lowest: Tensor, scores: Tensor) -> Tensor:
    """(rows,) whether a margin is negative beyond rounding, on the scale of these scores."""
    return lowest < -DECISIVE * (scores.amax(1) - scores.amin(1)).clamp_min(1e-12)


def _restarted(problem: Problem, loss: TargetedLoss, steps: int, restarts: int, purpose: str) -> Tensor:
    best, lowest = problem.x.clone(), torch.full_like(problem.eps, math.inf)
    for restart in range(restarts):
        left = (lowest >= 0).nonzero().squeeze(1)
        if not len(left):
            break
        none = torch.zeros((len(left), 1), dtype=torch.long, device=left.device)
        point, value = _rows(problem.take(left), none, loss, steps, f"{purpose}/{restart}")
        _merge(best, lowest, left, point, value)
    return best


def _merge(best: Tensor, lowest: Tensor, rows: Tensor, point: Tensor, value: Tensor) -> None:
    better = value < lowest[rows]
    best[rows] = torch.where(column(better, point), point, best[rows])
    lowest[rows] = torch.where(better, value, lowest[rows])


def _rows(
    problem: Problem, targets: Tensor, loss: TargetedLoss, steps: int, purpose: str
) -> tuple[Tensor, Tensor]:
    """Run every (input, target) pair as a row, ``problem.rows`` at a time; best point per input."""
    count, per = targets.shape
    best, lowest = problem.x.clone(), torch.full_like(problem.eps, math.inf)
    size = max(problem.rows // per, 1)
    for first in range(0, count, size):
        rows = torch.arange(first, min(first + size, count), device=targets.device)
        part = problem.take(rows)
        around = part.eps * (WIDER[0] if part.p == 1 else 1)
        starts = torch.stack(
            [
                random_start(part.x, part.noise(f"{purpose}/{t}"), around, part.p, part.box)
                for t in range(per)
            ],
            1,
        ).flatten(0, 1)
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(per)
        aims, left = targets[rows].flatten(), steps
        for factor in WIDER if part.p == 1 else ():
            share = int(0.3 * steps)
            starts = _climb(part, starts, owner, aims, loss, share, part.eps[owner] * factor).best
            left -= share
        point, value = ascend(part, starts, owner, aims, loss, left)
        _merge(best, lowest, rows, point, value)
    return best, lowest


@dataclass
class _State:
    """Everything that is one value per row, so that rows can leave together."""

    owner: Tensor
    target: Tensor
    center: Tensor
    label: Tensor
    eps: Tensor
    point: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    rising: Tensor
    last_loss: Tensor
    checked_loss: Tensor
    halved: Tensor
    density: Tensor
    lowest: Tensor
    lowest_point: Tensor
    won: Tensor

    def record(self, scores: Tensor) -> None:
        """Remember each row's lowest-margin point; no host synchronisation."""
        value = margin(scores, self.label)
        self.won = self.won | decided(value, scores)
        lower = value < self.lowest
        self.lowest = torch.where(lower, value, self.lowest)
        self.lowest_point = torch.where(column(lower, self.point), self.point, self.lowest_point)

    def keep(self, rows: Tensor) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name)[rows])


def ascend(
    problem: Problem, start: Tensor, owner: Tensor, target: Tensor, loss: TargetedLoss, steps: int
) -> tuple[Tensor, Tensor]:
    """APGD on rows that may share inputs; returns the lowest-margin point per input and its margin.

    ``start`` (rows, *shape), ``owner`` and ``target`` (rows,) index the problem's inputs and name
    the class each row aims at. The step starts at 2 eps (l1: eps) and is halved at checkpoints
    where the loss rose too rarely or nothing was gained since the last halving; the row then
    restarts from its best point. Starts outside the ball are projected onto it.
    """
    best, lowest = problem.x.clone(), torch.full_like(problem.eps, math.inf)

    def go_on(s: _State) -> bool:
        return _drop_decided(s, best, lowest, problem)

    s = _climb(problem, start, owner, target, loss, steps, problem.eps[owner], go_on)
    _collect(best, lowest, s)
    return best, lowest


def _climb(
    problem: Problem,
    start: Tensor,
    owner: Tensor,
    target: Tensor,
    loss: TargetedLoss,
    steps: int,
    eps: Tensor,
    go_on: Callable[[_State], bool] | None = None,
) -> _State:
    """The rows after ``steps`` steps in balls of size ``eps`` (rows,), without those that ``go_on`` drops."""
    oracle, p, box = problem.oracle, problem.p, problem.box
    label = problem.y[owner]
    start = project(problem.x[owner], start, eps, p, box)
    oracle.focus(problem.samples[owner])
    scores, value, gradient = oracle.ascend(start, lambda z: loss(z, label, target))
    no, yes = torch.zeros_like(eps, dtype=torch.bool), torch.ones_like(eps, dtype=torch.bool)
    s = _State(
        owner=owner, target=target, center=problem.x[owner], label=label, eps=eps,
        point=start, previous=start, gradient=gradient,
        best=start, best_gradient=gradient, best_loss=value,
        step=(1.0 if p == 1 else 2.0) * eps, rising=torch.zeros_like(eps),
        last_loss=value, checked_loss=value, halved=yes, density=torch.full_like(eps, 0.2),
        lowest=torch.full_like(eps, math.inf), lowest_point=start, won=no,
    )  # fmt: skip
    s.record(scores)
    window = max(int((0.04 if p == 1 else 0.22) * steps), 1)
    shortest, shorter = max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    since = 0
    for i in range(steps):
        s.previous, s.point = s.point, _moved(s, p, box, inertia=0.25 if i else 0.0)
        scores, value, s.gradient = oracle.ascend(s.point, lambda z: loss(z, s.label, s.target))
        s.record(scores)
        better = value > s.best_loss
        wide = column(better, s.point)
        s.best = torch.where(wide, s.point, s.best)
        s.best_gradient = torch.where(wide, s.gradient, s.best_gradient)
        s.best_loss = torch.where(better, value, s.best_loss)
        s.rising = s.rising + (value > s.last_loss)
        s.last_loss = value
        since += 1
        if since == window:
            if p == 1:
                _sparsify(s)
            else:
                _halve(s, window)
                window = max(window - shorter, shortest)
            since = 0
        if go_on is not None and i % 5 == 4 and not go_on(s):
            break
    oracle.focus(None)
    return s


def _drop_decided(s: _State, best: Tensor, lowest: Tensor, problem: Problem) -> bool:
    """Let the rows of inputs that any row has broken leave the batch; False when none is left."""
    done = torch.zeros(len(problem), device=s.won.device).index_add(0, s.owner, s.won.float()) > 0
    left = (~done[s.owner]).nonzero().squeeze(1)
    if len(left) == len(s.owner):
        return True
    if not len(left):
        return False
    _collect(best, lowest, s)
    s.keep(left)
    problem.oracle.focus(problem.samples[s.owner])
    return True


def _moved(s: _State, p: float, box, *, inertia: float) -> Tensor:
    """One projected step, mixed with the previous displacement."""
    step = column(s.step, s.point)
    if math.isinf(p):
        direction = s.gradient.sign()
    elif p == 2:
        direction = unit(s.gradient, 2)
    else:
        direction = _sparse_sign(s.gradient, s.density)
    there = project(s.center, s.point + step * direction, s.eps, p, box)
    if not inertia or p == 1:
        return there
    mixed = s.point + (1 - inertia) * (there - s.point) + inertia * (s.point - s.previous)
    return project(s.center, mixed, s.eps, p, box)


def _halve(s: _State, window: int) -> None:
    """Halve the step where the loss rose in less than 3/4 of the window, or stalled without a halving."""
    stalled = ~s.halved & (s.best_loss <= s.checked_loss)
    halve = (s.rising <= 0.75 * window) | stalled
    s.step = torch.where(halve, s.step / 2, s.step)
    _return_to_best(s, halve)
    s.halved, s.checked_loss, s.rising = halve, s.best_loss, torch.zeros_like(s.rising)


def _sparsify(s: _State) -> None:
    """The l1 schedule: follow the sparsity of the best point, restart the step where it grew sparser.

    Croce and Hein 2021, "Mind the box: l1-APGD".
    """
    size = s.best[0].numel()
    density = (s.best != s.center).flatten(1).sum(1).to(s.step.dtype) / (1.5 * size)
    sparser = density < 0.95 * s.density
    s.step = torch.where(sparser, s.eps, (s.step / 1.5).clamp_min(0.1 * s.eps))
    s.density = density.clamp_min(1.0 / size)
    _return_to_best(s, sparser)


def _return_to_best(s: _State, rows: Tensor) -> None:
    wide = column(rows, s.point)
    s.point = torch.where(wide, s.best, s.point)
    s.gradient = torch.where(wide, s.best_gradient, s.gradient)


def _sparse_sign(gradient: Tensor, density: Tensor) -> Tensor:
    """Sign of the largest coordinates (a share ``density`` of them), with l1 norm 1."""
    flat = gradient.flatten(1).abs()
    kept = (density * flat.shape[1]).long().clamp(1, flat.shape[1])
    floor = flat.sort(1, descending=True).values.gather(1, (kept - 1)[:, None])
    sign = gradient.sign() * (flat >= floor).view_as(gradient)
    return sign / column(norm(sign, 1).clamp_min(1e-10), sign)


def _collect(best: Tensor, lowest: Tensor, s: _State) -> None:
    """Merge the rows' lowest-margin points into their inputs'."""
    floor = lowest.scatter_reduce(0, s.owner, s.lowest, "amin")
    rows = torch.arange(len(s.owner), device=floor.device)
    none = len(s.owner)
    hits = torch.where((s.lowest == floor[s.owner]) & (s.lowest < lowest[s.owner]), rows, none)
    first = torch.full_like(lowest, none, dtype=torch.long).scatter_reduce(0, s.owner, hits, "amin")
    found = column(first < none, best)
    best.copy_(torch.where(found, s.lowest_point[first.clamp_max(none - 1)], best))
    lowest.copy_(floor)
