"""Bounds on the mean of bounded scores: valid for every law, and the rounding trick that is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from certify.bounds import binomial_lower
from certify.errors import InvalidInput, InvalidSetting
from certify.scores.means import (
    MEAN_BOUNDS,
    kelly_grid_histogram,
    kelly_grid_lower,
    kl_chernoff_lower,
    maurer_pontil_lower,
    sampled_labels_lower,
)

LAWS = {
    "bernoulli": (stats.bernoulli(0.93), 0.93),
    "confident": (stats.beta(2.0, 0.1), 2.0 / 2.1),
    "rare": (stats.bernoulli(0.02), 0.02),
}
#: Chance that a test of a valid bound fails, per comparison.
FALSE_ALARM = 1e-6


def misses_too_often(misses, runs, alpha):
    return stats.binomtest(misses, runs, alpha, alternative="greater").pvalue < FALSE_ALARM


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", MEAN_BOUNDS)
def test_coverage(name, law):
    draw, mean = LAWS[law]
    rng = np.random.default_rng(17)
    runs, alpha = 400, 0.05
    lower = MEAN_BOUNDS[name].lower
    misses = sum(lower(draw.rvs(60, random_state=rng).astype(float), alpha) > mean for _ in range(runs))
    assert not misses_too_often(misses, runs, alpha)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 20, 300])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", MEAN_BOUNDS)
def test_coverage_with_more_runs(name, law, n):
    draw, mean = LAWS[law]
    rng = np.random.default_rng(23)
    lower = MEAN_BOUNDS[name].lower
    misses = sum(lower(draw.rvs(n, random_state=rng).astype(float), 0.05) > mean for _ in range(4_000))
    assert not misses_too_often(misses, 4_000, 0.05)


def test_sampled_labels_cover():
    rng = np.random.default_rng(29)
    misses = sum(
        sampled_labels_lower(rng.beta(3.0, 1.0, 60), 0.05, generator=rng) > 0.75 for _ in range(2_000)
    )
    assert not misses_too_often(misses, 2_000, 0.05)
    assert misses > 20  # nearly exact, so a bound that never misses would be the wrong one


def test_rounding_soft_sums_to_counts_is_not_a_bound():
    """X = 1/2 (rounded up to one vote) with probability .0961, else 0: one sample, alpha 5 %."""
    mean, rng, runs = 0.0961 * 0.51, np.random.default_rng(31), 4_000
    values = 0.51 * (rng.random(runs) < 0.0961)
    rounded = sum(binomial_lower(int(np.rint(x)), 1, 0.05) > mean for x in values)
    assert misses_too_often(rounded, runs, 0.05)
    for bound in MEAN_BOUNDS.values():
        assert bound.lower([0.51], 0.05) <= mean


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    alpha=st.floats(1e-6, 0.4),
    name=st.sampled_from(sorted(MEAN_BOUNDS)),
)
def test_every_bound_lies_below_the_sample_mean_and_falls_with_alpha(values, alpha, name):
    lower = MEAN_BOUNDS[name].lower
    value = lower(values, alpha)
    assert 0 <= value <= np.mean(values) + 1e-9 or (name == "betting" and value <= max(values))
    assert lower(values, alpha / 10) <= value + 1e-9


def test_relative_entropy_bound_solves_its_equation():
    values = np.array([1.0] * 90 + [0.0] * 10)
    p = kl_chernoff_lower(values, 0.01)
    kl = 0.9 * np.log(0.9 / p) + 0.1 * np.log(0.1 / (1 - p))
    assert 100 * kl == pytest.approx(np.log(100), rel=1e-9)


def test_variance_bound_is_the_published_formula():
    values = np.random.default_rng(0).random(200)
    log = np.log(2 / 0.05)
    expected = values.mean() - np.sqrt(2 * values.var(ddof=1) * log / 200) - 7 * log / (3 * 199)
    assert maurer_pontil_lower(values, 0.05) == pytest.approx(expected, abs=1e-11)


def test_kelly_grid_ignores_order_and_floors_a_histogram():
    rng = np.random.default_rng(3)
    values = rng.beta(5, 1, 500)
    assert kelly_grid_lower(values, 0.01) == pytest.approx(kelly_grid_lower(values[::-1], 0.01), abs=1e-11)
    edges = np.linspace(0, 1, 101)
    counts = np.histogram(values, edges)[0]
    floored = kelly_grid_histogram(edges[:-1], counts, 0.01)
    assert floored <= kelly_grid_lower(values, 0.01)
    assert floored > kelly_grid_lower(values, 0.01) - 0.011


def test_kelly_grid_may_be_read_at_every_look():
    """The chance that any of 12 looks is wrong stays below alpha."""
    rng, runs, alpha, mean = np.random.default_rng(5), 250, 0.1, 0.9
    misses = 0
    for _ in range(runs):
        votes = np.cumsum(rng.random(600) < mean)
        looks = range(50, 601, 50)
        misses += any(
            kelly_grid_histogram(np.array([0.0, 1.0]), np.array([n - votes[n - 1], votes[n - 1]]), alpha)
            > mean
            for n in looks
        )
    assert not misses_too_often(misses, runs, alpha)


def test_betting_beats_the_bounds_that_ignore_the_variance():
    values = np.random.default_rng(8).beta(40, 2, 2_000)
    bounds = {name: bound.lower(values, 0.001) for name, bound in MEAN_BOUNDS.items()}
    for better in ("betting", "kelly-grid", "maurer-pontil"):
        assert bounds[better] > bounds["kl-chernoff"] > bounds["hoeffding"]


def test_unanimous_scores_come_close_to_the_exact_bound():
    values = np.ones(1_000)
    exact = optimize.brentq(lambda p: p**1_000 - 0.001, 0.9, 1)
    assert 1 - kelly_grid_lower(values, 0.001) < 1.5 * (1 - exact)


@pytest.mark.parametrize("bad", [[], [0.5, 1.1], [-0.1], [float("nan")], [[0.5]]])
def test_values_outside_the_unit_interval_are_refused(bad):
    for bound in MEAN_BOUNDS.values():
        with pytest.raises(InvalidInput):
            bound.lower(bad, 0.05)
    with pytest.raises(InvalidSetting):
        maurer_pontil_lower([0.5, 0.6], 0.6)
