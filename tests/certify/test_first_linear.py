"""Sampling behind the first linear layer: the same function, the same law, the same radii."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import certify
from certify.errors import InvalidSetting
from certify.sampling.first_linear import reduce_first_linear


def mlp(seed: int = 0, dim: int = 64, width: int = 12) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, 3)).eval()


def test_reduced_network_is_the_same_function():
    model = mlp().double()
    reduced = reduce_first_linear(model)
    assert reduced is not None
    x = torch.randn(50, 1, 8, 8, dtype=torch.float64)
    y = x.flatten(1) @ reduced.basis
    assert torch.allclose(reduced.model(y), model(x), atol=1e-12)
    eye = reduced.basis.T @ reduced.basis
    assert torch.allclose(eye, torch.eye(12, dtype=torch.float64), atol=1e-13)


def test_votes_have_the_same_law():
    """Two-sample chi-square on 20,000 votes each; a false alarm has probability 1e-4."""
    x = torch.rand(1, 1, 8, 8)
    counts = [
        certify.Smoothed(mlp(), 1.0, num_classes=3, noise="gaussian", reduce=reduce, batch_size=500)
        .certify(x, mode="fixed", n0=10, n=20_000, seed=3)[0]
        .counts
        for reduce in (True, False)
    ]
    table = np.array([row for row in zip(*counts, strict=True) if sum(row) > 20]).T
    assert counts[0] != counts[1]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_radius_of_a_half_space_behind_a_linear_layer():
    w = torch.randn(40, generator=torch.Generator().manual_seed(2))
    w /= w.norm()
    first = nn.Linear(40, 2)
    with torch.no_grad():
        first.weight.copy_(torch.stack([-w, w]))
        first.bias.copy_(torch.tensor([0.3, -0.3]))
    g = certify.Smoothed(nn.Sequential(first).eval(), 0.5, num_classes=2, noise="gaussian", bounds=None)
    assert g.reduced is not None
    run = g.certify(torch.zeros(10, 40), [0] * 10, mode="fixed", n0=100, n=20_000, seed=1)
    # One wrong of ten at alpha = 0.001 has probability 1 %; two 4.5e-5.
    assert sum(r.radius > 0.3 for r in run) <= 1
    assert np.median([r.radius for r in run]) > 0.27


@pytest.mark.parametrize("place", [lambda m: m, lambda m: m[0], lambda m: m[1]])
def test_left_alone_where_a_forward_was_put_in_place(place):
    model = mlp()
    part = place(model)
    before = part.forward
    part.forward = lambda x: before(1 - x)
    assert reduce_first_linear(model) is None


def test_left_alone_where_it_does_not_apply():
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 65), nn.ReLU(), nn.Linear(65, 3)).eval()
    assert reduce_first_linear(conv) is None
    assert reduce_first_linear(wide) is None
    assert reduce_first_linear(lambda x: x) is None
    assert certify.Smoothed(mlp(), 0.5, num_classes=3, noise="lattice").reduced is None
    with pytest.raises(InvalidSetting):
        certify.Smoothed(conv, 0.5, num_classes=3, noise="gaussian", reduce=True)
