"""Global layer: feature maps that solve a diffusion-advection equation.

    H_t + (u H)_x + (v H)_y = (D_x H_x)_x + (D_y H_y)_y + f

discretised by DuFort and Frankel's three-level scheme on a periodic grid. The input is
both the source f and the two first levels H^0 = H^1; the velocities u, v and the
diffusion coefficients are maps computed from it.

Pure diffusion stays bounded for any time step. Advection stays bounded only while
(|u| + |v|) dt / dx <= 1; ``max_speed`` keeps it there by u = max_speed * tanh(.).

Reference: Kag and Saligrama, Condensing CNNs with Partial Differential Equations, CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import InvalidSetting

#: How the diffusion coefficients D_x, D_y are made.
DIFFUSIONS = ("learned", "constant", "none")


class GlobalLayer(nn.Module):
    """(batch, channels, height, width) -> the same shape: ``steps`` (K) time steps, batch norm, ReLU.

    ``diffusion``: "learned" maps, "constant" (1 everywhere) or "none". ``advection``
    False drops the velocities. ``max_speed`` bounds each velocity component; with
    None they are ReLU(BN(depthwise convolution)) and unbounded, as in the paper.
    ``coef_bn_eps`` is the batch norm epsilon of the coefficient maps; the reference
    code passes the channel count there, which flattens the maps.
    """

    def __init__(
        self,
        channels: int,
        *,
        steps: int = 1,
        dt: float = 0.2,
        dx: float = 1.0,
        diffusion: str = "learned",
        advection: bool = True,
        max_speed: float | None = None,
        coef_bn_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if diffusion not in DIFFUSIONS or steps < 1:
            raise InvalidSetting(
                f"diffusion {diffusion!r} with {steps} steps is no Global layer",
                why=f"diffusion is one of {', '.join(DIFFUSIONS)} and there must be a step",
                remedy="use the defaults: learned, 1 step",
            )
        names = (["u", "v"] if advection else []) + (["Dx", "Dy"] if diffusion == "learned" else [])
        self.maps = nn.ModuleDict({name: _coefficient(channels, coef_bn_eps) for name in names})
        self.norm = nn.BatchNorm2d(channels)
        self.steps, self.dt, self.dx, self.max_speed = steps, dt, dx, max_speed
        self.constant = 0.0 if diffusion == "none" else 1.0

    def forward(self, f: Tensor) -> Tensor:
        maps = self.coefficients(f)
        h = dufort_frankel(
            f,
            maps["u"],
            maps["v"],
            maps["Dx"],
            maps["Dy"],
            source=f,
            steps=self.steps,
            dt=self.dt,
            dx=self.dx,
        )
        return F.relu(self.norm(h))

    def coefficients(self, f: Tensor) -> dict[str, Tensor]:
        """The maps u, v, Dx, Dy of an input, each of its shape (or a scalar where constant)."""
        out = {name: self._map(name, f) for name in self.maps}
        for name, value in {"u": 0.0, "v": 0.0, "Dx": self.constant, "Dy": self.constant}.items():
            out.setdefault(name, f.new_tensor(value))
        return out

    def _map(self, name: str, f: Tensor) -> Tensor:
        raw = self.maps[name](f)
        if name in "uv" and self.max_speed is not None:
            return self.max_speed * torch.tanh(raw)
        return F.relu(raw)


def dufort_frankel(
    h: Tensor,
    u: Tensor,
    v: Tensor,
    dx_coefficient: Tensor,
    dy_coefficient: Tensor,
    *,
    source: Tensor,
    steps: int,
    dt: float,
    dx: float,
) -> Tensor:
    """``steps`` time steps from H^0 = H^1 = h, periodic in both directions.

    x runs along the last dimension, y along the one before. ``source`` is f. Without
    it, with constant diffusion, the mean of h is conserved exactly.
    """
    # Central differences of the velocities, times dt: the local part of (u H)_x + (v H)_y.
    divergence = (_east(u) - _west(u) + _south(v) - _north(v)) * dt / (2 * dx)
    ax, ay = u * dt / dx, v * dt / dx
    bx, by = dx_coefficient * dt / dx**2, dy_coefficient * dt / dx**2
    left, right = 1 + 2 * bx + 2 * by, 1 - 2 * bx - 2 * by
    before = h
    for _ in range(steps):
        after = (
            right * before
            - 2 * divergence * h
            + 2 * dt * source
            + (2 * bx - ax) * _east(h)
            + (2 * bx + ax) * _west(h)
            + (2 * by - ay) * _south(h)
            + (2 * by + ay) * _north(h)
        ) / left
        before, h = h, after
    return h


def _coefficient(channels: int, eps: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.BatchNorm2d(channels, eps=eps)
    )


def _east(z: Tensor) -> Tensor:
    """The value at x + dx, at x."""
    return z.roll(-1, dims=-1) if z.dim() else z


def _west(z: Tensor) -> Tensor:
    return z.roll(1, dims=-1) if z.dim() else z


def _south(z: Tensor) -> Tensor:
    return z.roll(-1, dims=-2) if z.dim() else z


def _north(z: Tensor) -> Tensor:
    return z.roll(1, dims=-2) if z.dim() else z
