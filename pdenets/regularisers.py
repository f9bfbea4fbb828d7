"""Training losses: what is added to, or done to, the cross-entropy.

Each regulariser is a frozen value with one method ``loss(model, x, y, generator=)``
that returns the named parts of the loss; the training loop adds them up. ``sigma`` is
always the noise's standard deviation s; the diffusion coefficient of the model
equation is sigma_p = s / sqrt(2), so that noise and diffusion describe the same
smoothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.calls import checked
from certify.errors import InvalidSetting
from certify.limits import alike, real_values
from pdenets.residual import diffusion_penalty, probabilities
from pdenets.smooth_losses import Consistency, Macer, SmoothAdversarial

Losses = dict[str, Tensor]


class Regulariser(Protocol):
    """A training loss. The parts are added up; the first one is the classification loss."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Losses:
        """The parts of the loss on inputs (batch, *shape) with labels (batch,).

        ``generator`` draws whatever is random in it.
        """
        ...


@checked
def regulariser(name: str, *, sigma: float, **options: Any) -> Regulariser:
    """The regulariser called ``name`` at noise level ``sigma``.

    Raises InvalidSetting for an unknown name, a sigma that is not positive where noise
    is used, or an option the regulariser does not have.
    """
    if name not in REGULARISERS:
        raise InvalidSetting(
            f"regulariser {name!r} is unknown",
            why=f"the regularisers are {', '.join(REGULARISERS)}",
            remedy="choose one of them",
        )
    if not (math.isfinite(sigma) and sigma >= 0) or (sigma == 0 and name != "none"):
        raise InvalidSetting(
            f"sigma = {sigma} cannot be used with {name}",
            why="the noise's standard deviation must be positive and finite",
            remedy="give for example --sigma 0.25, or use the regulariser none",
        )
    try:
        return REGULARISERS[name](sigma, **options)
    except TypeError as cause:
        raise InvalidSetting(
            f"regulariser {name!r} does not take {', '.join(options)}",
            why=str(cause),
            remedy="leave the options out; the defaults are the measured ones",
        ) from cause


@dataclass(frozen=True)
class Plain:
    """Cross-entropy on the inputs as they are."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Losses:
        return {"classification": F.cross_entropy(model(x), y)}


@dataclass(frozen=True)
class GaussianAugmentation:
    """Cross-entropy on x + s xi: the network sees what the certifier will show it.

    ``scales`` multiplies sigma per input coordinate (anisotropic noise), one number for
    each coordinate of the flattened input.

    Reference: Cohen, Rosenfeld and Kolter (2019), section 3.3.
    """

    sigma: float
    scales: Sequence[float] | None = None

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Losses:
        sigma = per_coordinate(self.sigma, self.scales, x)
        return {"classification": F.cross_entropy(model(noisy(x, sigma, generator)), y)}


@dataclass(frozen=True)
class DiffusionResidual:
    """Cross-entropy at both ends of the diffusion phase plus weight * |diffusion residual|^2.

    At t = T-1 the network is the function to be smoothed: with ``augment`` it sees
    inputs under noise s. At t = T it is the smoothed function itself: it sees clean
    inputs. The residual ties the two together at collocation points x + ``spread`` xi
    (default: s), t ~ U[T-1, T-tau], for the first ``share`` of each batch, because
    each residual costs four or more evaluations of the network. ``scales`` multiplies
    sigma per input coordinate: anisotropic diffusion, and noise that matches it.

    With ``augment=False`` this is the loss of arXiv 2307.12333, section 4.
    """

    sigma: float
    weight: float = 1.0
    augment: bool = True
    spread: float | None = None
    tau: float = 0.1
    h: float = 0.1
    probes: int = 1
    share: float = 1.0
    scales: Sequence[float] | None = None

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Losses:
        horizon = _horizon(model)
        sigma = per_coordinate(self.sigma, self.scales, x)
        start = noisy(x, sigma, generator) if self.augment else x
        losses = {
            "classification": (
                F.cross_entropy(model(start, horizon - 1), y) + F.cross_entropy(model(x, horizon), y)
            )
            / 2
        }
        if self.weight > 0:
            some = x[: math.ceil(self.share * len(x))]
            points = noisy(some, sigma if self.spread is None else self.spread, generator)
            u = torch.rand(len(some), generator=generator, device=x.device, dtype=x.dtype)
            times = horizon - 1 + (1 - self.tau) * u
            losses["residual"] = self.weight * diffusion_penalty(
                probabilities(model),
                points,
                times,
                diffusion=sigma / math.sqrt(2),
                tau=self.tau,
                h=self.h,
                probes=self.probes,
                generator=generator,
            )
        return losses


@checked
def noisy(x: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """x + sigma * standard normal noise, not clipped: the certifier does not clip either."""
    real_values("x", x)
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    scale = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if scale.dim() and scale.shape not in (x.shape, x.shape[1:], (1,)):
        alike("sigma", scale, "one input", x[0])
    return x + scale * noise


@checked
def per_coordinate(sigma: float, scales: Sequence[float] | None, x: Tensor) -> float | Tensor:
    """sigma, or sigma * scales in the shape of one input of ``x``; InvalidSetting where they do not fit."""
    if scales is None:
        return sigma
    if len(scales) != x[0].numel() or min(scales) < 0 or not max(scales) > 0:
        raise InvalidSetting(
            f"{len(scales)} scales do not fit inputs of {x[0].numel()} coordinates",
            why="anisotropic noise needs one non-negative factor per coordinate, not all zero",
            remedy="give as many factors as an input has numbers, in the order of its flattened form",
        )
    return sigma * torch.tensor(list(scales), dtype=x.dtype, device=x.device).reshape(x.shape[1:])


def _paper(sigma: float, **options: Any) -> Regulariser:
    return DiffusionResidual(sigma, augment=False, **options)


def _horizon(model: nn.Module) -> float:
    horizon = getattr(model, "horizon", None)
    if horizon is None:
        raise InvalidSetting(
            "the diffusion residual needs a time-dependent network",
            why=f"{type(model).__name__} has no horizon T and takes no time",
            remedy="use --arch convection-diffusion, or the regulariser gaussian",
        )
    return float(horizon)


#: Name -> constructor called as ``constructor(sigma, **options)``.
REGULARISERS: dict[str, Callable[..., Regulariser]] = {
    "none": lambda sigma: Plain(),
    "gaussian": GaussianAugmentation,
    "diffusion": DiffusionResidual,
    "residual": _paper,
    "consistency": Consistency,
    "smoothadv": SmoothAdversarial,
    "macer": Macer,
}
