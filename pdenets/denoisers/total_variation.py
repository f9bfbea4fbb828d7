"""Total variation denoising: the image nearby that varies least, by Chambolle's dual iteration."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from certify.errors import InvalidSetting
from pdenets.denoisers.differences import divergence, gradient
from pdenets.denoisers.levels import check_images

#: The dual iteration converges for steps up to 1/8.
_STEP = 0.125


class TotalVariation(nn.Module):
    """Approximates argmin_u |u - x|^2 / 2 + weight * TV(u), weight = strength * sigma, channel by channel.

    u = x - weight div p, where the dual field p, |p| <= 1 everywhere, comes from ``steps`` iterations
    p <- (p + step grad(div p - x / weight)) / (1 + step |grad(div p - x / weight)|). A fixed number of them
    makes a fixed function. Every image keeps its mean.

    References: L. Rudin, S. Osher and E. Fatemi (Physica D 1992); A. Chambolle, "An algorithm for total
    variation minimization and applications" (JMIV 2004).
    """

    #: What matching tries.
    matched = (("strength", (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)),)

    def __init__(self, *, input_shape: tuple[int, ...], strength: float, steps: int = 40) -> None:
        super().__init__()
        check_images("tv", input_shape)
        if not (math.isfinite(strength) and strength > 0 and isinstance(steps, int) and steps >= 1):
            raise InvalidSetting(
                f"strength = {strength!r}, steps = {steps!r} is no total variation denoising",
                why="the weight of the variation must be positive, and there must be an iteration",
                remedy="leave the strength out to have it matched to the noise; 40 steps are the default",
            )
        self.settings = {"strength": float(strength), "steps": int(steps)}
        self.eval()

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """Smoother images (batch, channels, height, width); ``sigma`` is the noise's standard deviation."""
        weight = self.settings["strength"] * sigma
        return x - weight * divergence(*self.dual(x / weight))

    def dual(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The field p (down, right) that the iteration reaches for ``target`` = x / weight."""
        down, right = torch.zeros_like(target), torch.zeros_like(target)
        for _ in range(self.settings["steps"]):
            a, b = gradient(divergence(down, right) - target)
            # The derivative of a root is infinite at 0, where attacks would find NaN.
            size = torch.sqrt((a.square() + b.square()).clamp_min(torch.finfo(a.dtype).tiny))
            shrink = 1 + _STEP * size
            down, right = (down + _STEP * a) / shrink, (right + _STEP * b) / shrink
        return down, right

    def extra_repr(self) -> str:
        return f"strength={self.settings['strength']!r}, steps={self.settings['steps']!r}"
