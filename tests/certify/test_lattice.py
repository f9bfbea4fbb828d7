"""Integer noise: the law against high-precision arithmetic, one image per grid point, every path alike."""

from __future__ import annotations

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certify.errors import InvalidInput, InvalidSetting
from certify.noise import make_noise
from certify.noise.grid import make_grid
from certify.noise.philox import WordStream, device_words
from certify.noise.rounded_normal import MAX_SCALE, overflow_bound, reserve_for, rounded_normal

PIXEL = Fraction(1, 255)
SIGMAS = (0.12, 0.25, 0.5, 1.0)


def exact_threshold(j: int, scale: Fraction) -> int:
    with mpmath.workprec(400):
        x = mpmath.mpf((2 * j + 1) * scale.denominator) / (2 * scale.numerator)
        return int(mpmath.nint(mpmath.ncdf(x) * mpmath.mpf(2) ** 64))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_thresholds_are_the_nearest_integers(sigma):
    law = rounded_normal(sigma, PIXEL)
    for position in [*range(0, len(law.thresholds), 7), len(law.thresholds) - 1]:
        assert int(law.thresholds[position]) == exact_threshold(position - law.reach, law.scale)


@pytest.mark.parametrize(
    ("sigma", "step"), [(1e-3, PIXEL), (0.25, Fraction(1, 16)), (1.0, Fraction(1, 1024))]
)
def test_thresholds_at_other_scales(sigma, step):
    law = rounded_normal(sigma, step)
    chosen = range(0, len(law.thresholds), max(1, len(law.thresholds) // 50))
    assert all(int(law.thresholds[p]) == exact_threshold(p - law.reach, law.scale) for p in chosen)
    assert np.all(np.diff(law.thresholds.astype(object)) >= 0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_stated_distance_covers_the_true_one(sigma):
    """Total variation of the tables from the rounded normal, in 400-bit arithmetic, below the bound."""
    law = rounded_normal(sigma, PIXEL)
    with mpmath.workprec(400):
        unit = mpmath.mpf(2) ** 64
        ideal = [
            mpmath.ncdf(mpmath.mpf(2 * j + 1) / 2 / (mpmath.mpf(sigma) * 255))
            for j in range(-law.reach, law.reach)
        ]
        errors = [mpmath.mpf(0)]
        errors += [mpmath.mpf(int(t)) / unit - p for t, p in zip(law.thresholds, ideal, strict=True)]
        # Beyond the last thresholds the error decreases to zero monotonically.
        distance = sum(abs(b - a) for a, b in itertools.pairwise(errors[1:])) / 2
        distance += (ideal[0] + (1 - ideal[-1]) + abs(errors[1]) + abs(errors[-1])) / 2
    assert distance <= law.tv < 2e-16


def test_guide_and_search_agree_with_the_definition():
    law = rounded_normal(0.25, PIXEL)
    words = WordStream(11).draw(0, 0, 50, 100).ravel()
    slices = (words >> np.uint64(48)).astype(np.uint16)
    plain = np.searchsorted(law.thresholds, words, side="right") - law.reach
    guided = law.guide[slices].astype(np.int64)
    decided = guided != law.undecided
    assert np.array_equal(guided[decided], plain[decided])
    assert 0.5 < (1 - decided.mean()) / law.undecided_share < 2
    assert np.array_equal(law.refine(slices, words << np.uint64(16)), plain)


def noise_integers(noise, dim, seed, id, start, count):
    words = WordStream(seed).draw(id, start, count, -(-noise._writer.words(dim) // 4))
    return noise._writer.integers(words, dim)


@pytest.mark.parametrize(
    ("sigma", "grid", "dim"), [(0.25, 1 / 255, 784), (1.0, 1 / 255, 3), (2.0, 2**-10, 2)]
)
def test_law_of_the_integers(sigma, grid, dim):
    """Chi-square over cells of expected count >= 20 against the exact law; false alarm 1e-6 each."""
    noise = make_noise("lattice", sigma=sigma, grid=grid, bounds=(0.0, 1.0))
    draws = noise_integers(noise, dim, 2024, 0, 0, 300_000 // dim).ravel().astype(int)
    scale = sigma / float(noise.grid.step)
    edges = np.unique(np.round(stats.norm.ppf(np.linspace(0, 1, 302)[1:-1]) * scale)) + 0.5
    expected = np.diff(stats.norm.cdf(np.r_[-np.inf, edges, np.inf] / scale)) * len(draws)
    observed = np.bincount(np.searchsorted(edges, draws), minlength=len(expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_tails_and_independence():
    """Frequencies beyond 3 and 4 sigma, and neighbouring coordinates' products; false alarm 1e-6 each."""
    noise = make_noise("lattice", sigma=0.25, grid=1 / 255, bounds=(0.0, 1.0))
    draws = noise_integers(noise, 3072, 5, 1, 0, 300).astype(int)
    for k in (3, 4):
        beyond = int((np.abs(draws) > k * 63.75).sum())
        p = 2 * stats.norm.sf((np.floor(k * 63.75) + 0.5) / 63.75)
        assert stats.binomtest(beyond, draws.size, p).pvalue > 1e-6
    z = draws / np.sqrt(63.75**2 + 1 / 12)
    for pairs in (z[:, 1:] * z[:, :-1], z[1:] * z[:-1]):
        assert abs(pairs.mean()) * np.sqrt(pairs.size) < 4.9


shapes = st.sampled_from([(2,), (7,), (1, 8, 8), (1, 9, 5), (3, 32, 32)])


@settings(max_examples=40, deadline=None)
@given(
    shapes,
    st.sampled_from([0.03, 0.25, 1.0]),
    st.integers(0, (1 << 128) - 1),
    st.integers(0, 1 << 33),
    st.integers(0, 9),
)
def test_device_path_gives_the_same_integers(shape, sigma, seed, start, id):
    noise = make_noise("lattice", sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))
    dim = int(np.prod(shape))
    ours = noise_integers(noise, dim, seed, id, start, 6)
    blocks = -(-noise._writer.words(dim) // 4)
    words = device_words(seed, 0, torch.full((6,), id), torch.arange(start, start + 6), blocks)
    theirs = noise._writer.device_integers(words, dim).numpy()
    assert np.array_equal(ours, theirs)


def test_device_path_agrees_where_most_draws_are_refined():
    noise = make_noise("lattice", sigma=2.0, grid=2**-10, bounds=(-4.0, 4.0))
    assert noise._writer.law.undecided_share > 0.1
    words = WordStream(3).draw(0, 0, 40, -(-noise._writer.words(50) // 4))
    theirs = noise._writer.device_integers(torch.from_numpy(words.view(np.int64)), 50)
    assert np.array_equal(noise._writer.integers(words, 50), theirs.numpy())


def test_running_out_of_reserve_is_rarer_than_stated():
    for share, dim in [(0.0073, 784), (0.026, 3072), (0.29, 64), (2**-15, 5)]:
        reserve = reserve_for(share, dim)
        true = stats.binom.sf(reserve, dim, share)
        assert true <= overflow_bound(share, dim, reserve) < 2.0**-52
        assert reserve == 0 or overflow_bound(share, dim, reserve - 1) >= 2.0**-52
    assert overflow_bound(0.5, 4, 4) == 0.0


def test_every_grid_point_has_one_image_of_its_own():
    for step, bounds in [
        (1 / 255, (0.0, 1.0)),
        (2**-10, (-4.0, 4.0)),
        (1 / 16, (0.0, 1.0)),
        (2.0, (-64.0, 64.0)),
    ]:
        grid = make_grid(step, bounds)
        reach = grid.largest + 20_000
        integers = torch.arange(-reach, reach + 1)
        images = grid.image(integers)
        assert bool((images[1:] > images[:-1]).all())
        exact = integers.double() * grid.step.numerator / grid.step.denominator
        assert torch.equal(images, exact.float())
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(make_grid(1 / 255, (0.0, 1.0)).image(pixels), pixels / 255)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SIGMAS), st.integers(0, 3))
def test_noisy_inputs_show_nothing_but_the_integer_sum(seed, sigma, id):
    """Any two inputs: the noisy images are the images of integer sums, whatever the summands."""
    noise = make_noise("lattice", sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (1, 6, 6), generator=generator) / 255
    base = noise.prepare(x)
    out = torch.empty(5, 1, 6, 6)
    noise.fill(out, bases=[base], ids=[id], starts=[0], counts=[5], seed=seed)
    sums = (out.double() * 255).round()
    assert torch.equal(out, noise.grid.image(sums.int()))
    integers = sums.numpy().reshape(5, 36) - base.numpy()
    assert np.array_equal(integers, noise_integers(noise, 36, seed, id, 0, 5))


def test_off_grid_inputs_are_refused_with_the_way_out():
    noise = make_noise("lattice", sigma=0.25, grid=1 / 255, bounds=(0.0, 1.0))
    x = torch.full((1, 2, 2), 0.5)
    with pytest.raises(InvalidInput, match="to_grid"):
        noise.prepare(x)
    noise.prepare(noise.snap(x))
    for value in (float("nan"), float("inf"), 300 / 255, -1 / 255):
        with pytest.raises(InvalidInput, match="range"):
            noise.prepare(torch.full((1, 2, 2), value))
    nearly = (torch.arange(256) * (1 / 255)).reshape(1, 16, 16)  # rounds differently from / 255
    assert torch.equal(noise.prepare(nearly).int(), torch.arange(256, dtype=torch.int32))


def test_snapping_lands_on_the_grid_inside_the_range():
    noise = make_noise("lattice", sigma=0.25, grid=2**-10, bounds=(-0.0005, 0.7))
    x = torch.linspace(-2, 2, 1001)
    snapped = noise.snap(x)
    noise.prepare(snapped)
    assert float(snapped.min()) >= -0.0005
    assert float(snapped.max()) <= 0.7
    inside = (x > 0.01) & (x < 0.69)
    assert float((snapped - x)[inside].abs().max()) <= 2**-11 + 1e-7


@pytest.mark.parametrize(
    ("sigma", "grid", "bounds"),
    [
        (0.25, 0.3, (0.0, 1.0)),
        (0.25, 0.0, (0.0, 1.0)),
        (0.25, float("nan"), (0.0, 1.0)),
        (0.25, None, (0.0, 1.0)),
        (0.25, 2**-30, (0.0, 1.0)),
        (100.0, 1 / 255, (0.0, 1.0)),
        ([0.1, 0.2], 1 / 255, (0.0, 1.0)),
    ],
)
def test_grids_that_cannot_carry_the_proof_are_refused(sigma, grid, bounds):
    with pytest.raises(InvalidSetting):
        make_noise("lattice", sigma=sigma, grid=grid, bounds=bounds)


@pytest.mark.slow
def test_the_widest_law():
    law = rounded_normal(1.0, Fraction(1, MAX_SCALE))
    chosen = range(0, len(law.thresholds), 1500)
    assert all(int(law.thresholds[p]) == exact_threshold(p - law.reach, law.scale) for p in chosen)
    assert law.tv < 3e-15


@pytest.mark.parametrize("sigma", SIGMAS)
def test_half_space_radius_is_tight_on_the_grid(sigma):
    """Class 1 iff pixel >= T: from i = T + k the exact vote probability proves k + 1/2 steps, and the
    first grid point of class 0 lies k + 1 steps away."""
    law = rounded_normal(sigma, PIXEL)
    for k in (0, 1, 10, round(3 * law.scale)):
        p = 1 - int(law.thresholds[law.reach - k - 1]) / 2**64  # P(J >= -k)
        radius = sigma * stats.norm.ppf(p)
        assert radius == pytest.approx((k + 0.5) / 255, rel=1e-9)
        assert radius < (k + 1) / 255


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS)
def test_law_of_many_integers(sigma):
    """Twenty million draws over 1,000 cells and the far tails; false alarm 1e-6 each."""
    noise = make_noise("lattice", sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))
    draws = np.concatenate([noise_integers(noise, 3072, 77, id, 0, 650).ravel() for id in range(10)])
    scale = sigma * 255
    edges = np.unique(np.round(stats.norm.ppf(np.linspace(0, 1, 1002)[1:-1]) * scale)) + 0.5
    expected = np.diff(stats.norm.cdf(np.r_[-np.inf, edges, np.inf] / scale)) * draws.size
    observed = np.bincount(np.searchsorted(edges, draws), minlength=len(expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-6
    for k in (4.0, 4.5, 5.0):
        bound = np.floor(k * scale) + 0.5
        beyond = int((np.abs(draws.astype(int)) > bound).sum())
        assert stats.binomtest(beyond, draws.size, float(2 * stats.norm.sf(bound / scale))).pvalue > 1e-6
