"""Activations that act on the channel vector of each pixel: hardball and softball.

Both are equivariant under every rotation of the channels, which a coordinate-wise
activation is not.

Reference: Liu, Shao and Bai, A Novel Convolutional Neural Network Architecture with a
Continuous Symmetry (2023), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hardball(x: Tensor) -> Tensor:
    """Project the channel vectors of (batch, channels, ...) onto the ball of radius sqrt(channels)."""
    scaled, scale, squares = _rescaled(x)
    radius = x.shape[1] ** 0.5
    # The clamp gives an all-zero pixel a gradient (of 1) instead of NaN.
    reach = radius * squares.clamp_min(torch.finfo(x.dtype).tiny).rsqrt()
    return scaled * torch.minimum(scale, reach)


def softball(x: Tensor) -> Tensor:
    """x / sqrt(1 + |x|^2 / R^2) with R^2 = channels, for every pixel of (batch, channels, ...)."""
    scaled, scale, squares = _rescaled(x)
    return scaled * (scale.square().reciprocal() + squares / x.shape[1]).rsqrt()


class Hardball(nn.Module):
    """``hardball`` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return hardball(x)


class Softball(nn.Module):
    """``softball`` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return softball(x)


def _rescaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x / a, a and |x / a|^2 with a = max(1, largest entry): no square overflows.

    The result does not depend on a, so no gradient has to flow through it.
    """
    scale = x.detach().abs().amax(dim=1, keepdim=True).clamp_min(1)
    scaled = x / scale
    return scaled, scale, scaled.square().sum(dim=1, keepdim=True)
