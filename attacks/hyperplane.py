"""The shortest way from a point to a hyperplane without leaving the box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.geometry import Box

#: Newton steps on a device where asking whether all rows have converged would stall the queue.
_FIXED_STEPS = 8


def to_hyperplane(t: Tensor, w: Tensor, excess: Tensor, p: float, box: Box) -> Tensor:
    """(rows, d) shortest lp moves from ``t`` (rows, d) that change ``w . t`` by ``-excess`` (rows,).

    Where the box is too small for that, the move that comes closest. For l2 and linf the move is
    clip(t - s v) - t with v = w or sign(w) and one length s >= 0 per row; what is left of the
    excess is convex, falling and piecewise linear in s, so Newton's method from s = 0 climbs to the
    root without overshooting. For l1 the coordinates with the largest ``|w|`` move as far as they
    can, one after the other.
    """
    sign = torch.where(excess >= 0, 1.0, -1.0).to(w.dtype)[:, None]
    w, excess = w * sign, excess.abs()
    if p == 1:
        return _greedy(t, w, excess, box)
    v = w.sign() if math.isinf(p) else w
    weight = w * v
    edge = torch.where(v > 0, t - box[0], t - box[1])
    # Length at which a coordinate meets the box, infinite where it does not move.
    reach = torch.where(v != 0, edge / v, math.inf)
    length = torch.zeros_like(excess)
    fixed = t.is_cuda
    for _ in range(_FIXED_STEPS if fixed else 60):
        free = length[:, None] < reach
        used = torch.minimum(length[:, None], reach)
        left = excess - torch.where(weight > 0, weight * used, 0.0).sum(1)
        slope = torch.where(free, weight, 0.0).sum(1)
        length = length + torch.where(slope > 0, (left / slope.clamp_min(1e-30)).clamp_min(0.0), 0.0)
        if not fixed and bool(((left <= 1e-6 * excess) | (slope <= 0)).all()):
            break
    # The box ends every coordinate's travel, also those that rounding would let overshoot it.
    moved = torch.where(v != 0, torch.minimum(length[:, None], reach), 0.0)
    return -v * moved


def _greedy(t: Tensor, w: Tensor, excess: Tensor, box: Box) -> Tensor:
    room = torch.where(w > 0, t - box[0], box[1] - t).clamp_min(0.0)
    gain = torch.where(w != 0, w.abs() * room, 0.0)
    order = w.abs().argsort(1, descending=True)
    before = gain.gather(1, order).cumsum(1).roll(1, 1)
    before[:, 0] = 0.0
    needed = (excess[:, None] - before).clamp_min(0.0)
    sorted_w = w.gather(1, order)
    step = torch.minimum(needed / sorted_w.abs().clamp_min(1e-30), room.gather(1, order))
    step = torch.where((sorted_w != 0) & (needed > 0), step, 0.0)
    return torch.zeros_like(t).scatter(1, order, -sorted_w.sign() * step)
