"""Heat flow, total variation and Perona-Malik against closed forms and invariants, in double precision."""

import math

import pytest
import torch
from scipy.special import ive

from certify.errors import InvalidSetting
from pdenets.denoisers.differences import divergence, gradient, total_variation
from pdenets.denoisers.heat import HeatFlow, propagator
from pdenets.denoisers.perona_malik import PeronaMalik
from pdenets.denoisers.total_variation import TotalVariation

SHAPE = (2, 11, 14)


def images(count=3, shape=SHAPE, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heat(time, shape=SHAPE):
    return HeatFlow(input_shape=shape, time=time, dtype=torch.float64)


def cosine_mode(shape, k, m):
    """The insulated Laplacian's eigenvector (k, m) on a grid, and its eigenvalue."""
    _, height, width = shape
    rows = torch.cos(math.pi * k * (torch.arange(height, dtype=torch.float64) + 0.5) / height)
    columns = torch.cos(math.pi * m * (torch.arange(width, dtype=torch.float64) + 0.5) / width)
    value = 2 * math.cos(math.pi * k / height) + 2 * math.cos(math.pi * m / width) - 4
    return (rows[:, None] * columns).expand(1, *shape).clone(), value


@pytest.mark.parametrize("denoise", [
    lambda x: heat(0.8)(x),
    lambda x: TotalVariation(input_shape=SHAPE, strength=1.0)(x, sigma=0.25),
    lambda x: PeronaMalik(input_shape=SHAPE, contrast=1.0, steps=12)(x, sigma=0.25),
], ids=["heat", "tv", "perona-malik"])  # fmt: skip
def test_every_channel_keeps_its_mean_and_constants_stay(denoise):
    x = images()
    assert (denoise(x).mean(dim=(2, 3)) - x.mean(dim=(2, 3))).abs().max() < 1e-14
    assert (denoise(torch.full_like(x, 0.3)) - 0.3).abs().max() < 1e-15


@pytest.mark.parametrize("denoise", [
    lambda x: heat(0.8)(x),
    lambda x: heat(40.0)(x),
    lambda x: PeronaMalik(input_shape=SHAPE, contrast=0.5, steps=20, dt=0.25)(x, sigma=0.25),
    lambda x: PeronaMalik(input_shape=SHAPE, contrast=5.0, steps=20, dt=0.25)(x, sigma=0.25),
], ids=["heat", "long heat", "sharp perona-malik", "smooth perona-malik"])  # fmt: skip
def test_the_maximum_principle_holds(denoise):
    x = torch.where(images() > 0.5, 1.0, 0.0).double()  # the sharpest images there are
    found = denoise(x)
    assert found.min() > -1e-14
    assert found.max() < 1 + 1e-14


def test_heat_multiplies_every_cosine_by_the_exponential_of_its_eigenvalue():
    for k, m in ((0, 0), (1, 0), (3, 5), (10, 13)):
        mode, value = cosine_mode(SHAPE, k, m)
        assert (heat(0.7)(mode) - math.exp(0.7 * value) * mode).abs().max() < 1e-14


def test_heat_solves_its_equation_and_times_add_up():
    x, dt = images(), 1e-6
    rate = (heat(0.3 + dt)(x) - heat(0.3 - dt)(x)) / (2 * dt)
    assert (rate - divergence(*gradient(heat(0.3)(x)))).abs().max() < 1e-9
    assert (heat(0.3)(heat(0.5)(x)) - heat(0.8)(x)).abs().max() < 1e-14


def test_far_from_the_border_heat_is_a_blur_of_variance_twice_the_time():
    # The discrete Gaussian e^-2t I_n(2t) has mean 0 and variance 2t exactly.
    row = propagator(101, 3.0)[50]
    place = torch.arange(101, dtype=torch.float64) - 50
    assert abs(float(row.sum()) - 1) < 1e-14
    assert abs(float((row * place).sum())) < 1e-12
    assert abs(float((row * place.square()).sum()) - 6.0) < 1e-10
    assert (row - torch.from_numpy(ive(place.abs().numpy(), 6.0))).abs().max() < 1e-14
    normal = torch.exp(-place.square() / 12) / math.sqrt(12 * math.pi)
    assert (row - normal).abs().max() < 0.005  # and close to the continuous one


def test_heat_at_time_zero_is_the_identity_and_its_energy_falls():
    x = images()
    assert (heat(0.0)(x) - x).abs().max() < 1e-14
    energies = [float(sum(g.square().sum() for g in gradient(heat(t)(x)))) for t in (0, 0.1, 0.5, 2.0)]
    assert energies == sorted(energies, reverse=True)


def test_divergence_is_minus_the_adjoint_of_the_gradient():
    u, down, right = images(seed=1), images(seed=2), images(seed=3)
    ahead, aside = gradient(u)
    left = (ahead * down + aside * right).sum()
    assert abs(float(left + (u * divergence(down, right)).sum())) < 1e-10


@pytest.mark.parametrize(("left", "height"), [(4, 0.6), (7, 1.0)])
def test_total_variation_lowers_a_step_by_its_closed_form(left, height):
    """A step along rows: pixels left of it rise by weight / left, the others fall by weight / right."""
    width, weight = 12, 0.5
    x = torch.zeros(1, 1, 5, width, dtype=torch.float64)
    x[..., left:] = height
    found = TotalVariation(input_shape=(1, 5, width), strength=1.0, steps=4000)(x, sigma=weight)
    wanted = torch.full_like(x, weight / left)
    wanted[..., left:] = height - weight / (width - left)
    assert (found - wanted).abs().max() < 2e-3


def test_total_variation_lowers_its_energy_and_closes_its_duality_gap():
    x, weight = images(), 0.25
    gaps = []
    for steps in (1, 10, 100, 1000):
        tv = TotalVariation(input_shape=SHAPE, strength=1.0, steps=steps)
        down, right = tv.dual(x / weight)
        assert float((down.square() + right.square()).max()) <= 1 + 1e-12
        u = tv(x, sigma=weight)
        primal = (u - x).square().flatten(1).sum(1) / 2 + weight * total_variation(u)
        dual = x.square().flatten(1).sum(1) / 2 - u.square().flatten(1).sum(1) / 2
        assert (primal <= weight * total_variation(x)).all()
        gaps.append(float((primal - dual).max()))
    assert min(gaps) > -1e-12
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.01 * gaps[0]


def test_perona_malik_lowers_its_energy_in_every_step():
    x, edge = images(), 0.1
    energies = []
    for steps in (1, 2, 3, 5, 8, 20):
        found = PeronaMalik(input_shape=SHAPE, contrast=0.4, steps=steps, dt=0.25)(x, sigma=0.25)
        parts = gradient(found)
        energies.append(float(sum((edge**2 / 2 * torch.log1p((d / edge) ** 2)).sum() for d in parts)))
    assert energies == sorted(energies, reverse=True)


def test_perona_malik_without_edges_is_the_explicit_heat_equation():
    mode, value = cosine_mode(SHAPE, 2, 3)
    smooth = PeronaMalik(input_shape=SHAPE, contrast=1e9, steps=7, dt=0.2)
    assert (smooth(mode, sigma=0.25) - (1 + 0.2 * value) ** 7 * mode).abs().max() < 1e-13


def test_perona_malik_keeps_what_heat_would_blur():
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[..., 4:] = 1.0
    kept = PeronaMalik(input_shape=(1, 8, 8), contrast=0.1, steps=20)(x, sigma=0.25)
    assert (kept - x).abs().max() < 0.01
    assert (heat(4.0, (1, 8, 8))(x) - x).abs().max() > 0.3


def test_classical_denoisers_can_be_differentiated_everywhere():
    flat = torch.zeros(1, *SHAPE, dtype=torch.float64, requires_grad=True)
    for denoise in (TotalVariation(input_shape=SHAPE, strength=1.0, steps=5),
                    PeronaMalik(input_shape=SHAPE, contrast=1.0, steps=5)):  # fmt: skip
        (found,) = torch.autograd.grad(denoise(flat, sigma=0.25).square().sum() + flat.sum(), flat)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("build", [
    lambda: heat(-1.0),
    lambda: heat(math.nan),
    lambda: heat(1.0, (5,)),
    lambda: TotalVariation(input_shape=SHAPE, strength=0.0),
    lambda: TotalVariation(input_shape=SHAPE, strength=1.0, steps=0),
    lambda: PeronaMalik(input_shape=SHAPE, contrast=1.0, steps=5, dt=0.3),
    lambda: PeronaMalik(input_shape=SHAPE, contrast=-1.0, steps=5),
    lambda: PeronaMalik(input_shape=(3, 4), contrast=1.0, steps=5),
])  # fmt: skip
def test_numbers_that_are_no_denoiser_are_refused(build):
    with pytest.raises(InvalidSetting):
        build()
