"""The exact sequential test: its boundaries, its error, and the argument for many classes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certify.bounds import binomial_lower
from certify.errors import InvalidSetting
from certify.sequential import ExactSequentialTest
from certify.sequential.boundaries import plan_looks, spending
from certify.sequential.walks import binomial_window, crossing


def crossing_by_enumeration(looks, accept, p):
    """P(ever reaching the boundary) from full binomial laws, no windows, no shared code."""
    law, n, out = {0: 1.0}, 0, 0.0
    for look, u in zip(looks, accept, strict=True):
        m = look - n
        step = [math.comb(m, i) * p**i * (1 - p) ** (m - i) for i in range(m + 1)]
        fresh = {}
        for k, mass in law.items():
            for i, q in enumerate(step):
                fresh[k + i] = fresh.get(k + i, 0.0) + mass * q
        out += math.fsum(v for k, v in fresh.items() if k >= u)
        law, n = {k: v for k, v in fresh.items() if k < u}, look
    return out


@pytest.mark.parametrize(("m", "p"), [(1, 0.5), (7, 0.1), (400, 0.93), (100_000, 0.5), (100_000, 0.99999)])
def test_binomial_window_is_the_binomial_law(m, p):
    low, pmf = binomial_window(m, p)
    counts = np.arange(low, low + len(pmf))
    np.testing.assert_allclose(pmf, stats.binom.pmf(counts, m, p), rtol=1e-9, atol=1e-300)
    assert pmf.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("p_target", [0.5, 0.6, 0.85, 0.97])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_error_agrees_with_enumeration(p_target, alpha):
    test = ExactSequentialTest(alpha, p_target, n_max=300, first=8, growth=1.3)
    for p in (p_target, 0.3, 0.99):
        exact = crossing_by_enumeration(test.looks.tolist(), test.accept.tolist(), p)
        assert exact <= test.error_probability(p) <= exact * (1 + 1e-8) + 1e-15
    assert exact > 0


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("n_max", [20, 1_000, 100_000])
def test_every_plan_keeps_to_alpha_and_uses_it(alpha, n_max):
    for z in (0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 3.7):
        p = float(stats.norm.cdf(z))
        test = ExactSequentialTest(alpha, p, n_max)
        both = test.error_probability(p) + test.error_probability(1 - p)
        assert test.error_probability(p) <= test.false_certification * (1 + 1e-9) + 1e-15 <= alpha
        rule = test.uncontested
        bound = both if rule is None else max(both + rule.slip, rule.error)
        assert test.false_certification <= bound * (1 + 1e-9)
        assert np.all(2 * test.accept > test.looks)
        assert np.all(test.futility < test.accept)
        if z <= 2 and n_max == 100_000:
            assert test.false_certification > 0.9 * alpha


def test_at_radius_zero_each_class_gets_half_of_alpha():
    test = ExactSequentialTest(0.001, 0.5)
    assert 0.00045 < test.error_probability(0.5) <= 0.0005


def test_error_increases_with_p_so_that_it_bounds_every_wrong_class():
    test = ExactSequentialTest(0.05, 0.8, n_max=2_000)
    errors = [test.error_probability(p) for p in np.linspace(0, 1, 41)]
    assert np.all(np.diff(errors) >= -1e-15)


def test_reading_a_fixed_sample_bound_at_every_look_breaks_alpha():
    test = ExactSequentialTest(0.01, 0.7, n_max=5_000)
    naive = [
        next((k for k in range(n // 2, n + 1) if binomial_lower(k, n, 0.01) >= 0.7), n + 1)
        for n in test.looks.tolist()
    ]
    assert crossing(test.looks, np.array(naive), 0.7) > 0.03
    assert test.error_probability(0.7) <= 0.01


def any_class_crosses(looks, accept, probabilities):
    """P(some class ever reaches the boundary), by the full law of three class counts."""
    p1, p2, p3 = probabilities
    law, n, out = {(0, 0): 1.0}, 0, 0.0
    for look, u in zip(looks, accept, strict=True):
        m, fresh = look - n, {}
        for (a, b), mass in law.items():
            for i in range(m + 1):
                for j in range(m + 1 - i):
                    ways = math.comb(m, i) * math.comb(m - i, j)
                    key = (a + i, b + j)
                    fresh[key] = fresh.get(key, 0.0) + mass * ways * p1**i * p2**j * p3 ** (m - i - j)
        n, law = look, {}
        for (a, b), mass in fresh.items():
            if max(a, b, look - a - b) >= u:
                out += mass
            else:
                law[a, b] = mass
    return out


@pytest.mark.parametrize("p_target", [0.5, 0.62])
def test_two_classes_are_the_worst_case_for_many(p_target):
    test = ExactSequentialTest(0.2, p_target, n_max=16, first=6, growth=1.3)
    looks, accept = test.looks.tolist(), test.accept.tolist()
    worst = any_class_crosses(looks, accept, (p_target, 1 - p_target, 0.0))
    assert worst == pytest.approx(test.false_certification, rel=1e-7)
    shares = [s for s in itertools.product(np.linspace(0, 1, 11), repeat=2) if sum(s) <= 1 + 1e-12]
    for a, b in shares:
        if max(a, b, 1 - a - b) <= p_target:
            assert any_class_crosses(looks, accept, (a, b, max(0.0, 1 - a - b))) <= worst + 1e-12


@pytest.mark.parametrize(("alpha", "runs"), [(0.05, 4_000), (0.001, 60_000)])
def test_simulated_ten_way_race_certifies_no_class_too_often(alpha, runs):
    """Binomial test: fails a sound plan with probability below 1e-6."""
    test = ExactSequentialTest(alpha, 0.5, n_max=400)
    rng = np.random.default_rng(11)
    for probabilities in ([0.5, 0.5], [0.1] * 10):
        steps = np.diff(test.looks, prepend=0)
        counts = np.zeros((runs, len(probabilities)), dtype=np.int64)
        wrong = np.zeros(runs, dtype=bool)
        for m, u in zip(steps, test.accept, strict=True):
            counts += rng.multinomial(m, probabilities, size=runs)
            wrong |= counts.max(axis=1) >= u
        assert stats.binomtest(int(wrong.sum()), runs, alpha, alternative="greater").pvalue > 1e-6
    assert wrong.sum() == 0


def test_expected_samples_agree_with_simulation():
    test = ExactSequentialTest(0.01, 0.8, n_max=3_000)
    rng = np.random.default_rng(5)
    for p in (0.7, 0.81, 0.95):
        ends = []
        for _ in range(1_500):
            k = n = 0
            for look, u, low in zip(test.looks, test.accept, test.futility, strict=True):
                k, n = k + rng.binomial(look - n, p), int(look)
                if k >= u or k <= low:
                    break
            ends.append(n)
        error = np.std(ends) / math.sqrt(len(ends))
        assert abs(np.mean(ends) - test.expected_samples(p)) < 5 * error  # 5 sigma: 6e-7
        chances = test.operating(p)
        assert chances.certified + chances.futile + chances.exhausted == pytest.approx(1, abs=1e-9)


def test_futility_gives_up_on_the_hopeless_and_not_on_the_borderline():
    test = ExactSequentialTest(0.001, 0.8413, n_max=100_000, gamma=0.05)
    assert test.expected_samples(0.5) < 100
    borderline = test.accept[-1] / test.looks[-1]
    assert test.operating(borderline).futile <= 0.05 * (1 + 1e-6)
    patient = ExactSequentialTest(0.001, 0.8413, n_max=100_000, gamma=0.0)
    assert patient.expected_samples(0.5) > 99_000
    assert np.array_equal(patient.accept, test.accept)  # giving up is never paid with alpha


def test_spending_is_a_spending_function():
    looks = plan_looks(16, 1.15, 100_000)
    for p in (0.5, 0.84, 0.999):
        spent = spending(looks, p, 0.001)
        assert spent[-1] == 0.001
        assert np.all(np.diff(spent) >= 0)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(1, 200), growth=st.floats(1.001, 3.0), n_max=st.integers(1, 3_000))
def test_looks_increase_and_end_at_n_max(first, growth, n_max):
    looks = plan_looks(first, growth, n_max)
    assert looks[-1] == n_max
    assert looks[0] == min(first, n_max)
    assert np.all(np.diff(looks) >= 1)


@settings(max_examples=40, deadline=None)
@given(
    alpha=st.floats(1e-6, 0.4),
    p_target=st.floats(0.5, 0.999),
    n_max=st.integers(1, 2_000),
    first=st.integers(1, 64),
    growth=st.floats(1.05, 2.0),
)
def test_no_settings_make_an_unsound_plan(alpha, p_target, n_max, first, growth):
    test = ExactSequentialTest(alpha, p_target, n_max, first, growth)
    assert test.false_certification <= alpha
    assert test.error_probability(p_target) <= alpha
    assert np.all(2 * test.accept > test.looks)


@pytest.mark.parametrize(
    "bad",
    [
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"alpha": float("nan")},
        {"p_target": 0.49},
        {"p_target": 1.0},
        {"p_target": float("nan")},
        {"n_max": 0},
        {"n_max": 1.5},
        {"first": 0},
        {"growth": 1.0},
        {"growth": float("inf")},
        {"gamma": -0.1},
        {"gamma": 0.5},
    ],
)
def test_bad_settings_are_named(bad):
    with pytest.raises(InvalidSetting) as caught:
        ExactSequentialTest(**({"alpha": 0.001, "p_target": 0.9} | bad))
    assert caught.value.why
    assert caught.value.remedy


def test_plans_are_cached_and_read_only():
    a, b = ExactSequentialTest(0.001, 0.9), ExactSequentialTest(0.001, 0.9)
    assert a.accept is b.accept
    with pytest.raises(ValueError, match="read-only"):
        a.accept[0] = 0
