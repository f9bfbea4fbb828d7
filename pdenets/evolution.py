"""Inverse evolution layers: run a PDE backwards on the logits while training.

Running an evolution that smooths backwards makes rough logits rougher, and so makes
them expensive: the loss behind the layer can only be small where the logits in front
of it are smooth. The layer has no parameter, and it exists in training only: the
network is used (and certified) without it.

Reference: arXiv 2307.07344 (Inverse Evolution Layers).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.calls import checked
from certify.errors import InvalidSetting

#: A forward evolution: fields (batch, channels, height, width) -> their rate of change.
Evolution = Callable[[Tensor], Tensor]

#: What lies beyond the border: zeros (as in the paper) or the border's own values.
BOUNDARIES = ("zero", "replicate")


class InverseEvolution(nn.Module):
    """``steps`` explicit steps z <- z - dt * evolution(z) in training mode; the identity otherwise.

    Goes after the last layer of a network, before the softmax of the loss. The paper's
    settings are dt = .1 and 20 to 30 steps of ``heat``.
    """

    def __init__(self, evolution: Evolution, *, dt: float = 0.1, steps: int = 20) -> None:
        super().__init__()
        if not (dt > 0 and steps >= 1):
            raise InvalidSetting(
                f"dt = {dt}, steps = {steps} is no evolution",
                why="the time step must be positive and there must be a step",
                remedy="use the defaults dt = .1, steps = 20",
            )
        self.evolution, self.dt, self.steps = evolution, dt, steps

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            for _ in range(self.steps):
                z = z - self.dt * self.evolution(z)
        return z


@checked
def with_inverse_evolution(network: nn.Module, layer: InverseEvolution) -> nn.Module:
    """Any network that returns logits (batch, classes, height, width), followed by the layer."""
    return nn.Sequential(network, layer)


@checked
def inverse_evolution(
    name: str, *, dt: float = 0.1, steps: int = 20, boundary: str = "zero"
) -> InverseEvolution:
    """The layer of the evolution called ``name`` (see ``EVOLUTIONS``). Raises InvalidSetting."""
    if name not in EVOLUTIONS or boundary not in BOUNDARIES:
        raise InvalidSetting(
            f"there is no evolution {name!r} with boundary {boundary!r}",
            why=f"the evolutions are {', '.join(EVOLUTIONS)}; the boundaries {', '.join(BOUNDARIES)}",
            remedy="choose from these, or build InverseEvolution from a function of your own",
        )
    return InverseEvolution(EVOLUTIONS[name](boundary), dt=dt, steps=steps)


@checked
def heat(boundary: str = "zero") -> Evolution:
    """z_t = (1/4) Laplacian z: every value moves towards the mean of its four neighbours."""

    def rate(z: Tensor) -> Tensor:
        west, east, north, south = _neighbours(z, boundary)
        return (west + east + north + south) / 4 - z

    return rate


@checked
def curve_motion(boundary: str = "zero", *, epsilon: float = 1e-3) -> Evolution:
    """z_t = (1/4) |grad z| div(grad z / |grad z|): level curves move with their curvature.

    ``epsilon`` is added to |grad z|^2, where flat regions would divide by zero.
    """

    def rate(z: Tensor) -> Tensor:
        p = _padded(z, boundary)
        centre = p[..., 1:-1, 1:-1]
        west, east, north, south = _neighbours(z, boundary)
        zx, zy = (east - west) / 2, (south - north) / 2
        zxx, zyy = east - 2 * centre + west, south - 2 * centre + north
        zxy = (p[..., 2:, 2:] - p[..., 2:, :-2] - p[..., :-2, 2:] + p[..., :-2, :-2]) / 4
        return (zxx * zy**2 - 2 * zx * zy * zxy + zyy * zx**2) / (4 * (zx**2 + zy**2 + epsilon))

    return rate


@checked
def reaction_diffusion(boundary: str = "zero", *, strength: float = 0.1) -> Evolution:
    """z_t = (1/4) Laplacian z + strength (2 tanh z - z): diffusion with two stable states.

    The reaction drives every logit to one of +-1.915. It grows linearly, unlike the
    cubic reaction of Allen and Cahn, whose backward evolution explodes in finite time.
    """
    diffuse = heat(boundary)
    return lambda z: diffuse(z) + strength * (2 * torch.tanh(z) - z)


#: Name -> constructor called with the boundary.
EVOLUTIONS: dict[str, Callable[[str], Evolution]] = {
    "heat": heat,
    "curve-motion": curve_motion,
    "reaction-diffusion": reaction_diffusion,
}


def _padded(z: Tensor, boundary: str) -> Tensor:
    return F.pad(z, (1, 1, 1, 1), mode="constant" if boundary == "zero" else "replicate")


def _neighbours(z: Tensor, boundary: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """West, east, north and south neighbour of every pixel."""
    p = _padded(z, boundary)
    return p[..., 1:-1, :-2], p[..., 1:-1, 2:], p[..., :-2, 1:-1], p[..., 2:, 1:-1]
