"""Windows for the black-box search: squares of pixels for images, random coordinates for anything else."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attacks.problem import Problem
from attacks.random_search import Window, random_search


def square(problem: Problem, *, queries: int = 5000, purpose: str = "square") -> Tensor:
    """Square Attack on images (rows, channels, height, width): square windows at random places.

    Andriushchenko et al. 2020, "Square attack: a query-efficient black-box adversarial attack via
    random search".
    """
    return random_search(problem, Squares(*problem.shape), queries=queries, purpose=purpose)


def coordinate(problem: Problem, *, queries: int = 5000, purpose: str = "coordinate") -> Tensor:
    """The same search for inputs without neighbours (tables, points): random sets of coordinates."""
    return random_search(problem, Coordinates(math.prod(problem.shape)), queries=queries, purpose=purpose)


class Squares:
    """Square windows of an image; the channels are the groups."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.groups, self.height, self.width = channels, height, width
        self._plane = torch.arange(height * width).view(height, width)
        self._offset = torch.arange(channels)[:, None] * (height * width)

    def start(self, noise: Tensor, p: float) -> Tensor:
        """linf: vertical stripes of random sign. Otherwise: a 5 x 5 board of bumps of random sign."""
        sign = torch.where(noise >= 0.5, 1.0, -1.0).to(noise).view(-1, self.groups, self.height, self.width)
        if math.isinf(p):
            return sign[:, :, :1].expand_as(sign).flatten(1)
        side = max(min(self.height, self.width) // 5, 1)
        tile = bump(side, sharp=p == 1).to(noise)
        out = torch.zeros_like(sign)
        for top in range(0, self.height - side + 1, side):
            for left in range(0, self.width - side + 1, side):
                corner = sign[:, :, top : top + 1, left : left + 1]
                out[:, :, top : top + side, left : left + side] = tile * corner
        return out.flatten(1) / out.flatten(1).norm(p=p, dim=1, keepdim=True).clamp_min(1e-12)

    def draw(self, share: float, p: float, rng: np.random.Generator) -> Window:
        side = round(math.sqrt(share * self.height * self.width))
        side = max(side, 1) if math.isinf(p) else max(side + 1 - side % 2, 3)
        side = min(side, self.height, self.width)
        top, left = rng.integers(self.height - side + 1), rng.integers(self.width - side + 1)
        index = self._plane[top : top + side, left : left + side].reshape(1, -1) + self._offset
        if math.isinf(p):
            return Window(index, torch.ones(side * side))
        pattern = bump(side, sharp=p == 1)
        return Window(index, (pattern if rng.random() < 0.5 else pattern.T).flatten())


class Coordinates:
    """Random sets of coordinates. linf: each is its own group; otherwise the set is one group."""

    def __init__(self, dim: int) -> None:
        self.groups = self.dim = dim

    def start(self, noise: Tensor, p: float) -> Tensor:
        direction = 2 * noise - 1
        return direction.sign() if math.isinf(p) else direction / direction.norm(p=p, dim=1, keepdim=True)

    def draw(self, share: float, p: float, rng: np.random.Generator) -> Window:
        size = min(max(round(share * self.dim), 1), self.dim)
        index = torch.from_numpy(rng.permutation(self.dim)[:size].copy())
        if math.isinf(p):
            return Window(index[:, None], torch.ones(1))
        return Window(index[None], torch.from_numpy(rng.standard_normal(size).astype(np.float32)))


@lru_cache(maxsize=64)
def bump(side: int, *, sharp: bool = False) -> Tensor:
    """(side, side) two opposite bumps, one above the other, with l2 norm 1 (a single pixel is +1).

    ``sharp`` raises the bumps to the fourth power: an l1 ball rewards perturbations on few pixels.
    """
    upper = side // 2
    out = torch.zeros(side, side)
    if upper:
        out[:upper] = _cone(upper, side)
    out[upper:] = -_cone(side - upper, side)
    if sharp:
        out = out.sign() * out.abs() ** 4
    return out / out.norm() * (1.0 if upper else -1.0)


def _cone(height: int, width: int) -> Tensor:
    """Rings around the centre: ring m holds the sum of 1/(k + 1)^2 over all k >= m up to the edge."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns[None])
    last = int(max(height // 2, width // 2))
    tails = torch.tensor([sum((k + 1.0) ** -2 for k in range(m, last + 1)) for m in range(last + 1)])
    return tails[ring] / tails[ring].norm()
