"""The Rademacher complexity of a class of ReLU networks, bracketed from both sides."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from analysis.classes import check_size
from analysis.network_bounds import GOLOWICH, golowich_frobenius
from analysis.result import BoundResult
from certify.calls import checked_class
from certify.errors import InvalidSetting


@checked_class
@dataclass(frozen=True)
class HomogeneousNet:
    """Scalar ReLU networks without biases, ``depth`` weight layers, prod |W_l|_F <= ``radius``.

    No closed form is known. Upper end: Golowich, Rakhlin and Shamir 2018, Theorem 1. Lower end: networks of
    ``width`` hidden units trained to fit random signs; whatever they reach, the supremum is at
    least that, so the mean over sign draws, less its sampling error, is a lower bound.
    """

    depth: int
    radius: float
    width: int = 16
    steps: int = 150
    lr: float = 0.05

    def __post_init__(self) -> None:
        check_size("radius", self.radius)
        if self.depth < 1 or self.width < 1:
            raise InvalidSetting(
                f"depth={self.depth}, width={self.width} describe no network",
                why="both must be at least 1",
                remedy="use for example depth=2, width=16",
            )

    def describe(self) -> str:
        return f"ReLU networks of depth {self.depth}, product of Frobenius norms <= {self.radius:g}"

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        """A lower estimate of the supremum, by training one network per sign vector; shape (M,)."""
        return self._trained(signs, points, torch.Generator().manual_seed(0))

    def envelope(self, points: Tensor) -> Tensor:
        """|f(x)| <= radius |x|_2."""
        return self.radius * torch.linalg.vector_norm(points, dim=1)

    def bracket(self, points: Tensor, *, draws: int, delta: float, generator: torch.Generator) -> BoundResult:
        """[lower, upper] around R_S; the lower end holds in the limit of many draws (t interval)."""
        start = time.perf_counter()
        draws = min(draws, 64)
        signs = 2.0 * torch.randint(0, 2, (draws, len(points)), generator=generator).double() - 1.0
        reached = self._trained(signs, points, generator)
        mean, spread = float(reached.mean()), float(reached.std())
        low = mean - float(stats.t.isf(delta, draws - 1)) * spread / math.sqrt(draws)
        high = golowich_frobenius(points, self.depth, self.radius)
        return BoundResult(
            name="empirical Rademacher complexity",
            reference=f"{GOLOWICH}, Theorem 1 (upper); training on random signs (lower)",
            target="R_S(F)",
            predictor=f"class: {self.describe()}",
            side="estimate",
            validity="bracket: upper end proved, lower end a one-sided t interval",
            value=mean,
            low=max(0.0, low),
            high=high,
            terms={"draws": float(draws), "reached": mean, "steps": float(self.steps)},
            delta=delta,
            data_used=f"{draws} sign vectors, one trained network each",
            seed=generator.initial_seed(),
            seconds=time.perf_counter() - start,
        )

    def _trained(self, signs: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
        """Best correlation each network of a batch reaches; never below 0 (the zero network)."""
        draws, n = signs.shape
        sizes = [points.shape[1], *[self.width] * (self.depth - 1), 1]
        raw = [
            torch.randn(draws, a, b, generator=generator, dtype=torch.float64).requires_grad_()
            for a, b in itertools.pairwise(sizes)
        ]
        optimizer = torch.optim.Adam(raw, lr=self.lr)
        # One factor 1 per layer and the radius outside: by homogeneity the whole class.
        best = torch.zeros(draws, dtype=torch.float64)
        for _ in range(self.steps):
            hidden = points.expand(draws, *points.shape)
            for k, weight in enumerate(raw):
                unit = weight / torch.linalg.matrix_norm(weight, keepdim=True).clamp_min(1e-12)
                hidden = hidden @ unit
                if k < len(raw) - 1:
                    hidden = hidden.clamp_min(0.0)
            value = self.radius * (signs * hidden[..., 0]).sum(1) / n
            best = torch.maximum(best, value.detach())
            optimizer.zero_grad()
            (-value.sum()).backward()
            optimizer.step()
        return best
