"""Burgers' equation u_t + u u_x = viscosity u_xx on [-1, 1]: exact solution and a differentiable solver."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from certify.calls import checked
from certify.limits import real_values, within


@checked
def cole_hopf(x: Tensor, t: float, *, viscosity: float, nodes: int = 100) -> Tensor:
    """The solution at time t > 0 from u(x, 0) = -sin(pi x), u(-1) = u(1) = 0; x of any shape.

    The Cole-Hopf transform gives u as a quotient of two Gaussian integrals, taken by
    Gauss-Hermite quadrature. Computed and returned in double precision.
    """
    within("nodes", nodes, 1, 1000, "a number of quadrature nodes")
    within("t", t, 0, 1e6, "a time")
    within("viscosity", viscosity, 1e-12, 1e12, "a viscosity")
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    eta = math.sqrt(4 * viscosity * t) * torch.from_numpy(z)
    y = x.to(torch.float64)[..., None] - eta
    exponent = -torch.cos(math.pi * y) / (2 * math.pi * viscosity)
    # Shifted by its maximum: at small viscosity the factor alone overflows.
    factor = torch.from_numpy(weights) * torch.exp(exponent - exponent.amax(-1, keepdim=True))
    return -(factor * torch.sin(math.pi * y)).sum(-1) / factor.sum(-1)


@checked
def cell_centres(cells: int) -> Tensor:
    """Centres of equal cells on [-1, 1], in double precision."""
    within("cells", cells, 1, 2**31, "a number of cells")
    return (torch.arange(cells, dtype=torch.float64) + 0.5) * 2 / cells - 1


@checked
def finite_volume(
    start: Tensor,
    t: float,
    *,
    viscosity: float | Tensor,
    courant: float = 0.4,
    max_speed: float | None = None,
) -> Tensor:
    """Cell means (..., cells) at time t from cell means ``start`` on [-1, 1] with zero boundary values.

    Second order in space (energy-stable flux, central diffusion) and third in time.
    Differentiable in ``start`` and ``viscosity``. ``max_speed`` bounds |u| for the time
    step; by default the maximum of ``start``, which the exact solution never exceeds.
    """
    real_values("start", start)
    within("t", t, 0, 1e6, "a time")
    within("courant", courant, 1e-6, 1, "a Courant number")
    within("max_speed", 0.0 if max_speed is None else max_speed, 0, 1e6, "the largest |u|")
    if isinstance(viscosity, Tensor):
        within("viscosity.numel()", viscosity.numel(), 1, 1, "one viscosity for all cells")
    nu = within("viscosity", float(viscosity), 1e-12, 1e6, "a viscosity")
    dx = 2 / start.shape[-1]
    speed = max(max_speed if max_speed is not None else float(start.detach().abs().max()), 1e-12)
    limit = min(dx / speed, dx**2 / (2 * nu))
    steps = max(1.0, t / (courant * limit))
    steps = math.ceil(within("t / step", steps, 1, 10**7, "a number of time steps"))
    dt = t / steps
    u = start
    for _ in range(steps):  # Shu and Osher's third-order Runge-Kutta
        one = u + dt * _rate(u, viscosity, dx)
        two = (3 * u + one + dt * _rate(one, viscosity, dx)) / 4
        u = (u + 2 * two + 2 * dt * _rate(two, viscosity, dx)) / 3
    return u


def _rate(u: Tensor, viscosity: float | Tensor, dx: float) -> Tensor:
    # A ghost cell of opposite sign puts the zero on the wall between them.
    padded = torch.cat([-u[..., :1], u, -u[..., -1:]], dim=-1)
    left, right = padded[..., :-1], padded[..., 1:]
    flux = (left.square() + left * right + right.square()) / 6 - viscosity * (right - left) / dx
    return -(flux[..., 1:] - flux[..., :-1]) / dx
