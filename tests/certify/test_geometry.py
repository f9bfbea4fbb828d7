"""Norms and shapes: closed forms, inverses, and threshold classifiers with known l1 radii."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import certify
from certify.errors import InvalidSetting
from certify.geometry import Ellipsoid, GaussianBall, LaplaceBall, UniformBall, make_geometry, parse_norm
from certify.noise import make_noise

BALLS = [
    GaussianBall(0.25, 2.0, 784), GaussianBall(0.25, math.inf, 784), GaussianBall(1.0, 3.0, 10),
    GaussianBall(0.5, 1.0, 20), UniformBall(0.4), LaplaceBall(0.3), Ellipsoid(0.1, 0.2),
]  # fmt: skip


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@given(p=st.floats(0.5000001, 1 - 1e-9))
def test_needed_is_the_inverse_rounded_against_the_claim(ball, p):
    r = ball.radius(p)
    assert r >= 0
    assert ball.needed(r) == pytest.approx(p, rel=1e-6)
    assert ball.radius(0.5) == 0.0


def test_other_norms_of_the_l2_ball():
    """The corner of the linf ball and the face of the l1 ball both lie on the l2 sphere or inside."""
    p = 0.9
    two = GaussianBall(1.0, 2.0, 100).radius(p)
    assert GaussianBall(1.0, math.inf, 100).radius(p) == pytest.approx(two / 10)
    assert GaussianBall(1.0, 1.0, 100).radius(p) == two
    assert GaussianBall(1.0, 4.0, 16).radius(p) == pytest.approx(two / 2)


@given(st.floats(0.5, 1 - 1e-12))
def test_laplace_uses_the_larger_of_its_two_forms(p):
    other = 0.5 * math.log(p / (1 - p))
    assert LaplaceBall(1.0).radius(p) >= other - 1e-9


@pytest.mark.parametrize("norm", ["0.5", "0", "nan", "two", "-1"])
def test_what_is_not_a_norm_is_refused(norm):
    with pytest.raises(InvalidSetting):
        parse_norm(norm)


@pytest.mark.parametrize(("noise", "norm"), [("uniform", "2"), ("laplace", "inf"), ("anisotropic", "1")])
def test_a_norm_without_a_theorem_is_refused(noise, norm):
    law = make_noise(noise, sigma=np.array([0.1, 0.2]) if noise == "anisotropic" else 0.2)
    with pytest.raises(InvalidSetting):
        make_geometry(law, norm=norm, dim=2)


@pytest.mark.parametrize("noise", ["uniform", "laplace"])
def test_l1_radius_of_a_threshold_is_its_distance(noise):
    """f(x) = [x_1 > t]: both l1 theorems are tight for it, and the true radius is t."""
    t = 0.21

    def model(x):
        side = x[:, 0] - t
        return torch.stack([-side, side], dim=1)

    g = certify.Smoothed(model, 0.25, num_classes=2, noise=noise, norm="1", bounds=None, batch_size=1000)
    run = g.certify(torch.zeros(10, 4), [0] * 10, mode="fixed", n0=100, n=20_000, seed=5)
    assert run.settings["norm"] == "1"
    # One wrong among ten at alpha = 0.001 has probability 1 %; two 4.5e-5.
    assert sum(r.radius > t for r in run) <= 1
    assert np.median([r.radius for r in run]) >= 0.9 * t


def test_anisotropic_noise_certifies_an_ellipsoid():
    """A half-space across the second axis: rho is its distance in units of that axis' sigma."""
    t = 0.3

    def model(x):
        side = x[:, 1] - t
        return torch.stack([-side, side], dim=1)

    sigma = np.array([0.1, 0.4])
    g = certify.Smoothed(model, sigma, num_classes=2, noise="anisotropic", bounds=None, batch_size=1000)
    record = g.certify(torch.zeros(1, 2), [0], mode="fixed", n0=100, n=20_000, seed=5)[0]
    rho = t / 0.4
    assert 0.9 * rho < record.details["rho"] <= rho
    assert record.radius == pytest.approx(0.1 * record.details["rho"], rel=1e-9)
    assert record.details["radius_equal_volume"] == pytest.approx(0.2 * record.details["rho"], rel=1e-9)


def test_linf_run_divides_by_the_root_of_the_dimension():
    def model(x):
        side = x[:, 0] - 40.5 / 64
        return torch.stack([-side, side], dim=1)

    common = {"num_classes": 2, "grid": 2.0**-6, "bounds": (-4, 4), "batch_size": 500}
    two, inf = (
        certify.Smoothed(model, 0.5, norm=norm, **common).certify(torch.zeros(1, 16), n_max=2000, seed=1)[0]
        for norm in ("2", "inf")
    )
    assert inf.radius == pytest.approx(two.radius / 4, rel=1e-9)
    assert inf.details["radius_l2"] == pytest.approx(two.radius, rel=1e-9)
    grid = certify.Smoothed(model, 0.5, norm="inf", **common)
    decided = grid.certify(torch.zeros(1, 16), n_max=2000, seed=1, mode="decide", radius=0.1)[0]
    assert decided.radius == 0.1
    assert decided.p_lower == pytest.approx(GaussianBall(0.5, math.inf, 16).needed(0.1))


# -- with a bound on the runner-up ---------------------------------------------------------------


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@given(p=st.floats(1e-6, 1 - 1e-9), share=st.floats(0, 1))
def test_between_is_never_less_than_the_one_sided_radius_and_falls_with_the_rival(ball, p, share):
    q = (1 - p) * share
    assert ball.between(p, q) >= ball.between(p, min(1.0, 1 - p + 1e-16)) >= ball.radius(p)
    assert ball.between(p, 1 - p) == pytest.approx(ball.radius(p), rel=1e-9, abs=1e-12)
    assert ball.between(p, 1.0) == ball.radius(p)
    assert ball.between(p, q) > 0 or p <= q * (1 + 1e-9)
    assert ball.between(p, q) == 0 or p > q


LINE = {
    "gaussian": (GaussianBall(0.5, 2.0, 1), stats.norm(scale=0.5)),
    "uniform": (UniformBall(0.4), stats.uniform(-0.4, 0.8)),
    "laplace": (LaplaceBall(0.3), stats.laplace(scale=0.3)),
}


@pytest.mark.parametrize("law", LINE)
@given(cuts=st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=6, unique=True), seed=st.integers(0, 10**6))
def test_no_classifier_of_the_line_changes_its_class_within_the_radius(law, cuts, seed):
    """Intervals of the line with any classes, at their exact probabilities: the class at 0 stays."""
    ball, noise = LINE[law]
    edges = np.concatenate([[-np.inf], sorted(cuts), [np.inf]])
    labels = np.random.default_rng(seed).integers(0, 4, len(edges) - 1)

    def shares(x):
        return np.bincount(labels, weights=np.diff(noise.cdf(edges - x)), minlength=4)

    p = shares(0.0)
    a, b = np.argsort(p)[::-1][:2]
    r = ball.between(p[a], p[b])
    for x in (-r, -0.7 * r, 0.7 * r, r) if math.isfinite(r) else ():
        moved = shares(x * (1 - 1e-9))
        assert moved[a] >= np.delete(moved, a).max() - 1e-12


@pytest.mark.parametrize("law", LINE)
def test_thresholds_attain_the_radius(law):
    """Class 0 to the left, 1 to the right, 2 between: from p_A and p_B alone no more can be told."""
    ball, noise = LINE[law]
    low, high = 0.05, 0.12
    p_a, p_b = noise.cdf(-low), noise.sf(high)
    distance = (high - low) / 2 if law == "gaussian" else None
    r = ball.between(p_a, p_b)
    if distance is not None:
        assert r == pytest.approx(distance, rel=1e-9)
    if law == "uniform":
        assert r == pytest.approx((high - low) / 2, rel=1e-9)
    if law == "laplace":
        assert r == pytest.approx(max((high - low) / 2, -0.3 * math.log(1 - p_a + p_b)), rel=1e-9)


def test_details_follow_both_bounds():
    flat = GaussianBall(1.0, math.inf, 100)
    assert flat.details(0.4, 0.1)["radius_l2"] == pytest.approx(10 * flat.between(0.4, 0.1))
    shape = Ellipsoid(0.1, 0.2)
    assert shape.details(0.4, 0.1)["rho"] == pytest.approx(10 * shape.between(0.4, 0.1))
