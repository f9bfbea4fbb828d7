"""Attack and certificate about the same smoothed classifier: the sandwich must close."""

import dataclasses

import numpy as np
import pytest
import torch

import certify
from attacks import AttackStatus, Budget, Threat, attack, challenge
from certify.errors import InvalidInput
from certify.records import Run
from tests.attacks.models import at_distances, half_space

BUDGET = Budget(confirm_samples=2000)


@pytest.fixture(scope="module", params=["lattice", "gaussian"])
def certified(request):
    model, normal = half_space(16, steepness=3.0)
    lattice = request.param == "lattice"
    g = certify.Smoothed(
        model, 0.5, num_classes=2, noise=request.param, grid=1 / 16 if lattice else None, bounds=(-4.0, 4.0)
    )
    x = at_distances(normal, torch.linspace(0.2, 1.2, 8)).clamp(-4, 4)
    x = g.to_grid(x)
    y = (x @ normal < 0).long()
    run = g.certify(x, y, mode="fixed", n=4000, alpha=1e-3, seed=5)
    return g, x, y, run


def test_no_confirmed_distance_is_below_a_certified_radius(certified):
    g, x, y, run = certified
    broken = attack(g, x, y, threat=Threat(2, bounds=g.bounds), preset="smoothed", seed=1, budget=BUDGET)
    assert broken.counts()["broken"] >= 6
    assert run.contradictions(broken) == []
    ratios = [r.radius / o.distance for r, o in zip(run, broken, strict=True) if o.broken]
    assert np.median(ratios) >= 0.75


def test_a_right_certificate_withstands_the_challenge(certified):
    g, x, _, run = certified
    tried = challenge(g, run, x, seed=1, budget=BUDGET)
    assert len(tried) == sum(r.certified for r in run)
    assert {o.preset for o in tried} == {tried.preset, "challenge"}
    assert tried.counts()["broken"] == 0
    assert run.contradictions(tried) == []


def test_a_wrong_certificate_is_exposed(certified):
    g, x, _, run = certified
    liar = Run([dataclasses.replace(r, radius=1.5 * r.radius + 0.2) for r in run], run.settings, "")
    tried = challenge(g, liar, x, seed=1, budget=BUDGET)
    hits = liar.contradictions(tried)
    assert len(hits) >= 6
    assert all(h.distance <= liar[h.index].radius for h in hits)


def test_a_wrong_class_is_exposed_at_the_input_itself(certified):
    g, x, _, run = certified
    liar = Run(
        [dataclasses.replace(r, label=1 - r.label) if r.certified else r for r in run], run.settings, ""
    )
    seen = []
    tried = challenge(g, liar, x, seed=1, budget=BUDGET, on_outcome=seen.append)
    assert {o.status for o in tried} == {o.status for o in seen} == {AttackStatus.BROKEN}
    assert len(liar.contradictions(tried)) == len(tried)


def test_a_ball_is_attacked_even_where_the_prediction_abstains(certified):
    g, x, _, run = certified
    few = Budget(confirm_samples=4)  # four samples never reach the level of a prediction
    tried = challenge(g, run, x, seed=1, budget=few)
    assert all(o.clean_correct and o.backwards > 0 for o in tried)


def test_a_challenge_needs_the_inputs_and_something_to_attack(certified):
    g, x, _, run = certified
    with pytest.raises(InvalidInput, match="not among the inputs"):
        challenge(g, run, x[:2])
    with pytest.raises(InvalidInput, match="nothing to challenge"):
        challenge(g, Run([], run.settings, ""), x)
