"""The verifier's arithmetic against scipy and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import special, stats

from certify.geometry import make_geometry
from certify.noise import make_noise
from certify.sequential import ExactSequentialTest
from certify.sequential.walks import crossing
from certify.verification.ball import reach_of
from certify.verification.independent import (
    ever_reached,
    lower_bound,
    normal_radius,
    tail_at_least,
    tail_at_most,
    upper_bound,
)

TRIALS = st.sampled_from([1, 2, 7, 100, 10_000, 100_000])


@given(TRIALS, st.floats(0, 1), st.floats(1e-9, 1 - 1e-9))
@hypothesis_settings(max_examples=200, deadline=None)
def test_tails_agree_with_scipy(n, share, p):
    k = round(share * n)
    above, below = stats.binom.sf(k - 1, n, p), stats.binom.cdf(k, n, p)
    assert tail_at_least(k, n, p) == pytest.approx(above, rel=1e-8, abs=1e-14)
    assert tail_at_most(k, n, p) == pytest.approx(below, rel=1e-8, abs=1e-14)


@given(TRIALS, st.floats(0, 1), st.sampled_from([0.05, 1e-3, 1e-7]))
@hypothesis_settings(max_examples=60, deadline=None)
def test_bounds_agree_with_the_beta_quantile(n, share, alpha):
    k = round(share * n)
    assert lower_bound(k, n, alpha) == pytest.approx(
        special.betaincinv(k, n - k + 1, alpha) if k else 0, abs=1e-10
    )
    high = 1 - special.betaincinv(n - k, k + 1, alpha) if k < n else 1
    assert upper_bound(k, n, alpha) == pytest.approx(high, abs=1e-10)


@given(st.floats(0.501, 1 - 1e-9), st.sampled_from([0.12, 0.25, 1.0]))
def test_normal_radii_agree_with_scipy(p, sigma):
    assert normal_radius(p, sigma) == pytest.approx(sigma * special.ndtri(p), rel=1e-9)


@pytest.mark.parametrize(
    ("noise", "norm"),
    [
        ("gaussian", "2"),
        ("lattice", "inf"),
        ("gaussian", "3"),
        ("gaussian", "1"),
        ("uniform", "1"),
        ("laplace", "1"),
    ],
)
def test_every_ball_agrees_with_the_certifiers(noise, norm):
    sigma, dim = 0.25, 48
    law = make_noise(noise, sigma=sigma, grid=1 / 255, bounds=(0.0, 1.0))
    geometry = make_geometry(law, norm=norm, dim=dim)
    reach = reach_of({"noise": noise, "norm": norm, "sigma": sigma, "dim": dim})
    for p in (0.4, 0.5, 0.51, 0.8, 0.999, 1 - 1e-9):
        assert geometry.radius(p) == pytest.approx(reach(p), rel=1e-9, abs=1e-15)
        assert geometry.radius(p) <= reach(p)
    assert reach_of({"noise": noise, "norm": "0.5", "sigma": sigma, "dim": dim}) is None


@pytest.mark.parametrize("p", [0.5, 0.6, 0.93, 0.9999])
def test_crossing_probabilities_agree_with_the_certifier(p):
    test = ExactSequentialTest(0.001, p, 20_000)
    looks, accept = test.looks.tolist(), test.accept.tolist()
    both = ever_reached(looks, accept, p, mirrored=accept)
    assert both == pytest.approx(crossing(test.looks, test.accept, p, mirrored=test.accept), rel=1e-6)
    assert ever_reached(looks, accept, p) == pytest.approx(test.error_probability(p), rel=1e-6)
    assert both <= 0.001


def test_crossing_probabilities_agree_with_simulation():
    """Two-sided binomial test at 1e-6: a false alarm once in a million seeds; the seed is fixed."""
    looks, accept, p, runs = [10, 25, 60], [9, 20, 44], 0.65, 200_000
    rng = np.random.default_rng(4)
    increments = rng.binomial(np.diff([0, *looks])[None], p, size=(runs, 3))
    hits = int((increments.cumsum(1) >= accept).any(1).sum())
    assert stats.binomtest(hits, runs, ever_reached(looks, accept, p)).pvalue > 1e-6
    wrong = ever_reached(looks, [k + 1 for k in accept], p)
    assert stats.binomtest(hits, runs, wrong).pvalue < 1e-6


def test_extremes():
    assert lower_bound(0, 10, 0.01) == 0
    assert upper_bound(10, 10, 0.01) == 1
    assert lower_bound(10, 10, 0.01) == pytest.approx(0.01**0.1)
    assert tail_at_least(0, 5, 0.3) == tail_at_most(5, 5, 0.3) == 1
    assert tail_at_least(6, 5, 0.3) == tail_at_most(-1, 5, 0.3) == 0
    assert ever_reached([4, 8], [5, 9], 0.9) < 1e-14
    assert ever_reached([4], [4], 1.0) == 1
    assert normal_radius(0.5, 1.0) == 0
    assert math.isclose(normal_radius(0.975, 1.0), 1.959963984540054)
