"""Adversarial inputs that lie on the input lattice, so that they survive being saved.

A search moves freely; half of what it finds at the boundary dies when it is rounded. Here its points are
moved to lattice points in many ways at once, and the best that the model itself misreads is kept. Rounding
to the nearest point changes the margin by about |gradient| step / sqrt(12), either way. What is then
missing is won back by rounding some coordinates to the other side, those first that gain the most margin
for the distance they cost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.geometry import Box, column, distance, norm
from attacks.losses import lost_margin, margin
from attacks.problem import Problem
from certify.noise.grid import Grid, make_grid

#: A point is tried as found, a little farther out, and (inside a ball) a little nearer.
_SCALES = (0.97, 1.0, 1.005, 1.02, 1.06)
#: The margin to win back by other roundings, in units of what the nearest ones lose at random; and none.
_LEVELS = (0.0, 0.5, 1.0, 2.0, 4.0)
#: A margin counts where it is so many times the spread of the scores: the judge must see it, too.
_SURE = 1e-6
#: A whole number of steps may be longer than eps by rounding; the judge forgives twice as much.
_OVER = 5e-7
#: Rounds that bring coordinates back one step towards the input.
_RETURNS = 6


def on_lattice(
    problem: Problem, point: Tensor, step: float, *, within: bool, gradients: bool = True
) -> Tensor:
    """Lattice points (rows, d) near ``point`` that the model misreads; the input itself where none is found.

    ``problem.x`` must lie on the lattice. ``within``: the lowest margin inside the balls counts, else the
    smallest distance. ``gradients``: whether the model has any; without them the nearest points are tried.
    """
    grid, moved = make_grid(step, None), point - problem.x
    problem.oracle.focus(problem.samples)
    slope = problem.oracle.ascend(point, lambda s: lost_margin(s, problem.y))[2] if gradients else None
    problem.oracle.focus(None)
    search = _Search(problem, grid, within)
    for scale in _scales(problem, moved, step):
        target = problem.x + moved * scale
        for level in _LEVELS if slope is not None else (0.0,):
            search.offer(_rounded(problem, target, slope, level, grid))
    for share in (1.0, 0.75, 0.5):  # towards the input: never longer than what was found
        search.offer(_image(grid, _toward(problem, problem.x + moved * share, grid)))
    if not within and slope is not None:
        for _ in range(_RETURNS):
            search.offer(_nearer(problem, search.best, slope, grid))
    return search.best


class _Search:
    """The best lattice point so far."""

    def __init__(self, problem: Problem, grid: Grid, within: bool) -> None:
        self.problem, self.within = problem, within
        self.best = problem.x.clone()
        self.value = torch.full_like(problem.eps, math.inf)
        self.low, self.high = _edges(problem.box, grid, problem.x)

    def offer(self, found: Tensor) -> None:
        """Keep the rows of ``found`` that are misread and better than what is known."""
        problem = self.problem
        found = torch.maximum(torch.minimum(found.to(self.best), self.high), self.low)
        problem.oracle.focus(problem.samples)
        scores = problem.oracle.scores(found)
        problem.oracle.focus(None)
        left = margin(scores, problem.y)
        far = distance(problem.x, found, problem.p)
        fine = left < -_SURE * (scores.amax(1) - scores.amin(1))
        if self.within:
            fine &= far <= problem.eps.double() * (1 + _OVER)
        value = left if self.within else far.to(left)
        better = fine & (value < self.value)
        self.best = torch.where(column(better, found), found, self.best)
        self.value = torch.where(better, value, self.value)


def _scales(problem: Problem, moved: Tensor, step: float) -> list[Tensor]:
    """Factors (rows, 1...) of the move: round ones, and in linf those whose largest entry is whole steps."""
    if not math.isinf(problem.p):
        return [column(torch.full_like(problem.eps, s), moved) for s in _SCALES]
    steps = norm(moved, math.inf) / step
    whole = (steps.floor(), steps.floor() + 1, steps.floor() + 2)
    return [column(s.clamp_min(1.0) / steps.clamp_min(1e-12), moved) for s in whole]


def _rounded(problem: Problem, target: Tensor, slope: Tensor | None, level: float, grid: Grid) -> Tensor:
    """``target`` on the lattice: nearest, but for the coordinates that win ``level`` units of margin back."""
    exact = target.double() * grid.divisor
    nearest = exact.round()
    if slope is None or level == 0:
        return _image(grid, nearest)
    rows = slope.flatten(1).double()
    unit = rows.square().sum(1, keepdim=True).sqrt() / (grid.divisor * math.sqrt(12))
    # The other neighbour of a coordinate, where it lies the way that the margin falls.
    way = rows.sign().view_as(exact)
    other = torch.where((way > 0) & (exact > nearest), nearest + 1, nearest)
    other = torch.where((way < 0) & (exact < nearest), nearest - 1, other)
    gain = ((other - nearest) * slope.double() / grid.divisor).flatten(1)
    start = problem.x.double() * grid.divisor
    cost = (_size(other - start, problem.p) - _size(nearest - start, problem.p)).flatten(1)
    order = (gain / cost.clamp_min(1e-3)).argsort(1, descending=True)
    won = gain.gather(1, order).cumsum(1)
    taken = (won - gain.gather(1, order) < level * unit) & (gain.gather(1, order) > 0)
    chosen = torch.zeros_like(taken).scatter(1, order, taken).view_as(exact)
    return _image(grid, torch.where(chosen, other, nearest))


def _nearer(problem: Problem, point: Tensor, slope: Tensor, grid: Grid) -> Tensor:
    """``point`` with some coordinates one step nearer to the input: the cheapest in margin."""
    problem.oracle.focus(problem.samples)
    room = -margin(problem.oracle.scores(point), problem.y).double()
    problem.oracle.focus(None)
    start, now = ((x.double() * grid.divisor).round() for x in (problem.x, point))
    moved = now - start
    back = now - moved.sign()
    gain = (_size(moved, problem.p) - _size(back - start, problem.p)).flatten(1)
    cost = ((now - back) * slope.double() / grid.divisor).flatten(1)
    order = (gain / cost.clamp_min(1e-9)).argsort(1, descending=True)
    spent = cost.gather(1, order).clamp_min(0.0).cumsum(1)
    taken = (spent < 0.8 * room.clamp_min(0.0)[:, None]) & (gain.gather(1, order) > 0)
    chosen = torch.zeros_like(taken).scatter(1, order, taken).view_as(now)
    return _image(grid, torch.where(chosen, back, now))


def _size(steps: Tensor, p: float) -> Tensor:
    """What a coordinate of so many steps adds to the distance, up to a function that grows."""
    return steps.square() if p == 2 else steps.abs()


def _toward(problem: Problem, target: Tensor, grid: Grid) -> Tensor:
    """``target`` in steps, every coordinate rounded towards the input."""
    start = (problem.x.double() * grid.divisor).round()
    return start + (target.double() * grid.divisor - start).trunc()


def _edges(box: Box, grid: Grid, like: Tensor) -> tuple[Tensor, Tensor]:
    """The outermost lattice points of a box."""
    low, high = (torch.as_tensor(bound, dtype=torch.float64, device=like.device) for bound in box)
    slack = 2.0**-20
    ends = (low * grid.divisor - slack).ceil(), (high * grid.divisor + slack).floor()
    below, above = (_image(grid, end).to(like) for end in ends)
    return below, above


def _image(grid: Grid, steps: Tensor) -> Tensor:
    """The float32 image of lattice points, as a saved and reloaded image has it."""
    return grid.image(steps)
