"""Soft scores end to end: a probit classifier whose smoothed boundary is known exactly."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special

import certify

T, BLUR = 0.4, 0.3


def probit(x: torch.Tensor) -> torch.Tensor:
    """Class 1 with probability Phi((x_1 - T) / BLUR): smoothed, its boundary is still x_1 = T."""
    z = (x[:, 0].double() - T) / BLUR
    return torch.stack([torch.special.log_ndtr(-z), torch.special.log_ndtr(z)], dim=1)


def smoothed(**options):
    settings = {"num_classes": 2, "grid": 2.0**-7, "bounds": (-4.0, 4.0), "batch_size": 500} | options
    return certify.Smoothed(probit, 0.5, **settings)


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        ("soft", {"mode": "radius", "n_max": 20_000}),
        ("soft", {"mode": "decide", "radius": 0.2, "n_max": 20_000}),
        ("distribution", {"mode": "fixed", "n": 20_000}),
    ],
)
def test_radius_never_exceeds_the_distance_to_the_boundary(scores, options):
    run = smoothed().certify(torch.zeros(5, 3), [0] * 5, scores=scores, seed=1, **options)
    assert run.settings["scores"] == scores
    assert "averages scores" in run.guarantee
    for r in run:
        assert r.certified
        assert r.label == 0
        assert r.radius <= T
    floor = {"soft": 0.2, "distribution": 0.3}[scores]
    assert np.median([r.radius for r in run]) >= floor


def test_the_distribution_proves_more_than_the_mean():
    """The mean alone proves sigma Phi^-1(E h); the level sets of this classifier are half-spaces."""
    mean_only = 0.5 * special.ndtri(special.ndtr(T / np.hypot(0.5, BLUR)))
    run = smoothed().certify(torch.zeros(3, 2), scores="distribution", mode="fixed", n=50_000, seed=2)
    assert all(r.radius > mean_only for r in run)
    assert mean_only == pytest.approx(0.343, abs=1e-3)


def test_histograms_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4)).eval()
    rows = []
    for size in (1, 7, 64, 500):
        g = certify.Smoothed(net, 0.5, num_classes=4, grid=2.0**-7, bounds=(-4.0, 4.0), batch_size=size)
        run = g.certify(torch.zeros(2, 3), scores="soft", mode="fixed", n=300, seed=3)
        rows.append([(r.radius, r.details["histogram"], r.samples) for r in run])
    assert all(a == b for a, b in itertools.pairwise(rows))


def test_non_finite_scores_count_as_nothing():
    def broken(x):
        return torch.where(x[:, :1] > 0, torch.nan, probit(x))

    g = certify.Smoothed(broken, 0.5, num_classes=2, grid=2.0**-7, bounds=(-4.0, 4.0), batch_size=100)
    record = g.certify(torch.zeros(1, 2), scores="soft", mode="fixed", n=500, seed=0)[0]
    assert record.status is certify.Status.ABSTAINED
