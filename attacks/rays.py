"""Random rays: the attack that gradients cannot mislead, where there are few coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.geometry import column, norm, unit
from attacks.losses import margin
from attacks.problem import Problem
from attacks.ranges import width


def rays(problem: Problem, nearest: Tensor, *, directions: int = 256, depths: int = 12) -> Tensor:
    """The nearest point of another class on random rays, nearer than ``nearest`` (rows,), else the input.

    Tries ``depths`` distances along each ray, up to the known distance. A row's rays fill the sphere only
    in a few dimensions; there they find the boundaries that no gradient leads to. Returns (rows, *shape).
    """
    oracle, p, (low, high) = problem.oracle, problem.p, problem.box
    reach = nearest.clamp_max(width(problem.box))
    out = problem.x.clone()
    share = torch.linspace(0, 1, depths + 1, device=out.device, dtype=out.dtype)[1:]
    for row in reach.isfinite().nonzero().squeeze(1).tolist():
        one = problem.take(torch.tensor([row], device=out.device))
        noise = one.streams.normal((directions, *problem.shape), "rays")[0].to(out)
        points = one.x + column(reach[row] * share.repeat_interleave(directions), out) * unit(
            noise, p
        ).repeat(depths, *[1] * (out.dim() - 1))
        inside = ((points >= low) & (points <= high)).flatten(1).all(1)
        oracle.focus(one.samples.repeat(len(points)))
        flipped = (margin(oracle.scores(points), one.y.expand(len(points))) < 0) & inside
        far = torch.where(flipped, norm(points - one.x, p), math.inf)
        first = far.argmin()
        if bool(flipped[first]):
            out[row] = points[first]
    oracle.focus(None)
    return out
