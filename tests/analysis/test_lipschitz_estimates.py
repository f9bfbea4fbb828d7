"""Lower estimates stay below certified upper bounds and find known constants."""

import math

import pytest
import torch
from torch import nn

from analysis.lipschitz_estimates import jacobian_norms, lipschitz_bracket, power_iteration, sampled_ratio
from certify.errors import InvalidInput
from certify.lipschitz import conv2d_upper


def gen(seed):
    return torch.Generator().manual_seed(seed)


def test_linear_network_closes_the_bracket():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).eval()
    true = float(torch.linalg.matrix_norm(net[1].weight.detach().double(), 2))
    got = lipschitz_bracket(net, torch.randn(50, 6, generator=gen(0)))
    assert got.gradient == pytest.approx(true, rel=1e-2)
    assert got.sampled <= true <= got.upper
    assert got.lower <= got.upper * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_lower_is_below_upper_on_networks(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)
    ).eval()
    got = lipschitz_bracket(net, torch.randn(20, 1, 4, 4, generator=gen(seed)))
    assert got.sampled > 0
    assert got.lower <= got.upper
    assert got.ascent >= 0.5 * got.gradient
    assert got.to_json()["upper"] == got.upper


def test_jacobian_norm_of_a_known_map():
    class Square(nn.Module):
        def forward(self, x):
            return x**2

    norms, _ = jacobian_norms(
        Square(), torch.tensor([[1.0, -3.0], [2.0, 0.5]]), torch.randn(2, 2, generator=gen(0)), iterations=60
    )
    assert norms.tolist() == pytest.approx([6.0, 4.0], rel=1e-4)


def test_network_without_a_proved_bound_keeps_its_lower_end():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(3 * x)

    got = lipschitz_bracket(Sine().eval(), torch.zeros(4, 2), ascent_steps=3)
    assert math.isinf(got.upper)
    assert got.to_json()["upper"] is None
    assert got.gradient == pytest.approx(3.0, rel=1e-4)


def test_power_iteration_is_below_the_symbol_of_a_convolution():
    weight = torch.randn(3, 2, 3, 3, generator=gen(1), dtype=torch.float64)
    value = power_iteration(
        lambda z: torch.nn.functional.conv2d(z, weight, padding=1),
        (2, 8, 8),
        iterations=200,
        generator=gen(2),
    )
    upper = conv2d_upper(weight, (8, 8))
    assert 0.85 * upper <= value <= upper


def test_sampled_ratio_needs_inputs():
    with pytest.raises(InvalidInput):
        lipschitz_bracket(nn.Linear(2, 2).eval(), torch.empty(0, 2))
    same = torch.zeros(5, 2)
    assert sampled_ratio(nn.Linear(2, 2), same, generator=gen(0)) == 0.0
