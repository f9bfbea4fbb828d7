"""The effective sigma of internal noise: exact for linear networks, never above the truth elsewhere."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from certify.errors import InvalidSetting
from certify.inside.effective_sigma import effective_sigma, effective_sigma_sde


@settings(max_examples=60, deadline=None)
@given(
    scales=st.lists(st.floats(0.01, 3), min_size=1, max_size=6),
    seed=st.integers(0, 10_000),
)
def test_scalar_linear_networks_are_exact(scales, seed):
    # x -> a_k x + s_k xi: the output is N(A x, v); the class "output > 0" has s_eff = sqrt(v)/|A|.
    rng = np.random.default_rng(seed)
    slopes = rng.uniform(0.2, 3.0, len(scales)) * rng.choice([-1, 1], len(scales))
    variance, gain = 0.0, 1.0
    for a, s in zip(slopes, scales, strict=True):
        variance, gain = a**2 * variance + s**2, gain * a
    truth = math.sqrt(variance) / abs(gain)
    got = effective_sigma(scales, [abs(a) for a in slopes])
    assert got <= truth
    assert got == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize(("theta", "time", "sigma"), [(0.7, 1.0, 0.5), (-0.4, 2.0, 1.0), (3.0, 0.5, 0.2)])
def test_ornstein_uhlenbeck_is_exact(theta, time, sigma):
    # dX = -theta X dt + sqrt(2) sigma dW has X_T ~ N(e^{-theta T} x, sigma^2 (1 - e^{-2 theta T})/theta).
    deviation = math.sqrt(sigma**2 * (1 - math.exp(-2 * theta * time)) / theta)
    truth = deviation * math.exp(theta * time)
    got = effective_sigma_sde([time], [sigma], [-theta])
    assert got <= truth * (1 + 1e-15)
    assert got == pytest.approx(truth, rel=1e-6)


def test_no_growth_is_plain_smoothing():
    assert effective_sigma_sde([2.0], [0.3], [0.0]) == pytest.approx(0.3 * math.sqrt(4.0), rel=1e-9)
    assert effective_sigma([0.5], [1.0]) == pytest.approx(0.5, rel=1e-9)


def test_expansion_saturates_and_contraction_helps():
    assert effective_sigma_sde([100.0], [1.0], [0.5]) == pytest.approx(1 / math.sqrt(0.5), rel=1e-9)
    assert effective_sigma([0.3, 0.3], [1.0, 0.5]) > math.hypot(0.3, 0.3)
    assert effective_sigma([0.3, 0.3], [1.0, 2.0]) < math.hypot(0.3, 0.3)


def test_piecewise_constants_match_quadrature():
    durations, sigmas, rates = [0.5, 1.0, 0.25], [0.2, 0.7, 1.1], [1.0, -0.5, 2.0]
    edges = np.cumsum([0, *durations])

    def at(values, t):
        return values[min(int(np.searchsorted(edges, t, side="right")) - 1, 2)]

    def grown(t):
        return sum(r * max(0.0, min(t, b) - a) for r, a, b in zip(rates, edges, edges[1:], strict=False))

    truth, _ = integrate.quad(
        lambda t: 2 * at(sigmas, t) ** 2 * math.exp(-2 * grown(t)), 0, edges[-1], points=edges[1:-1]
    )
    assert effective_sigma_sde(durations, sigmas, rates) == pytest.approx(math.sqrt(truth), rel=1e-9)


def test_many_small_steps_converge_to_the_continuous_formula():
    n, sigma, rate = 20_000, 0.4, 0.8
    h = 1.0 / n
    got = effective_sigma([sigma * math.sqrt(2 * h)] * n, [1 + rate * h] * n)
    assert got == pytest.approx(effective_sigma_sde([1.0], [sigma], [rate]), rel=1e-3)


@pytest.mark.parametrize(
    ("scales", "bounds"),
    [([], []), ([1.0], [1.0, 1.0]), ([-1.0], [1.0]), ([1.0], [0.0]), ([1.0], [math.inf])],
)
def test_impossible_stages_are_refused(scales, bounds):
    with pytest.raises(InvalidSetting):
        effective_sigma(scales, bounds)
    with pytest.raises(InvalidSetting):
        effective_sigma_sde([1.0], [-1.0], [0.0])


@pytest.mark.parametrize(
    ("scales", "bounds"),
    [
        ([1.0, 1.0], [1e-160, 1e-160]),
        ([1e-200, 1e-300, 1e-100], [1e-200, 1e-100, 1e200]),
        ([1.0, 1.0, 1.0], [1e200, 1e200, 1e-300]),
        ([0.3] * 60, [1e-7] * 30 + [1e7] * 30),
        ([0.0, 2.0], [3.0, 0.5]),
    ],
)
def test_bounds_of_any_size_neither_vanish_nor_overflow(scales, bounds):
    product, terms = Fraction(1), []
    for scale, bound in zip(scales, bounds, strict=True):
        product *= Fraction(bound)
        terms.append((Fraction(scale) / product) ** 2)
    exact = sum(terms)
    if exact > Fraction(10) ** 600:
        with pytest.raises(InvalidSetting, match="too large"):
            effective_sigma(scales, bounds)
        return
    found = Fraction(effective_sigma(scales, bounds))
    assert found**2 <= exact
    assert found**2 >= exact * Fraction(1 - 1e-9)


@pytest.mark.parametrize(
    ("durations", "diffusion", "growth"),
    [([1.0], [1.0, 2.0], [0.0]), ([], [], []), ([1.0], [1.0], [-1e6]),
     ([1.0, 1.0], [1.0, 1.0], [-400.0, 0.0]), ([1e300], [1e200], [0.0])],
)  # fmt: skip
def test_equations_that_cannot_be_computed_are_refused(durations, diffusion, growth):
    with pytest.raises(InvalidSetting):
        effective_sigma_sde(durations, diffusion, growth)
