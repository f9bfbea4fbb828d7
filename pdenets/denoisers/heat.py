"""Heat flow: the image at a later time of the heat equation on the pixel grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from certify.errors import InvalidSetting
from pdenets.denoisers.levels import check_images


class HeatFlow(nn.Module):
    """u(., time) of u_t = Laplacian_h u, u(., 0) = x, with insulated borders; exact, not stepped.

    ``time`` is in squared pixels: far from the border the flow is a blur of variance 2 * time. On the grid
    the solution is A_h x A_w^T with A = exp(time L) of the three-point Laplacian L along one axis, whose
    eigenvectors are the cosines of the DCT-II and whose eigenvalues are 2 cos(pi k / n) - 2. Rows of A are
    non-negative and sum to 1: every image keeps its mean and its range. ``time`` is matched to the noise on
    held-out images (``pdenets.denoisers.matching``); the flow itself is told nothing.
    """

    #: What matching tries.
    matched = (("time", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0)),)
    rows: Tensor
    columns: Tensor

    def __init__(
        self, *, input_shape: tuple[int, ...], time: float, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        check_images("heat", input_shape)
        if not (math.isfinite(time) and time >= 0):
            raise InvalidSetting(
                f"time = {time!r} is no time of a heat flow",
                why="heat flows forwards: a finite number of squared pixels, at least 0",
                remedy="leave it out to have it matched to the noise, or give for example 0.4",
            )
        self.settings = {"time": float(time)}
        dtype = dtype or torch.get_default_dtype()
        for name, size in (("rows", input_shape[1]), ("columns", input_shape[2])):
            self.register_buffer(name, propagator(size, time).to(dtype), persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The images (batch, channels, height, width) after the flow."""
        return self.rows @ x @ self.columns

    def extra_repr(self) -> str:
        return f"time={self.settings['time']!r}"


def propagator(size: int, time: float) -> Tensor:
    """exp(time L), (size, size) in float64, symmetric, for the insulated three-point Laplacian L."""
    k = torch.arange(size, dtype=torch.float64, device="cpu")
    cosines = torch.cos(math.pi / size * (k[:, None] + 0.5) * k)
    cosines = cosines / cosines.norm(dim=0)
    return (cosines * torch.exp(time * (2 * torch.cos(math.pi * k / size) - 2))) @ cosines.T
