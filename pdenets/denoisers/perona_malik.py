"""Perona-Malik diffusion: heat flow that stops at edges."""

from __future__ import annotations

import math

from torch import Tensor, nn

from certify.errors import InvalidSetting
from pdenets.denoisers.differences import divergence, gradient
from pdenets.denoisers.levels import check_images

#: Explicit steps keep the range of an image, and lower its energy, up to dt = 1/4.
_LARGEST = 0.25


class PeronaMalik(nn.Module):
    """``steps`` explicit steps of u_t = div(g(|grad u|) grad u), g(s) = 1 / (1 + (s / edge)^2).

    edge = contrast * sigma: differences of neighbours well below it are smoothed, those above it are
    kept. The flux between two neighbours depends on their difference alone, as in the paper's
    four-neighbour scheme, so every image keeps its mean and its range, and the sum of edge^2 / 2 log(1 +
    (difference / edge)^2) falls.

    Reference: P. Perona and J. Malik, "Scale-space and edge detection using anisotropic diffusion" (IEEE
    TPAMI 1990).
    """

    #: What matching tries.
    matched = (
        ("contrast", (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)),
        ("steps", (1, 2, 3, 5, 8, 12, 20, 30)),
    )

    def __init__(self, *, input_shape: tuple[int, ...], contrast: float, steps: int, dt: float = 0.2) -> None:
        super().__init__()
        check_images("perona-malik", input_shape)
        good = math.isfinite(contrast) and contrast > 0 and isinstance(steps, int) and steps >= 1
        if not (good and 0 < dt <= _LARGEST):
            raise InvalidSetting(
                f"contrast = {contrast!r}, steps = {steps!r}, dt = {dt!r} is no stable diffusion",
                why=f"the contrast must be positive, and explicit steps are stable up to dt = {_LARGEST:g}",
                remedy="leave contrast and steps out to have them matched to the noise; dt is 0.2",
            )
        self.settings = {"contrast": float(contrast), "steps": int(steps), "dt": float(dt)}
        self.eval()

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        """Smoother images (batch, channels, height, width); ``sigma`` is the noise's standard deviation."""
        edge = self.settings["contrast"] * sigma
        for _ in range(self.settings["steps"]):
            down, right = gradient(x)
            x = x + self.settings["dt"] * divergence(flux(down, edge), flux(right, edge))
        return x

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


def flux(difference: Tensor, edge: float) -> Tensor:
    """What flows between two neighbours that differ by this much."""
    return difference / (1 + (difference / edge).square())
