"""The norms that generalization bounds rest on, attacked: no network may exceed what its norms say."""

import copy
import math
import random

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from analysis.layers import network_norms
from analysis.network_bounds import norm_bounds
from certify.errors import InvalidModel


def relu_network(seed: int) -> tuple[nn.Sequential, tuple[int, ...]]:
    """A random ReLU network with nested and reused layers, (5,) or (1, 5, 5) to two or three scores."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    bias, layers, shape = r.random() < 0.6, [], (5,)
    if r.random() < 0.4:
        shape, k = (1, 5, 5), r.choice([1, 3])
        conv = nn.Conv2d(1, 1, k, r.choice([1, 2]) if k == 3 else 1, padding=k // 2, bias=bias)
        layers += [conv, nn.ReLU()] * r.choice([1, 2]) + [nn.Flatten()]
    with torch.no_grad():
        size = nn.Sequential(*layers)(torch.zeros(1, *shape))[0].numel()
    if size != 5:
        layers += [nn.Linear(size, 5, bias=bias), nn.ReLU(inplace=r.random() < 0.5)]
    body = nn.Sequential(nn.Linear(5, 5, bias=bias), nn.ReLU())
    if r.random() < 0.2:
        parametrizations.weight_norm(body[0])
    layers += [body] * r.choice([1, 2, 3])
    if r.random() < 0.3:
        layers += [nn.Dropout(0.9), body[0]]
    layers.append(nn.Linear(5, r.choice([2, 3]), bias=bias))
    return nn.Sequential(*layers).double().eval(), shape


def scores(net, x):
    out = net(x.clone())
    return out[:, 1:] - out[:, :1] if out.shape[1] == 2 else out


def reached(net, shape, biased, seed, p):
    """The largest |score| / |(x, 1)|_p that gradient ascent finds."""
    x = torch.randn(64, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    best = 0.0
    for _ in range(30):
        x = x.detach().requires_grad_()
        flat = x.flatten(1)
        full = torch.cat([flat, torch.ones(64, 1, dtype=torch.float64)], 1) if biased else flat
        ratio = scores(net, x).abs().amax(1) / torch.linalg.vector_norm(full, p, dim=1)
        best = max(best, float(ratio.detach().max()))
        (slope,) = torch.autograd.grad(ratio.sum(), x)
        x = x + slope.sign() * (0.2 if p == math.inf else 0.05) * x.detach().abs().mean()
    return best


def test_no_network_put_together_at_random_beats_its_norms():
    tight = 0
    for seed in range(40):
        net, shape = relu_network(seed)
        norms = network_norms(net, shape)
        l2, linf = (reached(net, shape, norms.biased, seed, p) for p in (2, math.inf))
        assert l2 <= norms.frobenius_product * (1 + 1e-9), seed
        assert l2 <= norms.spectral_product * (1 + 1e-9), seed
        assert linf <= norms.path * (1 + 1e-9), seed
        tight += linf > norms.path / 4
    assert tight >= 8


@pytest.mark.parametrize("seed", range(6))
def test_a_reused_layer_has_the_norms_of_an_equal_copy(seed):
    torch.manual_seed(seed)
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    shared = nn.Sequential(a, nn.ReLU(), nn.Sequential(b, nn.ReLU(), a)).eval()
    copied = nn.Sequential(a, nn.ReLU(), nn.Sequential(b, nn.ReLU(), copy.deepcopy(a))).eval()
    assert network_norms(shared, (2,)) == network_norms(copied, (2,))
    assert network_norms(shared, (2,)).depth == 3


class Halving(nn.Flatten):
    def forward(self, x):
        return 100 * super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, out: 100 * out)
    return layer


def zeros(layer):
    nn.init.zeros_(layer.weight)
    return layer


@pytest.mark.parametrize(
    ("net", "shape", "why"),
    [
        (nn.Sequential(Halving(), nn.Linear(4, 3)), (4,), "Halving"),
        (nn.Sequential(nn.Linear(4, 3), hooked(nn.ReLU())), (4,), "hook"),
        (hooked(nn.Sequential(nn.Linear(4, 3))), (4,), "hook"),
        (nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(12, 3)), (3, 4), "every position"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU()), (4,), "score difference"),
        (nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()), (1, 4, 4), "score difference"),
        (nn.Sequential(nn.Linear(4, 4), zeros(nn.Linear(4, 3, bias=False))), (4,), "zero"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(4, 3)), (4,), "vector"),
        (nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3))), (4,), "training mode"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)), (4,), "training mode"),
        (nn.Sequential(nn.Linear(4, 3, dtype=torch.complex64)), (4,), "real numbers"),
    ],
)
def test_what_the_theorems_do_not_cover_is_refused_with_the_reason(net, shape, why):
    with pytest.raises(InvalidModel, match=why):
        network_norms(net, shape)


def test_a_sample_that_shows_fewer_classes_does_not_make_the_bound_smaller():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    x, y = torch.randn(50, 3), torch.randint(0, 2, (50,))
    seen, told = (norm_bounds(net, x, y, num_classes=k) for k in (2, 4))
    assert [row.value for row in seen] == [row.value for row in told]


def test_a_single_convolution_has_a_bound_of_its_own():
    net = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()).eval()
    rows = norm_bounds(net, torch.randn(20, 1, 4, 4), torch.zeros(20, dtype=torch.long), num_classes=3)
    assert [row.name for row in rows] == ["Frobenius norms (Golowich, Rakhlin, Shamir)"]
