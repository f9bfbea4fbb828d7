"""Error probabilities too small to be computed with are refused by name wherever one enters."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import certify
from analysis import heldout_bound
from attacks.budget import Budget
from certify.bounds import SMALLEST_ALPHA, binomial_interval, binomial_lower, binomial_upper, check_alpha
from certify.dense.correction import holm, p_values, simultaneous_lower
from certify.errors import InvalidSetting
from certify.procedures import make_procedure
from certify.records import Record, Run, Status
from certify.scores.distribution import band_lower
from certify.scores.means import MEAN_BOUNDS
from certify.sequential import ExactSequentialTest
from certify.simultaneous import simultaneous

TINY = 1e-260


def tail_at_least(k, n, p):
    """P(Bin(n, p) >= k), exactly."""
    p = Fraction(p)
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize("exponent", [3, 20, 100, 200, 240, 250])
@pytest.mark.parametrize(("k", "n"), [(1, 2), (7, 60), (33, 60), (59, 60), (60, 60), (971, 1000)])
def test_both_bounds_have_their_level_in_exact_arithmetic(exponent, k, n):
    alpha = 10.0**-exponent
    lower, upper = binomial_lower(k, n, alpha), binomial_upper(n - k, n, alpha)
    assert tail_at_least(k, n, lower) <= Fraction(alpha)
    assert tail_at_least(k, n, 1 - Fraction(upper)) <= Fraction(alpha)


def classifier(sigma=0.5):
    return certify.Smoothed(nn.Linear(2, 2).eval(), sigma, num_classes=2, bounds=None, noise="gaussian")


def a_run(mode="fixed", alpha=1e-249):
    options = {"n": 100, "n0": 10, "alpha": alpha, "tv": 0.0, "n_max": 100, "slack": 0.05}
    settings = {
        "mode": mode, "scores": "votes", "alpha": alpha, "mode_options": options, "noise": "gaussian",
        "sigma": 1.0, "noise_settings": {"sigma": 1.0}, "grid": None, "bounds": None, "norm": "2", "dim": 2,
    }  # fmt: skip
    details = {"look": 0}
    record = Record(0, Status.CERTIFIED, label=0, counts=(100, 0), samples=100, radius=1.0, details=details)
    return Run([record] * 20, settings, "")


@pytest.mark.parametrize(
    "enter",
    [
        lambda: binomial_lower(3, 10, TINY),
        lambda: binomial_upper(3, 10, TINY),
        lambda: binomial_interval(3, 10, 1.5 * SMALLEST_ALPHA),
        lambda: check_alpha(5e-324),
        lambda: ExactSequentialTest(TINY, 0.7, 100),
        lambda: make_procedure("fixed", sigma=1.0, alpha=TINY),
        lambda: make_procedure("fixed", sigma=1.0, alpha=1e-249, scores="distribution"),
        lambda: make_procedure("radius", sigma=1.0, alpha=TINY, scores="soft"),
        lambda: classifier().certify(torch.zeros(1, 2), alpha=TINY),
        lambda: classifier().predict(torch.zeros(1, 2), n=10, alpha=TINY, seed=0),
        lambda: simultaneous(a_run()),
        lambda: simultaneous(a_run("radius")),
        lambda: holm(np.full(1000, 1e-260), 1e-248),
        lambda: simultaneous_lower(np.full((30, 30), 9), 9, 1e-248),
        lambda: band_lower(np.arange(5), 5, 1e-250),
        lambda: heldout_bound(1, 10, TINY),
        lambda: Budget(alpha=TINY),
        lambda: Budget(alpha=1e-249, tries=1000),
        *[lambda bound=bound: bound.lower([0.5, 0.5], TINY) for bound in MEAN_BOUNDS.values()],
    ],
)
def test_it_is_refused_by_name_wherever_it_enters(enter):
    with pytest.raises(InvalidSetting, match="too small"):
        enter()


def test_pixels_share_alpha_and_are_refused_before_any_sample():
    def scores(x):
        return torch.cat([x, -x], dim=1)

    calls = []
    g = certify.SmoothedSegmentation(
        lambda x: (calls.append(len(x)), scores(x))[1], 0.5, num_classes=2, bounds=None, noise="gaussian"
    )
    before = len(calls)
    with pytest.raises(InvalidSetting, match="divided by 64"):
        g.certify(torch.zeros(1, 1, 8, 8), alpha=1e-249, n=10)
    assert len(calls) == before


def test_p_values_never_fall_to_zero():
    found = p_values(np.array([10_000, 9_000, 0]), 10_000, 0.5)
    assert found[0] == found[1] == SMALLEST_ALPHA  # the true ones are about 1e-3010 and 1e-1600
    assert found[2] == 1.0
    assert holm(found, 1e-3).tolist() == [True, True, False]


def test_where_no_solution_is_found_nothing_is_bounded():
    assert binomial_upper(99, 100, 1e-200) <= 1.0
    assert binomial_lower(1, 100, 1e-200) >= 0.0
    for k in range(1, 100):
        lower, upper = binomial_lower(k, 100, 1e-249), binomial_upper(k, 100, 1e-249)
        assert 0.0 <= lower <= k / 100 <= upper <= 1.0
