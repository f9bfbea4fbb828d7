"""The radii: order, closed forms on half-spaces, and what the printed formula gets wrong."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special

from certify.radii import RADII, formula_table, radius_down, target_probability
from certify.records import Record, Status

SOUND = [f for f in RADII.values() if f.sound]


def test_sharpest_first_on_a_million_pairs():
    rng = np.random.default_rng(0)
    p_a = rng.random(10**6)
    p_b = rng.random(10**6) * np.minimum(p_a, 1 - p_a)
    value = {name: f.radius(p_a, p_b, 0.5, 10) for name, f in RADII.items()}
    slack = 1e-11
    assert (value["cohen"] >= value["margin"] - slack).all()
    assert (value["margin"] >= value["one_sided"] - slack).all()
    assert (value["margin"] >= value["lipschitz"] - slack).all()
    np.testing.assert_allclose(value["lipschitz"], math.sqrt(20 * math.pi) * value["dimension"], rtol=1e-12)


@given(st.floats(0.5, 1 - 1e-6), st.floats(0.01, 10))
def test_cohen_and_margin_agree_for_two_classes(p_a, sigma):
    cohen = RADII["cohen"].radius(p_a, 1 - p_a, sigma, 1)
    assert RADII["margin"].radius(p_a, 1 - p_a, sigma, 1) == pytest.approx(cohen, rel=1e-6, abs=1e-9)


@given(st.floats(1e-3, 4), st.floats(0.05, 5), st.integers(1, 5000))
@example(t=2.75, sigma=0.34375, dim=1)
def test_half_space(t, sigma, dim):
    """A half-space at distance t: pA = Phi(t / sigma), and the true radius is exactly t."""
    p_a, p_b = special.ndtr(t / sigma), special.ndtr(-t / sigma)
    if p_a == 1.0:
        return
    # ndtr itself is rounded: allow its half ulp to move the radius where the density is thin.
    density = math.exp(-((t / sigma) ** 2) / 2) / math.sqrt(2 * math.pi)
    rounding = sigma * 2**-52 / density
    for f in SOUND:
        assert f.radius(p_a, p_b, sigma, dim) <= t + rounding
    # Probabilities are moved by a few ulps to be on the safe side, too.
    assert RADII["cohen"].radius(p_a, p_b, sigma, dim) == pytest.approx(t, rel=1e-4, abs=16 * rounding)


def test_printed_formula_exceeds_the_true_radius():
    """sigma_p = 1, t = 0.1, d = 2: the printed radius is 35.5 where the truth is 0.1."""
    s = math.sqrt(2)
    p_a = special.ndtr(0.1 / s)
    assert RADII["as_printed"].radius(p_a, 1 - p_a, s, 2) == pytest.approx(35.5, abs=0.05)
    assert RADII["as_printed"].radius(p_a, 1 - p_a, s, 3072) == pytest.approx(1390, abs=1)
    assert math.isinf(RADII["as_printed"].radius(0.5, 0.5, s, 2))
    assert not RADII["as_printed"].sound


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 2))
def test_no_sound_radius_without_a_gap(p_a, p_b, sigma):
    for f in SOUND:
        value = f.radius(p_a, p_b, sigma, 7)
        assert value >= 0
        if p_a <= p_b:
            assert value == 0


@given(st.floats(1e-4, 5), st.floats(0.01, 3))
def test_target_probability_and_radius_round_against_the_claim(ratio, sigma):
    """What decides "radius >= r" is never a smaller probability than the radius of that probability."""
    r = ratio * sigma
    p = target_probability(r, sigma)
    assert p >= special.ndtr(r / sigma)
    density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    assert radius_down(p, sigma) <= r + 2e-12 * sigma / density


def test_radius_of_a_coin_toss_is_zero():
    assert radius_down(0.5, 1.0) == 0.0
    assert radius_down(0.2, 1.0) == 0.0
    assert radius_down(math.nan, 1.0) == 0.0


def test_formula_table_brackets_every_formula():
    record = Record(0, Status.CERTIFIED, label=0, p_lower=0.8, p_upper=0.9, pb_lower=0.05, pb_upper=0.2,
                    samples=100, counts=(85, 10, 5))  # fmt: skip
    rows = {row["name"]: row for row in formula_table(record, 0.25, 784)}
    assert list(rows) == list(RADII)
    assert rows["cohen"]["radius"] == rows["cohen"]["low"] == RADII["cohen"].radius(0.8, 0.2, 0.25, 784)
    for row in rows.values():
        assert row["low"] <= row["high"]
    printed = rows["as_printed"]
    assert printed["low"] < printed["radius"] < printed["high"]
    assert printed["radius"] == pytest.approx(0.25 * 28 / 0.75)


def exact_radius(name, p_a, p_b, sigma, dim):
    """The formula at these float64 arguments, to 60 digits."""
    with mpmath.workdps(60):
        a, b, s = mpmath.mpf(p_a), mpmath.mpf(p_b), mpmath.mpf(sigma)
        if name == "cohen":
            return s / 2 * mpmath.sqrt(2) * (mpmath.erfinv(2 * a - 1) - mpmath.erfinv(2 * b - 1))
        if name == "one_sided":
            return max(mpmath.mpf(0), s * mpmath.sqrt(2) * mpmath.erfinv(2 * a - 1))
        if name == "margin":
            return s * mpmath.sqrt(2) * mpmath.erfinv(a - b)
        if name == "lipschitz":
            return s * mpmath.sqrt(mpmath.pi / 2) * (a - b)
        return s * (a - b) / (2 * mpmath.sqrt(dim))


@pytest.mark.parametrize("formula", SOUND, ids=lambda f: f.name)
def test_every_sound_radius_is_rounded_down_at_ties_at_certainty_and_between(formula):
    rng = np.random.default_rng(1)
    gaps = 10.0 ** rng.uniform(-16, -1, 120)
    near_tie = [(p, p - g) for p, g in zip(rng.uniform(0.2, 1, 120), gaps, strict=True) if p - g > 0]
    near_half = [(0.5 + g, 0.5 - g) for g in gaps[:60]]
    near_one = [(1 - g, g * rng.random()) for g in gaps[60:]]
    apart = [(p, p * q) for p, q in rng.uniform(0.01, 1, (60, 2)).tolist()]
    for p_a, p_b in near_tie + near_half + near_one + apart:
        if not p_b < p_a < 1:
            continue
        claimed = formula.radius(p_a, p_b, 0.25, 784)
        exact = exact_radius(formula.name, p_a, p_b, 0.25, 784)
        assert mpmath.mpf(claimed) <= exact, (p_a, p_b)
        assert claimed == pytest.approx(float(exact), rel=1e-9, abs=1e-14)
