"""Estimates draw numbers of their own, and their intervals allow for everything that was estimated."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from analysis import Linear, Transported, empirical_rademacher, gap_document
from analysis.gibbs import Gibbs, perturbation_bounds
from analysis.result import ASYMPTOTIC, EXACT
from analysis.streams import stream


def test_streams_differ_from_each_other_and_from_what_training_was_seeded_with():
    torch.manual_seed(0)
    training = torch.randn(1000)
    drawn = [
        torch.randn(1000, generator=stream(s, p)) for s in (0, 1) for p in ("bounds", "signs", "weights")
    ]
    for a in range(len(drawn)):
        for other in [training, *drawn[:a]]:
            # Independent normals correlate like N(0, 1/1000): 6 deviations have probability 2e-9.
            assert abs(float(torch.corrcoef(torch.stack([drawn[a], other]))[0, 1])) < 6 / math.sqrt(1000)
    assert torch.equal(torch.randn(9, generator=stream(3, "a")), torch.randn(9, generator=stream(3, "a")))


def test_noise_on_weights_is_not_what_the_weights_began_as():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 2, bias=False)).eval()
    with torch.no_grad():
        nn.init.normal_(net[0].weight)
    began = net[0].weight.detach().clone()
    torch.manual_seed(0)
    assert torch.equal(torch.randn(2, 40), torch.randn(2, 40, generator=torch.Generator().manual_seed(0)))
    x, y = torch.randn(50, 40), torch.randint(0, 2, (50,))
    rows, gibbs = perturbation_bounds(net, x, y, draws=5)
    noise = (gibbs.draw(torch.Generator().manual_seed(rows[0].seed))["0.weight"] - began) / gibbs.scale
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten(), began.flatten()]))[0, 1])) < 6 / math.sqrt(
        80
    )


def test_the_gap_of_a_gibbs_classifier_allows_for_both_of_its_estimates():
    # One weight pair on x = 1: the Gibbs risk is a normal tail on every point, so the true gap is 0.
    net = nn.Sequential(nn.Linear(1, 2, bias=False)).eval()
    net[0].weight.data = torch.tensor([[0.0], [1.0]])
    gibbs = Gibbs.around(net, 0.8)
    risk = float(stats.norm.sf(1.0 / (0.8 * math.sqrt(2))))
    x, y = torch.ones(150, 1), torch.ones(150, dtype=torch.long)
    missed = 0
    for seed in range(40):
        gap = gibbs.gap((x, y), (x, y), draws=40, delta=0.2, predictor="g", generator=stream(seed, "test"))
        assert gap.train_low <= gap.train_error <= gap.train_high
        assert gap.low < gap.value < gap.high
        missed += not gap.low <= 0.0 <= gap.high
        missed += not gap.train_low <= risk <= gap.train_high
    assert missed <= 18  # 8 expected at most; more than 18 with probability below 1e-3


def test_a_smoothed_linear_class_is_bracketed_although_its_points_are_estimated():
    # The flow squares: the mean of (x + s Z)^2 is x^2 + s^2, so the exact complexity is known.
    points = torch.randn(8, 2, generator=stream(0, "points"), dtype=torch.float64)
    exact = empirical_rademacher(Linear(2, 1.0), points**2 + 0.49).value
    inside = 0
    for seed in range(30):
        cls = Transported(Linear(2, 1.0), lambda z: z**2, sigma=0.7, copies=16)
        found = empirical_rademacher(cls, points, generator=stream(seed, "copies"))
        assert found.validity == ASYMPTOTIC
        assert found.terms["complexity_error"] > 0
        inside += found.low <= exact <= found.high
    assert inside >= 27
    assert empirical_rademacher(Transported(Linear(2, 1.0), lambda z: z, sigma=0.0), points).validity == EXACT
    single = Transported(Linear(2, 1.0), lambda z: z**2, sigma=0.7, copies=1)
    assert math.isinf(empirical_rademacher(single, points).high)


def test_two_measured_gaps_share_delta():
    class Field(nn.Module):
        horizon = 2.0

        def forward(self, x, t):
            return torch.cat([x, -x], dim=1)

    x = torch.linspace(-1, 1, 5)[:, None]
    alone = gap_document(Field(), x, sigma=0.5, draws=200, delta=0.1)
    both = gap_document(Field(), x, sigma=0.5, path=x, draws=200, delta=0.1)
    assert (alone["delta"], both["delta"], both["attack_path"]["delta"]) == (0.1, 0.05, 0.05)
    assert both["half_width"] > alone["half_width"]
    assert both["largest"] == alone["largest"]
    assert np.isfinite(both["attack_path"]["largest"])
    assert both["attack_path"]["largest"] != pytest.approx(both["largest"], abs=1e-12)
