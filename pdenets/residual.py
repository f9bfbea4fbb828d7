"""The diffusion residual: how far a network u(x, t) is from solving the heat equation.

    r = [u(x, t + tau) - u(x, t)] / tau  -  sum_i sigma_i^2 d^2 u / dx_i^2

with the second derivatives by central differences of step h. The penalty is the mean
of |r|^2, a vector norm over the classes. u must be the softmax *probabilities*: they
are what a smoothed classifier averages; on logits the penalty hardly changes anything.

A residual that is small at the points where it was measured bounds nothing elsewhere.
It is a training aid and a diagnostic, never a certificate.

Reference: arXiv 2307.12333, section 4; Hutchinson's trace estimator (1989).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from certify.errors import InvalidSetting

#: Up to this many input coordinates the full 2d+1 point stencil is used.
STENCIL_LIMIT = 8

Field = Callable[[Tensor, Tensor], Tensor]


def diffusion_residual(
    u: Field,
    x: Tensor,
    t: Tensor,
    *,
    diffusion: float | Tensor,
    tau: float = 0.1,
    h: float = 0.1,
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Residual of u at the points (x, t): shape (batch, outputs).

    ``u(x, t)`` maps points (m, *shape) and times (m,) to (m, outputs); it is called
    once, on all stencil points together. ``diffusion`` is sigma_p, one number or one
    per input coordinate (shape of one input: anisotropic diffusion). ``h`` is the
    step along each coordinate, in input units; in float32 keep it in [.03, .1] for
    inputs of unit scale, because the quotient loses digits like eps / h^2.

    Up to ``STENCIL_LIMIT`` coordinates the Laplacian is the 2d+1 point stencil. Above,
    it is the mean of ``probes`` second differences along random sign vectors: unbiased
    for the same stencil's quadratic part, but its variance adds to the mean of |r|^2.
    """
    if not (tau > 0 and h > 0 and probes >= 1):
        raise InvalidSetting(
            f"tau = {tau}, h = {h}, probes = {probes} is not a discretisation",
            why="both steps must be positive and at least one probe is needed",
            remedy="use the defaults tau = .1, h = .1, probes = 1",
        )
    steps, factor = _steps(x, diffusion=diffusion, h=h, probes=probes, generator=generator)
    m = steps.shape[0]
    points = torch.cat([x[None], x[None], x + steps, x - steps])
    times = torch.cat([t[None], t[None] + tau, t.expand(2 * m, -1)])
    values = u(points.flatten(0, 1), times.flatten()).unflatten(0, (2 * m + 2, len(x)))
    now, later, neighbours = values[0], values[1], values[2:]
    return (later - now) / tau - factor * (neighbours.sum(0) - 2 * m * now)


def diffusion_penalty(u: Field, x: Tensor, t: Tensor, **settings) -> Tensor:
    """Mean over the batch of the squared residual; settings as in ``diffusion_residual``."""
    return diffusion_residual(u, x, t, **settings).square().sum(1).mean()


def probabilities(model: Callable[..., Tensor]) -> Field:
    """The field u(x, t) = softmax of a time-dependent network's logits."""
    return lambda x, t: model(x, t).softmax(1)


def _steps(
    x: Tensor, *, diffusion: float | Tensor, h: float, probes: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | float]:
    """Stencil displacements (m, 1 or batch, *shape) and the factor of the summed differences.

    Coordinate i moves by h * sigma_i / max(sigma), so that every second difference is
    weighted by sigma_i^2 once multiplied by (max(sigma) / h)^2.
    """
    shape = tuple(x.shape[1:])
    sigma = torch.as_tensor(diffusion, dtype=x.dtype, device=x.device)
    largest = sigma.max()
    scale = (sigma / largest if largest > 0 else sigma).expand(shape) * h
    factor = (largest / h) ** 2
    dim = scale.numel()
    if dim <= STENCIL_LIMIT:
        return torch.diag(scale.flatten()).reshape(dim, 1, *shape), factor
    signs = torch.randint(0, 2, (probes, *x.shape), generator=generator, device=x.device)
    return (2 * signs.to(x.dtype) - 1) * scale, factor / probes
