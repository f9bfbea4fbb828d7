"""Clopper-Pearson: against the exact binomial law, a second library, and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from certify.bounds import binomial_interval, binomial_lower, binomial_upper
from certify.errors import InvalidCounts, InvalidSetting

ALPHAS = st.sampled_from([0.2, 0.05, 0.01, 1e-3, 1e-6, 1e-9])


@given(st.integers(1, 10**7), st.floats(0, 1), ALPHAS)
def test_lower_bound_is_where_the_binomial_tail_equals_alpha(n, share, alpha):
    k = round(share * n)
    p = binomial_lower(k, n, alpha)
    if k == 0:
        assert p == 0.0
        return
    tail = stats.binom.sf(k - 1, n, p)
    assert tail <= alpha * (1 + 1e-9)
    # Tight: a slightly larger p has a tail above alpha, or would leave [0, 1].
    larger = min(1.0, p + max(1e-6 * p * (1 - p), 1e-11))
    assert stats.binom.sf(k - 1, n, larger) >= alpha * (1 - 1e-3)


@given(st.integers(1, 10**6), st.floats(0, 1), ALPHAS)
def test_upper_mirrors_lower(n, share, alpha):
    k = round(share * n)
    assert binomial_upper(k, n, alpha) == pytest.approx(1 - binomial_lower(n - k, n, alpha), abs=1e-10)


@given(st.integers(1, 10**5), st.floats(0, 1))
def test_agrees_with_statsmodels(n, share):
    k = round(share * n)
    low, high = proportion_confint(k, n, alpha=0.05, method="beta")
    ours = binomial_interval(k, n, 0.05)
    assert ours[0] == pytest.approx(0.0 if math.isnan(low) else low, abs=1e-9)
    assert ours[1] == pytest.approx(1.0 if math.isnan(high) else high, abs=1e-9)


@given(st.integers(2, 10**5), st.floats(0, 1), ALPHAS)
def test_monotone_in_successes(n, share, alpha):
    k = min(n - 1, round(share * n))
    assert binomial_lower(k, n, alpha) <= binomial_lower(k + 1, n, alpha)


def test_unanimous_votes_have_the_closed_form():
    for n in (1, 10, 100_000, 10**9):
        assert binomial_lower(n, n, 0.001) == pytest.approx(0.001 ** (1 / n), rel=1e-11)
        assert binomial_lower(n, n, 0.001) < 0.001 ** (1 / n)
        assert binomial_upper(n, n, 0.001) == 1.0
        assert binomial_lower(0, n, 0.001) == 0.0


@pytest.mark.parametrize(("k", "n"), [(0, 0), (1, 0), (-1, 10), (11, 10), (0.5, 10), ("1", 10), (5, 10.0)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(InvalidCounts) as caught:
        binomial_lower(k, n, 0.001)
    assert caught.value.why
    assert caught.value.remedy


@pytest.mark.parametrize("alpha", [0, -0.1, 0.5, 1, math.nan, math.inf, "x", None])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(InvalidSetting):
        binomial_lower(5, 10, alpha)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_numpy_integers_count(seed):
    k = np.random.default_rng(seed).integers(0, 101)
    assert binomial_lower(k, np.int32(100), 0.05) == binomial_lower(int(k), 100, 0.05)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99])
def test_coverage(p):
    """20,000 simulated certificates miss the true p no more often than alpha allows.

    One-sided binomial test at 1e-4: the chance of a false alarm in these three tests is < 3e-4.
    """
    alpha, repeats, n = 0.05, 20_000, 1000
    counts = np.random.default_rng([7, int(p * 100)]).binomial(n, p, size=repeats)
    bound = {k: binomial_lower(int(k), n, alpha) for k in np.unique(counts)}
    misses = sum(bound[k] > p for k in counts)
    assert stats.binomtest(misses, repeats, alpha, alternative="greater").pvalue > 1e-4
    assert misses > 0.5 * alpha * repeats, "a bound this loose is not Clopper-Pearson"
