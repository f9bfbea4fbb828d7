"""A smoothed classifier small enough to be obviously right: Gaussian noise, plain counting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    label: int | None
    counts: tuple[int, ...]
    p_value: float
    samples: int


class TinySmoothed:
    """The interface the attacks use of ``certify.Smoothed``, in thirty lines."""

    def __init__(
        self, model, sigma: float, num_classes: int, *, bounds=None, grid: float | None = None
    ) -> None:
        self.model, self.sigma, self.num_classes = model, sigma, num_classes
        self.bounds, self.grid, self.device = bounds, grid, torch.device("cpu")
        self.asked: list[tuple[int, float]] = []

    def to_grid(self, x: Tensor) -> Tensor:
        x = x if self.bounds is None else x.clamp(*self.bounds)
        return x if self.grid is None else (x / self.grid).round() * self.grid

    @torch.no_grad()
    def predict(self, x: Tensor, *, n: int, alpha: float, seed: int, ids) -> list[Answer]:
        self.asked.append((seed, alpha))
        out = []
        for row, key in zip(x, ids, strict=True):
            generator = torch.Generator().manual_seed(hash((seed, int(key))) & (2**62 - 1))
            noise = torch.randn((n, *row.shape), generator=generator)
            votes = self.model(row + self.sigma * noise).argmax(1)
            counts = torch.bincount(votes, minlength=self.num_classes).tolist()
            first, second = sorted(counts, reverse=True)[:2]
            p = float(binomtest(first, first + second, 0.5).pvalue)
            out.append(Answer(counts.index(first) if p <= alpha else None, tuple(counts), p, n))
        return out
