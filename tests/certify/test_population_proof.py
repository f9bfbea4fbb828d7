"""That no weights pay for an input that misses the target: exact arithmetic, on the whole interval."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from certify.population.minorant import best_weights
from certify.population.mixing import law_of_counts
from certify.population.polynomial import chances, largest, lowered
from certify.verification.bernstein import never_positive


def exact(weights, p: Fraction) -> Fraction:
    n = len(weights) - 1
    return sum(
        (Fraction(float(c)) * math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, c in enumerate(weights)),
        Fraction(0),
    )


def true_maximum(weights, p: float) -> float:
    """The largest value on [0, p] at its ends and at the roots of the derivative, to fifty digits."""
    n = len(weights) - 1
    with mpmath.workdps(60):
        powers = [mpmath.mpf(0)] * (n + 1)
        for k, c in enumerate(weights):
            for j in range(n - k + 1):
                powers[k + j] += mpmath.mpf(float(c)) * math.comb(n, k) * math.comb(n - k, j) * (-1) ** j
        slope = [i * powers[i] for i in range(1, n + 1)][::-1]
        while slope and slope[0] == 0:
            slope.pop(0)
        roots = mpmath.polyroots(slope, maxsteps=500, extraprec=400) if len(slope) > 1 else []
        at = [mpmath.mpf(0), mpmath.mpf(p)]
        at += [r.real for r in roots if abs(r.imag) < 1e-25 and 0 < r.real < p]
        return float(max(mpmath.polyval(powers[::-1], x) for x in at))


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.841, 1.0])
def test_the_bound_lies_above_the_true_maximum_and_no_higher_than_the_gap(n, p):
    rng = np.random.default_rng(n)
    for _ in range(4):
        weights = rng.normal(size=n + 1)
        true = true_maximum(weights, p)
        assert true <= largest(weights, p) <= true + 1.1e-6


@pytest.mark.parametrize("n", [1, 3, 25, 80])
def test_designed_weights_are_never_paid_for_a_p_up_to_the_target(n):
    rng = np.random.default_rng(n)
    for p_target in (0.3, 0.691, 0.977):
        p = np.where(rng.random(500) < 0.7, 0.999, rng.random(500))
        weights, expected = best_weights(law_of_counts(rng.binomial(n, p), n), p_target, 2000, 1e-3)
        assert max(weights) <= 1.0
        assert never_positive(weights, p_target)
        for i in range(0, 101, 4):
            assert exact(weights, Fraction(i, 100) * Fraction(p_target)) <= 0
        if n >= 25:
            assert expected > 0.3


@pytest.mark.parametrize("n", [6, 40])
def test_a_tampered_coefficient_is_refused(n):
    rng = np.random.default_rng(1)
    p = np.where(rng.random(800) < 0.6, 0.995, rng.random(800))
    weights, _ = best_weights(law_of_counts(rng.binomial(n, p), n), 0.9, 5000, 1e-3)
    assert never_positive(weights, 0.9)
    touched = chances(n, np.linspace(0.0, 0.9, 2000))
    tight = touched[np.argmax(touched @ weights)]
    for k in np.argsort(tight)[-3:]:  # a weight that matters where the weights are closest to being paid for
        forged = weights.copy()
        forged[k] += 1e-3
        assert not never_positive(forged, 0.9)
    assert not never_positive(weights + 1e-4, 0.9)
    assert not never_positive(weights, 0.93)


def test_the_proof_in_whole_numbers_agrees_with_exact_arithmetic():
    rng = np.random.default_rng(2)
    verdicts = set()
    for _ in range(60):
        weights = rng.normal(size=6) - 0.9
        p = float(rng.random())
        true = true_maximum(weights, p)
        if abs(true) > 1e-9:
            verdicts.add(never_positive(weights, p))
            assert never_positive(weights, p) == (true < 0)
    assert verdicts == {True, False}


def test_a_polynomial_that_keeps_near_zero_is_given_up_on_soon():
    """Its proof would halve intervals for ever; a forger must not keep an auditor waiting."""
    began = time.process_time()
    flat = np.zeros(201)
    flat[::2], flat[1::2] = 1e-30, -1e-30
    assert not never_positive(flat, 0.5)
    assert not never_positive(np.full(1001, 1e-50), 0.9)
    assert never_positive(np.full(1001, -1e-50), 0.9)
    assert time.process_time() - began < 20


def test_weights_are_lowered_by_what_they_exceed_and_no_more():
    weights = np.array([-1.0, 0.2, 0.9, 1.0])
    out = lowered(weights, 0.6)
    moved = true_maximum(weights, 0.6)
    assert np.allclose(weights - out, weights[0] - out[0])
    assert moved <= weights[0] - out[0] <= moved + 3e-6
    assert lowered(np.array([-9.0, -9.0, 2.0]), 0.1)[2] <= 1.0


def test_the_chances_of_counts_are_those_of_exact_arithmetic():
    for p in (Fraction(0), Fraction(1, 3), Fraction(977, 1000), Fraction(1)):
        found = chances(7, np.array([float(p)]))[0]
        for k in range(8):
            assert found[k] == pytest.approx(float(math.comb(7, k) * p**k * (1 - p) ** (7 - k)), abs=1e-13)
