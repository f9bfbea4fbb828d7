"""How far a network trained to satisfy the diffusion residual is from the smoothed network.

If |u_t - (sigma^2/2) Laplacian u| <= eta everywhere on the diffusion phase, then by the maximum
principle |u(x, T) - E u(x + sigma Z, T-1)| <= eta, and class probabilities are known up to eta. A
residual measured at sample points proves no such eta: the gap below is a diagnostic, and a
certificate comes from sampling the noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import special
from torch import Tensor

from analysis.streams import stream
from certify.calls import checked
from certify.errors import InvalidSetting

Field = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class ResidualGap:
    """Per input: largest difference over classes between u(x, T) and the smoothed u(., T-1) at x.

    ``values`` (n,) are estimates from ``draws`` noise samples; the true value lies within ``half_width``
    for all inputs and classes at once with probability 1 - delta (Hoeffding, union bound).
    """

    values: tuple[float, ...]
    half_width: float
    draws: int
    delta: float
    sigma: float

    @property
    def largest(self) -> float:
        """The largest gap over inputs and classes."""
        return max(self.values)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        beyond = sum(v > self.half_width for v in self.values)
        return {
            "median": statistics.median(self.values), "largest": self.largest, "half_width": self.half_width,
            "low": max(0.0, self.largest - self.half_width), "high": self.largest + self.half_width,
            "inputs": len(self.values), "beyond": beyond, "draws": self.draws, "delta": self.delta,
            "sigma": self.sigma,
        }  # fmt: skip


@checked
def residual_gap(
    field: Field,
    x: Tensor,
    *,
    sigma: float,
    horizon: float,
    draws: int = 1000,
    delta: float = 0.05,
    generator: torch.Generator | None = None,
) -> ResidualGap:
    """Measure max_c |u_c(x, T) - mean u_c(x + sigma Z, T-1)| at every row of x (n, *shape).

    ``field(x, t)`` returns class probabilities (batch, classes); ``horizon`` is T. Pass the data, or
    points along an attack's path, where a small training residual is least to be expected.
    Raises InvalidSetting (sigma <= 0, no draws, delta outside (0, 1)).
    """
    if sigma <= 0 or draws < 1 or not 0 < delta < 1:
        raise InvalidSetting(
            f"sigma={sigma}, draws={draws}, delta={delta} measure no gap",
            why="the diffusion phase needs sigma > 0, the mean at least one draw",
            remedy="use the sigma of the training, such as 0.25",
        )
    generator = stream(0, "residual gap") if generator is None else generator
    values, classes = [], 1
    with torch.no_grad():
        for row in x:
            total: Tensor | float = 0.0
            for begin in range(0, draws, 500):
                count = min(500, draws - begin)
                noise = torch.randn(count, *row.shape, generator=generator, dtype=row.dtype)
                total = total + field(row + sigma * noise, horizon - 1).double().sum(0)
            mean = torch.as_tensor(total) / draws
            classes = len(mean)
            values.append(float((field(row[None], horizon)[0].double() - mean).abs().max()))
    half = math.sqrt(math.log(2 * len(x) * classes / delta) / (2 * draws))
    return ResidualGap(tuple(values), half, draws, delta, sigma)


@checked
def gap_document(
    model: Any,
    x: Tensor,
    *,
    sigma: float,
    path: Tensor | None = None,
    draws: int = 500,
    delta: float = 0.05,
    seed: int = 0,
) -> dict[str, Any]:
    """The residual gap of a network g(x, t) with an attribute ``horizon``, and what it would certify.

    ``x`` (n, *shape) are inputs, ``path`` points along an attack's path (none: not measured). The intervals
    of both hold together with probability 1 - delta: where both are measured, each has half of it. Beside the
    gap on each stand the medians over ``x`` of the radius that would follow if the largest gap seen
    were a bound *everywhere* (``radius_with_gap``; nothing proves that it is) and of the radius without
    a gap. Plain JSON types.
    """

    def field(points: Tensor, t: float) -> Tensor:
        return model(points, t).double().softmax(1)

    measured_twice = path is not None and len(path) > 0
    share = delta / 2 if measured_twice else delta

    def measured(points: Tensor, where: str) -> ResidualGap:
        generator = stream(seed, f"residual gap on {where}")
        return residual_gap(
            field, points, sigma=sigma, horizon=model.horizon, draws=draws, delta=share, generator=generator
        )

    on_data = measured(x, "data")
    document = on_data.to_json()
    worst = on_data.largest
    if path is not None and measured_twice:
        on_path = measured(path, "path")
        document["attack_path"] = on_path.to_json()
        worst = max(worst, on_path.largest)
    with torch.no_grad():
        top = field(x, model.horizon).topk(2, dim=1).values.tolist()
    with_gap, without = ([radius_with_gap(a, min(a, b), eta, sigma) for a, b in top] for eta in (worst, 0.0))
    return document | {
        "radius_if_bounded": statistics.median(with_gap), "radius_without_gap": statistics.median(without),
        "certified_if_bounded": sum(r > 0 for r in with_gap) / len(top),
    }  # fmt: skip


@checked
def radius_with_gap(u_a: float, u_b: float, eta: float, sigma: float) -> float:
    """The radius that would follow from |u(., T) - smoothed u(., T-1)| <= eta *everywhere*; rounded down.

    Largest r with Phi(Phi^-1(u_A - eta) - r/sigma) - Phi(Phi^-1(u_B + eta) + r/sigma) > 2 eta, where u_A, u_B
    are the network's own top probabilities at (x, T). 0 where there is none. eta = 0 is Cohen's radius.
    Raises InvalidSetting where these are not probabilities and a gap.
    """
    if not (0 <= u_b <= u_a <= 1 and eta >= 0 and sigma > 0):
        raise InvalidSetting(
            f"u_A={u_a}, u_B={u_b}, eta={eta}, sigma={sigma} are not probabilities and a gap",
            why="0 <= u_B <= u_A <= 1, eta >= 0 and sigma > 0 are needed",
            remedy="pass softmax probabilities",
        )
    # Probabilities of exactly 0 and 1 are moved inwards, which can only lower the radius.
    top = special.ndtri(min(max(0.0, u_a - eta), 1 - 1e-16))
    other = special.ndtri(max(min(1.0, u_b + eta), 1e-16))

    def margin(r: float) -> float:
        return float(special.ndtr(top - r / sigma) - special.ndtr(other + r / sigma)) - 2 * eta

    if not (math.isfinite(top) and math.isfinite(other)) or margin(0.0) <= 0:
        return 0.0
    # Without the 2 eta the margin vanishes at Cohen's radius, so the root lies below it.
    low, high = 0.0, sigma * float(top - other) / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if margin(middle) > 0 else (low, middle)
    return low * (1 - 1e-12)
