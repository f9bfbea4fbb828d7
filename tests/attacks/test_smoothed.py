import math

import pytest
import torch
from torch import nn

from attacks import AttackStatus, Budget, Threat, attack
from attacks.confirmation import Confirmer
from attacks.geometry import norm
from attacks.smoothed import on_lattice
from tests.attacks.models import at_distances, half_space
from tests.attacks.standin import TinySmoothed

#: Distances from the half-space, in units of sigma = 0.5.
T = torch.linspace(0.1, 1.2, 12)


@pytest.fixture(scope="module")
def smoothed():
    model, normal = half_space(16)
    return TinySmoothed(model, 0.5, 2), at_distances(normal, T), torch.zeros(12, dtype=torch.long)


def test_the_minimal_distance_of_a_smoothed_half_space_is_its_distance(smoothed):
    g, x, y = smoothed
    run = attack(g, x, y, threat=Threat(2, bounds=None), preset="smoothed", seed=0)
    assert run.counts()["broken"] == 12
    for outcome, t in zip(run, T.tolist(), strict=True):
        # Below t is impossible; the test needs a visible gap, which costs about sigma/20.
        assert t * (1 - 1e-3) < outcome.distance < 1.1 * t + 0.15
        assert outcome.smoothed
        assert outcome.prediction == 1
        assert sum(outcome.details["counts"]) == 4000


def test_inside_a_ball_only_what_is_reachable_breaks(smoothed):
    g, x, y = smoothed
    run = attack(g, x, y, threat=Threat(2, 0.6, bounds=None), preset="smoothed", seed=0)
    for outcome, t in zip(run, T.tolist(), strict=True):
        assert outcome.broken == (t < 0.55) or 0.55 <= t <= 0.6
        if outcome.broken:
            assert outcome.distance <= 0.6 * (1 + 1e-6)


def test_a_flip_of_the_base_model_alone_is_not_an_attack():
    """A spike at the input flips the base model at no distance; the smoothed class does not move."""

    class Spike(nn.Module):
        def forward(self, x):
            spike = (x - 0.3).norm(dim=1) < 0.01
            return (
                torch.where(spike[:, None], torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])) + 0 * x[:, :1]
            )

    g = TinySmoothed(Spike(), 0.5, 2)
    run = attack(
        g, torch.full((1, 4), 0.3), torch.tensor([0]), threat=Threat(2, 0.5), preset="smoothed", seed=0
    )
    assert run[0].clean_correct
    assert run[0].status is AttackStatus.SURVIVED


def test_adversarials_are_on_the_lattice_and_in_the_ball():
    model, normal = half_space(16)
    g = TinySmoothed(model, 0.25, 2, bounds=(-4.0, 4.0), grid=1 / 16)
    x = g.to_grid(at_distances(normal, torch.linspace(0.05, 0.4, 6)))
    y = (x @ normal < 0).long()
    run = attack(g, x, y, threat=Threat(2, 0.6, bounds=(-4.0, 4.0)), preset="smoothed", seed=0)
    assert run.counts()["broken"] >= 3
    for outcome in run:
        if outcome.broken:
            steps = outcome.adversarial * 16
            assert (steps == steps.round()).all()
            assert outcome.distance <= 0.6


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_snapping_never_leaves_the_ball(p):
    g = torch.Generator().manual_seed(0)
    to_grid = TinySmoothed(nn.Identity(), 1.0, 2, bounds=(0.0, 1.0), grid=1 / 16).to_grid
    x = to_grid(torch.rand((40, 10), generator=g))
    eps = torch.rand(40, generator=g) + 0.05
    wild = x + torch.randn((40, 10), generator=g)
    wild = x + (wild - x) * (eps / norm(wild - x, p))[:, None]
    found = on_lattice(to_grid, x, wild, eps, p)
    assert (norm(found.double() - x.double(), p) <= eps.double()).all()
    assert torch.equal(found, to_grid(found))
    assert (found != x).flatten(1).any(1).float().mean() > 0.5


def test_the_error_is_divided_by_the_tries_and_never_overspent(smoothed):
    g, x, y = smoothed
    g.asked.clear()
    attack(g, x, y, threat=Threat(2, bounds=None), preset="smoothed", budget=Budget(alpha=0.01, tries=3))
    assert {alpha for _, alpha in g.asked} == {0.01 / 3}
    seeds = [seed for seed, _ in g.asked]
    assert len(set(seeds)) == len(seeds) <= 1 + 3
    confirmer = Confirmer(g, p=2.0, box=(-math.inf, math.inf), seed=0, samples=100, alpha=0.01, tries=3)
    with pytest.raises(ValueError, match="budget"):
        confirmer.confirm(x, y, x, None, list(range(12)), attempt=4)


def test_what_one_noise_draw_believes_is_refused():
    """A ring of the other class around a dominant one: single draws flip, the average does not."""

    class Ring(nn.Module):
        def forward(self, x):
            far = x.norm(dim=1)
            return torch.stack([torch.zeros_like(far), 20 * (0.35 - (far - 1.0).abs())], 1)

    g = TinySmoothed(Ring(), 0.7, 2)
    x = torch.zeros((6, 8))
    budget = Budget(draws=1, refine_draws=1, confirm_samples=2000)
    run = attack(
        g,
        x,
        torch.zeros(6, dtype=torch.long),
        threat=Threat(2, 0.5, bounds=None),
        preset="smoothed",
        budget=budget,
    )
    assert run.counts()["broken"] == 0
