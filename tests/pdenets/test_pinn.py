"""Physics-informed residuals on exact solutions; Burgers' exact solution and solver; sine networks."""

import math

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets import inr
from pdenets.burgers import cell_centres, cole_hopf, finite_volume
from pdenets.pinn import HardConstrained, burgers, derivatives, fit, heat, residual_penalty
from pdenets.residual import diffusion_residual

D = torch.float64
NU, T = 0.05, 0.5


def points(n, dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, dim, generator=g, dtype=D) * 2 - 1, torch.rand(n, generator=g, dtype=D)


def wave(x, t):
    """Exact travelling wave of Burgers' equation: u = c - a tanh(a (x - c t) / (2 nu))."""
    a, c = 0.4, 0.3
    return c - a * torch.tanh(a * (x - c * t[:, None]) / (2 * NU))


def test_burgers_residual_vanishes_on_a_travelling_wave_and_only_with_its_viscosity():
    x, t = points(200, 1)
    assert burgers(viscosity=NU)(wave, x, t).abs().max() < 1e-12
    assert burgers(viscosity=2 * NU)(wave, x, t).abs().max() > 0.1
    assert residual_penalty(wave, x, t, residual=burgers(viscosity=NU)) < 1e-24


def test_heat_residual_vanishes_on_a_decaying_mode_and_is_the_limit_of_the_difference_residual():
    def mode(x, t):
        decay = torch.exp(-2 * 0.3**2 * math.pi**2 * t)
        return torch.stack([decay * torch.sin(math.pi * x).prod(1), x.square().sum(1)], dim=1)

    x, t = points(50, 2)
    exact = heat(diffusion=0.3)(mode, x, t)
    assert exact[:, 0].abs().max() < 1e-12
    assert torch.allclose(exact[:, 1], torch.full((50,), -4 * 0.09, dtype=D))
    differences = diffusion_residual(mode, x, t, diffusion=0.3, tau=1e-6, h=1e-4)
    assert torch.allclose(differences, exact, atol=1e-5)


def test_derivatives_of_a_polynomial():
    x, t = points(20, 2)
    value, u_t, u_x, u_xx = derivatives(lambda x, t: (x[:, 0] ** 3 * x[:, 1] * t**2)[:, None], x, t)
    assert torch.allclose(u_t[:, 0], 2 * value[:, 0] / t)
    assert torch.allclose(u_x[:, 0, 0], 3 * x[:, 0] ** 2 * x[:, 1] * t**2)
    assert torch.allclose(u_xx[:, 0], torch.stack([6 * x[:, 0] * x[:, 1] * t**2, 0 * t], 1))


def test_cole_hopf_solves_burgers_and_starts_at_minus_sine():
    x = torch.linspace(-0.9, 0.9, 41, dtype=D)
    u = lambda t, x=x: cole_hopf(x, t, viscosity=NU)  # noqa: E731
    h = 1e-4
    u_t = (u(T + h) - u(T - h)) / (2 * h)
    u_x = (u(T, x + h) - u(T, x - h)) / (2 * h)
    u_xx = (u(T, x + h) - 2 * u(T) + u(T, x - h)) / h**2
    assert (u_t + u(T) * u_x - NU * u_xx).abs().max() < 1e-5
    assert torch.allclose(u(1e-9), -torch.sin(math.pi * x), atol=1e-6)
    assert cole_hopf(torch.tensor([-1.0, 0.0, 1.0]), T, viscosity=NU).abs().max() < 1e-12
    # Small viscosity overflows the textbook formula.
    assert cole_hopf(x, T, viscosity=2e-3).isfinite().all()


def test_finite_volumes_converge_with_second_order():
    errors = []
    for cells in (32, 64, 128):
        x = cell_centres(cells)
        exact = cole_hopf(x, T, viscosity=NU)
        u = finite_volume(-torch.sin(math.pi * x), T, viscosity=NU)
        errors.append(float((u - exact).norm() / exact.norm()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)
    assert errors[2] < 1.2e-3


def test_the_solver_is_differentiable_in_viscosity_and_start():
    x = cell_centres(16)
    viscosity = torch.tensor(0.1, dtype=D, requires_grad=True)
    start = (-torch.sin(math.pi * x)).requires_grad_()

    def loss(v, s):
        # The number of steps must not change between evaluations: one bound for the speed.
        return finite_volume(s, 0.1, viscosity=v, max_speed=1.0, courant=0.2).square().sum()

    assert torch.autograd.gradcheck(loss, (viscosity, start), eps=1e-7, atol=1e-5)


def test_hard_constraints_hold_before_any_training():
    torch.manual_seed(0)
    net = HardConstrained(lambda x: -torch.sin(math.pi * x)).double()
    x = torch.linspace(-1, 1, 9, dtype=D)[:, None]
    assert torch.allclose(net(x, torch.zeros(9, dtype=D)), -torch.sin(math.pi * x))
    wall = torch.tensor([[-1.0], [1.0]], dtype=D)
    assert net(wall, torch.tensor([0.3, 0.9], dtype=D)).abs().max() < 1e-12


def test_fitting_reduces_the_residual():
    torch.manual_seed(0)
    net = HardConstrained(lambda x: -torch.sin(math.pi * x), width=12, depth=2).double()
    x, t = points(100, 1)
    losses = fit(net, burgers(viscosity=0.2), x, 0.5 * t, adam_steps=60, lbfgs_steps=60)
    assert losses[-1] < 0.05 * losses[0]


def test_the_tiny_network_has_68_parameters():
    net = inr.SineNetwork(2, 3, width=4, depth=4, bias=False)
    assert sum(p.numel() for p in net.parameters()) == 68
    assert net(torch.zeros(5, 2)).shape == (5, 3)


def test_differentials_of_a_network_match_finite_differences():
    torch.manual_seed(0)
    net = inr.SineNetwork(width=8, depth=2, frequency=3.0).double()
    x, h = torch.rand(6, 2, dtype=D) - 0.5, 1e-4
    steps = [torch.tensor([h, 0], dtype=D), torch.tensor([0, h], dtype=D)]
    slope = torch.cat([(net(x + e) - net(x - e)) / (2 * h) for e in steps], dim=1)
    curvature = sum((net(x + e) - 2 * net(x) + net(x - e)) / h**2 for e in steps)
    assert torch.allclose(inr.differential(net, x, target="gradient"), slope, atol=1e-6)
    assert torch.allclose(inr.differential(net, x, target="laplacian"), curvature, atol=1e-4)
    assert torch.equal(inr.differential(net, x, target="values"), net(x))


def test_an_image_is_recovered_from_its_gradient_up_to_a_constant():
    torch.manual_seed(0)
    x = inr.pixel_grid(16, 16)
    image = torch.sin(3 * x[:, :1]) * torch.cos(2 * x[:, 1:]) / 2 + 0.5
    slope = torch.cat(
        [
            1.5 * torch.cos(3 * x[:, :1]) * torch.cos(2 * x[:, 1:]),
            -torch.sin(3 * x[:, :1]) * torch.sin(2 * x[:, 1:]),
        ],
        dim=1,
    )
    net = inr.SineNetwork(width=32, depth=2, frequency=8.0)
    inr.fit(net, x, slope, target="gradient", steps=250)
    found = net(x).detach()
    assert inr.psnr(found - found.mean() + image.mean(), image) > 30


def test_psnr_is_in_decibels_and_unknown_targets_are_refused():
    assert inr.psnr(torch.full((4,), 0.1), torch.zeros(4)) == pytest.approx(20)
    with pytest.raises(InvalidSetting, match="targets are"):
        inr.differential(inr.SineNetwork(), torch.zeros(1, 2), target="hessian")
