"""Liars falsify certificates made with floating-point noise, and none made with lattice noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import certify
from certify.bounds import binomial_lower
from certify.noise import make_noise
from certify.radii import radius_down
from tests.liars import (
    LIARS,
    SHAPES,
    SIGMAS,
    faint_image,
    finer_than_grid,
    off_image,
    unreachable_sum,
    zero_image,
)

SAMPLES = 500
ALPHA = 1e-3


@dataclass(frozen=True)
class Certificate:
    label: int
    radius: float


def certificate(model, noisy: Callable[[int], Tensor], sigma: float) -> Certificate | None:
    """Cohen's procedure: the class from the first samples, its bound from fresh ones."""
    selection = int(model(noisy(0)).argmax(1).bincount(minlength=2).argmax())
    hits = int((model(noisy(1)).argmax(1) == selection).sum())
    p_lower = binomial_lower(hits, SAMPLES, ALPHA)
    return Certificate(selection, radius_down(p_lower, sigma)) if p_lower > 0.5 else None


def lies(at_zero: Certificate | None, at_faint: Certificate | None, distance: float) -> bool:
    """Both points are certified, with different classes, and one lies in the other's ball."""
    if at_zero is None or at_faint is None or at_zero.label == at_faint.label:
        return False
    return max(at_zero.radius, at_faint.radius) >= distance


def by_noise(name: str, sigma: float, shape) -> Callable[[Tensor, int], Callable[[int], Tensor]]:
    noise = make_noise(name, sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))

    def at(x: Tensor, id: int) -> Callable[[int], Tensor]:
        def noisy(purpose: int) -> Tensor:
            out = torch.empty(SAMPLES, *shape)
            noise.for_purpose(purpose).fill(
                out, bases=[noise.prepare(x)], ids=[id], starts=[0], counts=[SAMPLES], seed=99
            )
            return out

        return noisy

    return at


def published(sigma: float, shape, dtype: torch.dtype) -> Callable[[Tensor, int], Callable[[int], Tensor]]:
    """x + sigma * randn in the given floating-point type, as the literature's scripts do."""

    def at(x: Tensor, id: int) -> Callable[[int], Tensor]:
        def noisy(purpose: int) -> Tensor:
            generator = torch.Generator().manual_seed(10 * id + purpose)
            noise = torch.randn(SAMPLES, *shape, generator=generator, dtype=dtype)
            pixels = (x * 255).round().to(dtype) / 255
            return pixels + sigma * noise

        return noisy

    return at


def outcome(model, samples_at, sigma: float, shape) -> bool:
    """Whether the two certificates contradict each other."""
    zero, faint = zero_image(shape), faint_image(shape)
    return lies(
        certificate(model, samples_at(zero, 0), sigma),
        certificate(model, samples_at(faint, 1), sigma),
        float((faint - zero).norm()),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_float32_noise_is_falsified(sigma, shape):
    assert outcome(unreachable_sum, published(sigma, shape, torch.float32), sigma, shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_float64_noise_is_falsified_too(sigma, shape):
    assert outcome(unreachable_sum, published(sigma, shape, torch.float64), sigma, shape)


@pytest.mark.parametrize("sigma", SIGMAS[:3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_zero_coordinates_alone_are_enough(sigma, dtype):
    shape = (3, 32, 32)
    assert outcome(finer_than_grid, published(sigma, shape, dtype), sigma, shape)
    if dtype is torch.float32:
        assert outcome(finer_than_grid, by_noise("gaussian", sigma, shape), sigma, shape)


@pytest.mark.parametrize("name", ["uniform", "laplace"])
def test_other_float_noises_leak_as_well(name):
    """The liar tells the two images apart almost surely, which no noise of this width should allow."""
    shape, at = (3, 32, 32), by_noise(name, 0.5, (3, 32, 32))
    shares = [float(unreachable_sum(at(x(shape), 0)(0))[:, 1].mean()) for x in (zero_image, faint_image)]
    assert shares[0] > 0.99
    assert shares[1] == 0.0


def runs(noise: str, sigma: float, shape, liar: str):
    """Both images certified by the library itself, in its default mode and in Cohen's."""
    g = certify.Smoothed(
        LIARS[liar], sigma, num_classes=2, noise=noise, grid=1 / 255, bounds=(0.0, 1.0), batch_size=128
    )
    x = torch.stack([zero_image(shape), faint_image(shape)])
    yield g.certify(x, n_max=SAMPLES, seed=1)
    yield g.certify(x, mode="fixed", n0=50, n=SAMPLES, seed=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_default_settings_issue_no_wrong_certificate(sigma, shape):
    distance = float((faint_image(shape) - zero_image(shape)).norm())
    for liar in LIARS:
        for run in runs("lattice", sigma, shape, liar):
            assert all(record.certified and record.radius > distance for record in run)
            assert run[0].label == run[1].label
            assert "exact arithmetic only" not in run.guarantee


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_gaussian_noise_shows_the_failure_and_says_so(sigma, shape):
    distance = float((faint_image(shape) - zero_image(shape)).norm())
    for run in runs("gaussian", sigma, shape, "unreachable_sum"):
        assert all(record.certified and record.radius > distance for record in run)
        assert (run[0].label, run[1].label) == (1, 0)
        assert "exact arithmetic only" in run.guarantee


@pytest.mark.parametrize("sigma", SIGMAS)
def test_two_conversions_instead_of_one_would_leak(sigma):
    """Adding float images, rather than converting the integer sum, is caught by this suite."""
    shape = (1, 28, 28)
    noise = make_noise("lattice", sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))

    def at(x: Tensor, id: int) -> Callable[[int], Tensor]:
        zero = by_noise("lattice", sigma, shape)(torch.zeros(shape), id)
        return lambda purpose: noise.snap(x) + zero(purpose)

    assert outcome(off_image, at, sigma, shape)
    assert not outcome(off_image, by_noise("lattice", sigma, shape), sigma, shape)
