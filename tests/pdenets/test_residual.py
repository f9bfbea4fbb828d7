"""The discretised diffusion residual against solutions of the heat equation."""

import math

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets.residual import diffusion_penalty, diffusion_residual

D = torch.float64


def bump(diffusion, start=0.5):
    """A Gaussian of variance start^2 under u_t = sum_i sigma_i^2 d_ii u: exact for every t."""
    sigma = torch.as_tensor(diffusion, dtype=D)

    def u(x, t):
        flat = x.flatten(1)
        variance = (start**2 + 2 * t[:, None] * sigma.expand(x.shape[1:]).flatten() ** 2).expand_as(flat)
        # Normalised so that u(0, 0) = 1 in every dimension.
        log = -(flat**2 / (2 * variance) + 0.5 * torch.log(variance / start**2)).sum(1)
        return log.exp()[:, None]

    return u


def points(n, dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=g, dtype=D) * 0.5, torch.rand(n, generator=g, dtype=D)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_residual_of_the_gaussian_bump_is_second_order_in_h(dim):
    u, (x, t) = bump(0.4), points(64, dim)
    worst = [
        diffusion_residual(u, x, t, diffusion=0.4, tau=1e-6, h=h).abs().max().item()
        for h in (0.1, 0.05, 0.025)
    ]
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.08)
    assert worst[1] / worst[2] == pytest.approx(4, rel=0.08)
    assert worst[2] < 5e-3


def test_anisotropic_bump_needs_its_own_coefficients():
    sigma = torch.tensor([0.5, 0.2, 0.0], dtype=D)
    u, (x, t) = bump(sigma), points(64, 3)
    right = diffusion_residual(u, x, t, diffusion=sigma, tau=1e-6, h=0.01).abs().max()
    wrong = diffusion_residual(u, x, t, diffusion=sigma.flip(0), tau=1e-6, h=0.01).abs().max()
    assert right < 5e-3 < 0.1 < wrong


def test_time_difference_is_first_order():
    u, (x, t) = bump(0.4), points(64, 2)
    errors = [
        diffusion_residual(u, x, t, diffusion=0.4, tau=tau, h=1e-3).abs().max().item() for tau in (0.02, 0.01)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("dim", [12, 784])
def test_random_directions_are_exact_for_squares_and_unbiased_for_all_quadratics(dim):
    g = torch.Generator().manual_seed(3)
    x, t = torch.randn(8, dim, generator=g, dtype=D), torch.zeros(8, dtype=D)

    def squares(x, t):
        return x.square().sum(1, keepdim=True)

    got = diffusion_residual(squares, x, t, diffusion=0.3, h=0.1, generator=g)
    assert torch.allclose(got, torch.full_like(got, -(0.3**2) * 2 * dim), rtol=1e-9)

    a = torch.randn(dim, dim, generator=g, dtype=D) / math.sqrt(dim)
    hessian = a + a.T

    def quadratic(x, t):
        return 0.5 * torch.einsum("bi,ij,bj->b", x, hessian, x)[:, None]

    many = 4000
    one = x[:1].expand(many, dim)
    draws = -diffusion_residual(quadratic, one, t[:1].expand(many), diffusion=1.0, h=0.1, generator=g)
    # Variance of v'Hv for random signs v is 2 (|H|_F^2 - |diag H|^2); five standard errors.
    spread = (2 * (hessian.square().sum() - hessian.diagonal().square().sum()) / many).sqrt()
    assert abs(draws.mean() - hessian.trace()) < 5 * spread


def test_random_directions_follow_anisotropic_coefficients():
    g = torch.Generator().manual_seed(5)
    sigma = torch.linspace(0, 1, 16, dtype=D)
    x, t = torch.randn(4, 16, generator=g, dtype=D), torch.zeros(4, dtype=D)
    weights = torch.arange(16, dtype=D)
    got = diffusion_residual(
        lambda x, t: (weights * x**2).sum(1, keepdim=True), x, t, diffusion=sigma, generator=g
    )
    assert torch.allclose(got, torch.full_like(got, -2 * float((sigma**2 * weights).sum())), rtol=1e-9)


def test_images_and_vectors_give_the_same_stencil():
    u, (x, t) = bump(0.4), points(10, 8)
    flat = diffusion_residual(u, x, t, diffusion=0.4)
    image = diffusion_residual(u, x.reshape(10, 2, 2, 2), t, diffusion=0.4)
    assert torch.allclose(flat, image, atol=1e-13)


def test_penalty_is_the_mean_squared_norm_over_outputs():
    def u(x, t):
        return torch.stack([t, 2 * t], dim=1)

    x, t = torch.zeros(3, 2, dtype=D), torch.tensor([0.0, 0.3, 0.9], dtype=D)
    assert diffusion_penalty(u, x, t, diffusion=0.5).item() == pytest.approx(5.0)


def test_no_diffusion_leaves_the_time_derivative():
    u, (x, t) = bump(0.4), points(5, 2)
    got = diffusion_residual(u, x, t, diffusion=0.0, tau=0.1)
    assert torch.allclose(got, (u(x, t + 0.1) - u(x, t)) / 0.1)


@pytest.mark.parametrize("bad", [{"h": 0.0}, {"tau": -1.0}, {"probes": 0}])
def test_a_step_that_is_no_step_is_refused(bad):
    x, t = points(2, 2)
    with pytest.raises(InvalidSetting, match="discretisation"):
        diffusion_residual(bump(0.4), x, t, diffusion=0.4, **bad)
