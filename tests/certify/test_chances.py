"""Numbers in sentences are rounded against the claim."""

import math

import numpy as np
import pytest
from scipy import stats

from certify.chances import most_wrong


def test_the_published_example():
    j, chance = most_wrong(500, 0.001)
    assert j == 3
    assert chance == pytest.approx(0.00174, abs=2e-5)


@pytest.mark.parametrize("level", [0.05, 0.01, 1e-6])
@pytest.mark.parametrize("alpha", [1e-9, 0.001, 0.05, 0.4])
@pytest.mark.parametrize("inputs", [0, 1, 7, 500, 10_000])
def test_the_smallest_number_that_has_the_level(inputs, alpha, level):
    j, chance = most_wrong(inputs, alpha, level)
    assert stats.binom.sf(j, inputs, alpha) <= chance <= level * (1 + 1e-8)
    assert j == 0 or stats.binom.sf(j - 1, inputs, alpha) > level * (1 - 1e-9)


def test_a_sum_of_terms_agrees():
    total = math.fsum(math.comb(20, k) * 0.05**k * 0.95 ** (20 - k) for k in range(4, 21))
    assert most_wrong(20, 0.05, 0.02)[1] == pytest.approx(total, rel=1e-8)


def test_wrong_certificates_are_at_most_binomial():
    """Each of 200 inputs fails with its own probability, alpha at most: false alarm below 1e-6."""
    rng, alpha, runs = np.random.default_rng(4), 0.05, 4000
    j, chance = most_wrong(200, alpha)
    share = rng.uniform(0.5, 1.0, 200) * alpha
    more = sum(int((rng.random(200) < share).sum() > j) for _ in range(runs))
    assert stats.binomtest(more, runs, chance, alternative="greater").pvalue > 1e-6
