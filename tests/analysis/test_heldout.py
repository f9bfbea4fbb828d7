"""Held-out bounds, the kl inverse, and PAC-Bayes forms against oracles and simulation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from analysis.heldout import (
    gap_from_counts,
    heldout_bound,
    kl_bernoulli,
    kl_inverse,
    measured_gap,
    risk_at_radius,
)
from analysis.pac_bayes import catoni, gibbs_risk_upper, kl_form, mcallester, pac_bayes_bounds
from certify.errors import InvalidInput, InvalidSetting
from certify.records import Record, Status


@settings(max_examples=100, deadline=None)
@given(q=st.floats(0, 1), c=st.floats(0, 5))
def test_kl_inverse_is_rounded_outward(q, c):
    p = kl_inverse(q, c)
    assert q <= p <= 1
    assert p == 1.0 or kl_bernoulli(q, p) >= c * (1 - 1e-9) - 1e-12


@pytest.mark.parametrize("c", [0.0, 1e-6, 0.3, 4.0])
def test_kl_inverse_at_zero_has_the_closed_form(c):
    assert kl_inverse(0.0, c) == pytest.approx(1 - math.exp(-c), rel=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 30), (3, 100), (50, 361)])
def test_test_set_bound_agrees_with_statsmodels(k, n):
    upper = proportion_confint(k, n, alpha=0.1, method="beta")[1]
    assert heldout_bound(k, n, 0.05).value == pytest.approx(upper, rel=1e-9)


def test_test_set_bound_covers():
    # 2,000 test sets at 95 %: fails by chance with probability below 1e-4.
    rng = np.random.default_rng(0)
    bound = {k: heldout_bound(k, 80, 0.05).value for k in range(81)}
    hits = sum(bound[int(k)] >= 0.07 for k in rng.binomial(80, 0.07, size=2000))
    assert stats.binomtest(hits, 2000, 0.95, alternative="less").pvalue > 1e-4


def test_gap_interval_is_the_test_interval_shifted():
    gap = gap_from_counts(10, 1000, 30, 300)
    low, high = proportion_confint(30, 300, alpha=0.05, method="beta")
    assert gap.value == pytest.approx(0.09)
    assert (gap.low, gap.high) == pytest.approx((low - 0.01, high - 0.01), rel=1e-6)


def test_gap_of_a_known_predictor():
    x, y = torch.arange(10.0)[:, None], torch.arange(10) % 2
    gap = measured_gap(lambda z: torch.zeros(len(z), dtype=torch.long), (x, y), (x[:5], y[:5]))
    assert (gap.train_error, gap.test_error) == (0.5, 0.4)


def records(radii, correct):
    return [
        Record(i, Status.CERTIFIED, label=1, target=1 if good else 0, radius=r)
        for i, (r, good) in enumerate(zip(radii, correct, strict=True))
    ]


def test_risk_at_a_radius_counts_what_is_not_certified():
    rows = risk_at_radius(records([0.1, 0.5, 0.9, 2.0], [True, True, False, True]), [0.0, 0.4, 1.0])
    assert [row.terms["not_certified"] for row in rows] == [1, 2, 3]
    assert rows[0].value < rows[1].value < rows[2].value <= 1
    with pytest.raises(InvalidInput):
        risk_at_radius([], [0.0])


@settings(max_examples=60, deadline=None)
@given(risk=st.floats(0, 0.6), kl=st.floats(0, 200), n=st.integers(20, 5000))
def test_kl_form_is_the_sharpest_of_the_two_without_a_parameter(risk, kl, n):
    assert kl_form(risk, kl, n, 0.05) <= mcallester(risk, kl, n, 0.05) * (1 + 1e-12)
    assert kl_form(risk, kl, n, 0.05) >= risk
    assert catoni(risk, kl, n, 0.05) >= risk * (1 - 1e-12)
    assert kl_form(risk, kl, n, 0.05) <= kl_form(risk, kl + 1, n, 0.05)


def test_catoni_covers_a_finite_gibbs_family_and_so_do_the_others():
    # Q = P (KL = 0) over 3 coin classifiers: true Gibbs risk .3. Failure rate must be below delta.
    rng = np.random.default_rng(1)
    risks, n, misses = np.array([0.2, 0.3, 0.4]), 100, {"kl": 0, "mc": 0, "cat": 0}
    for _ in range(500):
        empirical = float((rng.binomial(n, risks) / n).mean())
        misses["kl"] += kl_form(empirical, 0.0, n, 0.05) < 0.3
        misses["mc"] += mcallester(empirical, 0.0, n, 0.05) < 0.3
        misses["cat"] += catoni(empirical, 0.0, n, 0.05) < 0.3
    assert all(stats.binomtest(m, 500, 0.05, alternative="greater").pvalue > 1e-4 for m in misses.values())


def test_sampled_gibbs_risk_is_bounded_with_the_stated_confidence():
    rng = np.random.default_rng(2)
    misses = sum(gibbs_risk_upper(float(rng.beta(2, 8, 30).mean()), 30, 0.05) < 0.2 for _ in range(1000))
    assert stats.binomtest(misses, 1000, 0.05, alternative="greater").pvalue > 1e-4


def test_delta_is_split_between_sampling_and_theorem():
    rows = pac_bayes_bounds(0.1, 5.0, 500, 0.05, draws=100, choices=4, prior="zero", predictor="Gibbs")
    assert rows[0].value == pytest.approx(
        kl_form(gibbs_risk_upper(0.1, 100, 0.005 / 4), 5.0, 500, 0.045 / 4), rel=1e-12
    )
    assert all(row.predictor == "Gibbs" and not row.vacuous for row in rows)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kl_inverse(-0.1, 1.0),
        lambda: kl_form(0.1, -1.0, 100, 0.05),
        lambda: kl_form(0.1, 1.0, 3, 0.05),
        lambda: heldout_bound(1, 10, 0.7),
    ],
)
def test_impossible_settings_are_refused(call):
    with pytest.raises(InvalidSetting):
        call()
