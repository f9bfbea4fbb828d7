"""Decoupled direction and norm: the smallest l2 perturbation by gradient ascent on a breathing sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.geometry import clip, column, norm, unit
from attacks.losses import lost_margin, margin
from attacks.problem import Problem


def ddn(problem: Problem, *, steps: int = 100, pace: float = 0.05, reach: float = 1.0) -> Tensor:
    """The nearest point of another class that the ascent meets; the input itself where it meets none.

    The radius shrinks by the factor 1 - ``pace`` while the class is changed and grows by 1 +
    ``pace`` while it is not. It starts at ``reach`` times the distance to the tangent of the
    boundary, so the search has no unit of its own. The loss is minus the margin: it keeps a
    gradient where the cross-entropy's vanishes. Returns (rows, *shape).

    Rony et al. 2019, "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks".
    """
    oracle, x, y = problem.oracle, problem.x, problem.y
    oracle.focus(problem.samples)
    point, best = x, x
    nearest = torch.full_like(problem.eps, math.inf)
    radius = torch.zeros_like(nearest)
    for i in range(steps):
        scores, _, gradient = oracle.ascend(point, lambda z: lost_margin(z, y))
        value = margin(scores, y)
        changed = value < 0
        far = torch.where(changed, norm(point - x, 2), math.inf)
        best = torch.where(column(far < nearest, x), point, best)
        nearest = torch.minimum(nearest, far)
        if i == 0:
            radius = reach * value.abs() / norm(gradient, 2).clamp_min(1e-12)
        else:
            radius = torch.where(changed, torch.minimum(radius, far) * (1 - pace), radius * (1 + pace))
        stride = radius * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / steps)))
        there = point - x + column(stride, x) * unit(gradient, 2)
        point = clip(x + unit(there, 2) * column(radius, x), problem.box)
    changed = margin(oracle.scores(point), y) < 0
    closer = changed & (norm(point - x, 2) < nearest)
    oracle.focus(None)
    return torch.where(column(closer, x), point, best)
