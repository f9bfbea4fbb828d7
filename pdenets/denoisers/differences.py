"""Differences of neighbouring pixels, and their adjoint, on images (..., height, width)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gradient(u: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences down and to the right, 0 at the last row and column."""
    return F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1)), F.pad(u[..., :, 1:] - u[..., :, :-1], (0, 1))


def divergence(down: Tensor, right: Tensor) -> Tensor:
    """Minus the adjoint of ``gradient``: what flows into a pixel from above and from the left, net.

    Sums to zero over an image, whatever flows.
    """
    vertical, horizontal = down[..., :-1, :], right[..., :, :-1]
    return _net(vertical, (0, 0, 0, 1), (0, 0, 1, 0)) + _net(horizontal, (0, 1), (1, 0))


def _net(flow: Tensor, after: tuple[int, ...], before: tuple[int, ...]) -> Tensor:
    return F.pad(flow, after) - F.pad(flow, before)


def total_variation(u: Tensor) -> Tensor:
    """The isotropic total variation of every image of (batch, ..., height, width): (batch,)."""
    down, right = gradient(u)
    return torch.sqrt(down.square() + right.square()).flatten(1).sum(1)
