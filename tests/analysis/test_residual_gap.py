"""The residual gap: zero on exact solutions, found on wrong ones, and what it would certify."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.residual_gap import gap_document, radius_with_gap, residual_gap
from certify.errors import InvalidSetting
from certify.radii import RADII

SIGMA, HORIZON = 0.6, 2.0


def smoothed_half_space(x, t):
    """The exact solution of the diffusion phase from the indicator of x_1 > 0."""
    s = SIGMA * math.sqrt(max(0.0, t - (HORIZON - 1)))
    p = (x[:, 0] > 0).double() if s == 0 else torch.special.ndtr(x[:, 0].double() / s)
    return torch.stack([1 - p, p], dim=1)


def test_exact_solution_has_no_gap_beyond_sampling():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    got = residual_gap(smoothed_half_space, x, sigma=SIGMA, horizon=HORIZON, draws=4000)
    assert got.largest <= got.half_width
    assert got.to_json()["low"] == 0.0


def test_a_network_that_ignores_the_diffusion_is_found_out():
    x = torch.tensor([[0.1, 0.0], [3.0, 0.0]])
    got = residual_gap(
        lambda z, t: smoothed_half_space(z, HORIZON - 1), x, sigma=SIGMA, horizon=HORIZON, draws=4000
    )
    truth = 1 - stats.norm.cdf(0.1 / SIGMA)
    assert got.values[0] == pytest.approx(truth, abs=got.half_width)
    assert got.values[1] < 0.01


@settings(max_examples=60, deadline=None)
@given(a=st.floats(0.51, 0.999), share=st.floats(0, 1), eta=st.floats(0, 0.2))
def test_radius_with_gap_is_below_cohen_and_above_what_half_spaces_allow(a, share, eta):
    b = (1 - a) * share
    radius = radius_with_gap(a, b, eta, 0.5)
    clean = RADII["cohen"].radius(a, b, 0.5, 2)
    assert radius <= clean * (1 + 1e-9)
    assert radius >= radius_with_gap(a, b, eta + 0.01, 0.5) * (1 - 1e-9)
    if eta == 0 and b > 1e-12:
        assert radius == pytest.approx(clean, rel=1e-6)


def test_radius_with_gap_solves_its_equation():
    a, b, eta, s = 0.95, 0.03, 0.02, 0.7
    r = radius_with_gap(a, b, eta, s)
    left = stats.norm.cdf(stats.norm.ppf(a - eta) - r / s) - stats.norm.cdf(stats.norm.ppf(b + eta) + r / s)
    assert left == pytest.approx(2 * eta, abs=1e-9)
    assert radius_with_gap(0.5, 0.5, 0.0, 1.0) == 0.0
    assert radius_with_gap(0.6, 0.4, 0.2, 1.0) == 0.0


def test_impossible_settings_are_refused():
    with pytest.raises(InvalidSetting):
        radius_with_gap(0.2, 0.4, 0.0, 1.0)
    with pytest.raises(InvalidSetting):
        residual_gap(smoothed_half_space, torch.zeros(1, 2), sigma=0.0, horizon=2.0)


class Network(torch.nn.Module):
    """Logits of the exact solution, or of one that ignores its last phase."""

    horizon = HORIZON

    def __init__(self, ignores: bool) -> None:
        super().__init__()
        self.ignores = ignores

    def forward(self, x, t=None):
        return smoothed_half_space(x, HORIZON - 1 if self.ignores else t).clamp_min(1e-300).log()


def test_the_document_tells_a_solution_from_a_network_that_ignores_the_diffusion():
    x = torch.tensor([[0.1, 0.0], [3.0, 0.0], [-3.0, 1.0]])
    exact, wrong = (
        gap_document(Network(ignores), x, sigma=SIGMA, path=torch.tensor([[0.2, 0.0]]), draws=4000)
        for ignores in (False, True)
    )
    assert exact["beyond"] == 0
    assert exact["low"] == 0
    # Without a gap the radius is the distance to the boundary.
    assert exact["radius_without_gap"] == pytest.approx(3.0, rel=1e-6)
    assert exact["radius_if_bounded"] < exact["radius_without_gap"]
    assert wrong["beyond"] == 1
    assert wrong["attack_path"]["largest"] == pytest.approx(1 - stats.norm.cdf(0.2 / SIGMA), abs=0.05)
    assert wrong["certified_if_bounded"] == 0, "a gap of 1/3 and more leaves no radius to anyone"
