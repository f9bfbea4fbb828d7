"""Lower estimates of Lipschitz constants, and the bracket they form with a certified upper bound.

Every number here is reached by some pair of inputs (up to the step of a difference), so it
bounds the constant from below. None of them may enter a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analysis.given import check_count, check_points
from certify.calls import checked
from certify.errors import InvalidModel, InvalidSetting
from certify.lipschitz import lipschitz_upper

#: Points that are drawn where only their shape is given, and the most numbers in one.
_DRAWN, _MOST_VALUES = 64, 10**8


@dataclass(frozen=True)
class LipschitzBracket:
    """[lower, upper] around the l2 Lipschitz constant of logits on the data's neighbourhood.

    ``sampled`` is the largest ratio over pairs of inputs, ``gradient`` the largest norm of the Jacobian at
    the inputs, ``ascent`` the largest found by gradient ascent on it. ``upper`` is infinite where no
    proved bound covers the network.
    """

    sampled: float
    gradient: float
    ascent: float
    upper: float
    upper_layers: tuple[tuple[str, float], ...]

    @property
    def lower(self) -> float:
        """The largest of the three lower bounds."""
        return max(self.sampled, self.gradient, self.ascent)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "sampled": self.sampled, "gradient": self.gradient, "ascent": self.ascent, "lower": self.lower,
            "upper": self.upper if math.isfinite(self.upper) else None,
            "layers": [list(row) for row in self.upper_layers],
        }  # fmt: skip


@checked
def lipschitz_bracket(
    model: nn.Module,
    x: Tensor | Sequence[int],
    *,
    generator: torch.Generator | None = None,
    ascent_steps: int = 30,
) -> LipschitzBracket:
    """Lower estimates at the inputs (n, *shape) and the certified upper bound where there is one.

    ``x`` may be the shape of one input: then 64 points of the unit cube are drawn.
    Raises InvalidInput for what are no points, InvalidModel where the network cannot take them.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    if not isinstance(x, Tensor):
        x = _drawn(x, generator)
    check_points(model, x)
    check_count("ascent_steps", ascent_steps, least=0)
    try:
        bound = lipschitz_upper(model, tuple(x.shape[1:]))
        upper, layers = bound.value, bound.layers
    except InvalidModel:
        upper, layers = math.inf, ()
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    gradient, direction = jacobian_norms(model, x, direction)
    ascent = gradient_ascent(model, x, direction, steps=ascent_steps)
    return LipschitzBracket(
        sampled_ratio(model, x, generator=generator), float(gradient.max()), ascent, upper, layers
    )


def _drawn(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Points of the unit cube. Raises InvalidSetting for a shape that is none."""
    sizes = [int(size) for size in shape]
    if not sizes or min(sizes) < 1 or math.prod(sizes) > _MOST_VALUES:
        raise InvalidSetting(
            f"{tuple(sizes)} is not the shape of an input",
            why=f"it needs sizes of at least 1, and at most {_MOST_VALUES:,} numbers in all",
            remedy="pass points (n, *shape), or the shape of one input such as (1, 28, 28)",
        )
    return torch.rand((_DRAWN, *sizes), generator=generator)


def sampled_ratio(model: Callable[[Tensor], Tensor], x: Tensor, *, generator: torch.Generator) -> float:
    """Largest |f(x) - f(y)| / |x - y| over random pairs of the inputs."""
    partner = x[torch.randperm(len(x), generator=generator)]
    with torch.no_grad():
        moved = torch.linalg.vector_norm(model(x) - model(partner), dim=1).double()
    apart = torch.linalg.vector_norm((x - partner).flatten(1), dim=1).double()
    return float((moved / apart)[apart > 0].max()) if bool((apart > 0).any()) else 0.0


def jacobian_norms(
    model: nn.Module, x: Tensor, direction: Tensor, *, iterations: int = 15
) -> tuple[Tensor, Tensor]:
    """Spectral norm of the Jacobian at every input by power iteration: norms (n,), directions like x."""
    norms = torch.zeros(len(x))
    for _ in range(iterations):
        direction = _unit(direction)
        push = _push(model, x, direction)
        norms = torch.linalg.vector_norm(push.flatten(1), dim=1).detach()
        direction = _pull(model, x, push.detach())
    return norms.double(), _unit(direction)


def gradient_ascent(
    model: nn.Module, x: Tensor, direction: Tensor, *, steps: int = 30, size: float = 0.02
) -> float:
    """Largest Jacobian-vector norm met while moving the inputs uphill; reached, hence a lower bound."""
    best = 0.0
    z = x.clone()
    for _ in range(steps):
        z = z.detach().requires_grad_()
        push = _push(model, z, direction)
        value = torch.linalg.vector_norm(push.flatten(1), dim=1)
        best = max(best, float(value.detach().max()))
        if not value.requires_grad:
            break
        (slope,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
        if slope is None:
            break
        z = z + size * math.sqrt(x[0].numel()) * _unit(slope)
    return best


def power_iteration(
    operator: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, iterations: int = 50,
    generator: torch.Generator,
) -> float:  # fmt: skip
    """Norm of a linear operator on inputs of ``shape`` (no batch), from below."""
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    value = 0.0
    for _ in range(iterations):
        v = _unit(v).requires_grad_()
        out = operator(v)
        value = float(torch.linalg.vector_norm(out.detach()))
        (v,) = torch.autograd.grad(out, v, grad_outputs=out.detach())
    return value


def _push(model: nn.Module, x: Tensor, direction: Tensor) -> Tensor:
    """J(x) direction, row by row."""
    both: Any = torch.func.jvp(lambda z: model(z), (x,), (direction,))
    return both[1]


def _pull(model: nn.Module, x: Tensor, cotangent: Tensor) -> Tensor:
    """J(x)^T cotangent, row by row."""
    z = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(z), z, grad_outputs=cotangent)
    return slope


def _unit(v: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(v.flatten(1), dim=1).clamp_min(1e-30)
    return v / norms.view(-1, *[1] * (v.ndim - 1))
