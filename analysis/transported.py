"""Classes moved along a flow and smoothed by diffusion: G = { x -> E f(psi(x + sigma Z)) : f in F }.

The convection-diffusion network is such a class. With a *fixed* flow psi its complexity is at most
that of F on the transported noisy points; for linear F it is exactly that of F on their means.
It is not at most R_S(F) in general, and not for a learned flow at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from analysis.classes import FunctionClass, Linear, check_size
from analysis.rademacher import empirical_rademacher
from analysis.result import ASYMPTOTIC, BoundResult
from certify.calls import checked


@dataclass(frozen=True)
class Transported:
    """F composed with a fixed flow and Gaussian smoothing of standard deviation ``sigma``.

    ``flow`` maps points (n, d) to points (n, d'); ``copies`` noisy copies of the sample stand for the
    expectation over Z. For linear F the means psi_bar(x_i) = E psi(x_i + sigma Z) are averages of the
    copies. Their error e_i biases the value upward and moves it by at most R_S of the class on the points
    e_i; that is estimated from the difference of two halves of the copies, which has the law of e_i in the
    limit, and widens the interval. For other F the result is the upper bound
    E_Z R_{psi(S + sigma Z)}(F), by Jensen's inequality.
    """

    base: FunctionClass
    flow: Callable[[Tensor], Tensor]
    sigma: float
    copies: int = 64

    def __post_init__(self) -> None:
        check_size("sigma", self.sigma)

    def describe(self) -> str:
        return f"{self.base.describe()}, transported by a fixed flow, smoothed with sigma {self.sigma:g}"

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        """The base class on points that are taken to be transported already."""
        return self.base.supremum(signs, points)

    def envelope(self, points: Tensor) -> Tensor:
        return self.base.envelope(points)

    def bracket(self, points: Tensor, *, draws: int, delta: float, generator: torch.Generator) -> BoundResult:
        """R_S(G) for linear F (estimate), else its upper bound; both with a t interval."""
        start = time.perf_counter()
        count = 1 if self.sigma == 0 else self.copies
        moved = torch.stack([self.flow(self._noisy(points, generator)) for _ in range(count)])
        if isinstance(self.base, Linear):
            result = empirical_rademacher(
                self.base, moved.mean(0), draws=draws, delta=delta, generator=generator
            )
            spread = float(moved.std(0).norm()) / math.sqrt(count) if count > 1 else 0.0
            error = self._error_of_means(moved, draws, delta, generator) if self.sigma > 0 else 0.0
            terms = {**result.terms, "mean_point_error": spread, "complexity_error": error}
            low, high = result.low - error, result.high + error
            return self._renamed(result, "estimate", low, high, terms, start)
        values = [
            empirical_rademacher(self.base, z, draws=draws, delta=delta, generator=generator).value
            for z in moved
        ]
        mean = math.fsum(values) / count
        half = 0.0
        if count > 1:
            deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
            half = float(stats.t.isf(delta / 2, count - 1)) * deviation / math.sqrt(count)
        single = empirical_rademacher(self.base, moved[0], draws=draws, delta=delta, generator=generator)
        terms = {"copies": float(count)}
        return self._renamed(replace(single, value=mean), "upper", 0.0, mean + half, terms, start)

    def _error_of_means(self, moved: Tensor, draws: int, delta: float, generator: torch.Generator) -> float:
        """What the error of the mean points may change of R_S; infinite for a single copy."""
        half = len(moved) // 2
        if half == 0:
            return math.inf
        error = (moved[:half].mean(0) - moved[half : 2 * half].mean(0)) / 2
        assert isinstance(self.base, Linear)
        cls = replace(self.base, bias=0.0)
        return empirical_rademacher(cls, error, draws=draws, delta=delta, generator=generator).high

    def _noisy(self, points: Tensor, generator: torch.Generator) -> Tensor:
        if self.sigma == 0:
            return points
        return points + self.sigma * torch.randn(points.shape, generator=generator, dtype=points.dtype)

    def _renamed(
        self, result: BoundResult, side, low: float, high: float, terms, start: float
    ) -> BoundResult:
        # Copies of the noise are sampled, so that no interval here is exact.
        validity = result.validity if self.sigma == 0 else ASYMPTOTIC
        return replace(
            result, predictor=f"class: {self.describe()}", side=side, low=low, high=high, terms=terms,
            validity=validity,
            reference="fixed velocity; Jensen's inequality, linearity", seconds=time.perf_counter() - start,
        )  # fmt: skip


def identity(points: Tensor) -> Tensor:
    """No velocity: diffusion alone."""
    return points


@checked
def euler_flow(
    velocity: Callable[[Tensor], Tensor], *, time_span: float = 1.0, steps: int = 50
) -> Callable[[Tensor], Tensor]:
    """The time-``time_span`` flow of dx/dt = velocity(x), by explicit Euler steps."""

    def flow(points: Tensor) -> Tensor:
        for _ in range(steps):
            points = points + time_span / steps * velocity(points)
        return points

    return flow
