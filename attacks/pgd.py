"""Projected gradient descent with random restarts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attacks.geometry import column, project, random_start, steepest
from attacks.losses import margin
from attacks.problem import Problem


def pgd(
    problem: Problem,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int = 20,
    restarts: int = 1,
    relative_step: float = 2.5,
) -> Tensor:
    """Per row, the visited point of lowest margin under steepest ascent of ``loss(scores, y)``.

    The step is ``relative_step * eps / steps`` in the threat's norm; the first restart starts at
    the input, the others at random in the ball. All restarts of all rows run as one batch. Returns
    (rows, *shape). Madry et al. 2018, "Towards deep learning models resistant to adversarial
    attacks".
    """
    p, box, rows = problem.p, problem.box, len(problem)
    starts = [problem.x] + [
        random_start(problem.x, problem.noise(f"pgd/{r}"), problem.eps, p, box) for r in range(1, restarts)
    ]
    tile = (restarts,) + (1,) * (problem.x.dim() - 1)
    center, label, eps = problem.x.repeat(tile), problem.y.repeat(restarts), problem.eps.repeat(restarts)
    oracle = problem.oracle
    oracle.focus(problem.samples.repeat(restarts))
    point = torch.cat(starts)
    best, lowest = point, torch.full_like(eps, math.inf)
    step = column(eps * (relative_step / steps), center)
    for _ in range(steps):
        scores, _, gradient = oracle.ascend(point, lambda s: loss(s, label))
        best, lowest = keep(best, lowest, point, margin(scores, label))
        point = project(center, point + step * steepest(gradient, p), eps, p, box)
    best, lowest = keep(best, lowest, point, margin(oracle.scores(point), label))
    oracle.focus(None)
    winner = lowest.view(restarts, rows).argmin(0)
    return best.view(restarts, rows, *problem.shape)[winner, torch.arange(rows, device=best.device)]


def keep(best: Tensor, lowest: Tensor, point: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, the point with the lower value, and that value."""
    better = value < lowest
    return torch.where(column(better, point), point, best), torch.where(better, value, lowest)
