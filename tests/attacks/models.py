"""Small models with known answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def half_space(dim: int, *, seed: int = 0, steepness: float = 10.0) -> tuple[nn.Module, Tensor]:
    """A two-class linear model through the origin and its unit normal; class 0 where normal . x > 0."""
    normal = torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    normal = normal / normal.norm()
    model = nn.Linear(dim, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([normal, -normal]) * steepness)
        model.bias.zero_()
    return model.eval(), normal


def at_distances(normal: Tensor, distances: Tensor, *, seed: int = 1) -> Tensor:
    """Points at these signed distances from the hyperplane through the origin, elsewhere random."""
    x = torch.randn((len(distances), len(normal)), generator=torch.Generator().manual_seed(seed))
    return x - (x @ normal)[:, None] * normal + distances[:, None] * normal


def linear(classes: int, dim: int, *, seed: int = 0) -> nn.Linear:
    model = nn.Linear(dim, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.weight.copy_(torch.randn((classes, dim), generator=generator))
        model.bias.copy_(0.1 * torch.randn(classes, generator=generator))
    return model.eval()


def linear_distance(model: nn.Linear, x: Tensor, y: Tensor, p: float) -> Tensor:
    """Exact lp distance to the nearest other class of a linear model, no box: margin over dual norm."""
    dual = {1.0: float("inf"), 2.0: 2.0, float("inf"): 1.0}[p]
    w, scores = model.weight.detach().double(), model(x).detach().double()
    out = []
    for row, label in zip(scores, y.tolist(), strict=True):
        gaps = [
            (row[label] - row[c]) / torch.linalg.vector_norm(w[label] - w[c], dual)
            for c in range(len(row))
            if c != label
        ]
        out.append(float(min(gaps)))
    return torch.tensor(out)


def bumpy(classes: int = 4, dim: int = 12, *, seed: int = 0) -> nn.Module:
    """A small random network with BatchNorm and Dropout, in eval mode."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(dim, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, classes)
    )
    with torch.no_grad():
        model[-1].weight.mul_(6)
    return model.eval()
