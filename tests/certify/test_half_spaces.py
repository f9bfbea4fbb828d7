"""Half-spaces have exactly known radii: the whole road from votes to records, checked against them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import certify
from certify.radii import RADII, formula_table

DIMS = (2, 3, 10, 64, 784, 3072)
CASES = 200
ALPHA = 0.001


class HalfSpace:
    """Class 0 where w.x < b, class 1 elsewhere, |w| = 1: the radius at x is |b - w.x|."""

    def __init__(self, dim: int, distance: float, seed: int) -> None:
        w = np.random.default_rng(seed).standard_normal(dim)
        self.w = torch.tensor(w / np.linalg.norm(w), dtype=torch.float32)
        self.distance = distance

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        side = x.flatten(1) @ self.w - self.distance
        return torch.stack([-side, side], dim=1)


def certified(dim: int, distance: float, seed: int, **options) -> certify.Record:
    g = certify.Smoothed(
        HalfSpace(dim, distance, seed),
        sigma=1.0,
        num_classes=2,
        noise="gaussian",
        bounds=None,
        batch_size=1000,
    )
    return g.certify(torch.zeros(1, dim), [0], alpha=ALPHA, seed=seed, ids=[seed], **options)[0]


@pytest.fixture(scope="module")
def fixed_records():
    rng = np.random.default_rng(11)
    cases = [(DIMS[i % len(DIMS)], float(rng.uniform(0.1, 2.5))) for i in range(CASES)]
    cases = [(d if d < 700 or i % 4 == 0 else 64, t) for i, (d, t) in enumerate(cases)]
    return [(d, t, certified(d, t, i, mode="fixed", n0=100, n=10_000)) for i, (d, t) in enumerate(cases)]


def test_cohens_radius_never_exceeds_the_truth(fixed_records):
    """At alpha = 0.001, more than 4 of 200 wrong has probability 3e-6 for a correct procedure."""
    wrong = sum(r.certified and r.radius > t for _, t, r in fixed_records)
    assert wrong <= 4
    assert stats.binom.sf(4, CASES, ALPHA) < 1e-5


def test_cohens_radius_is_nearly_tight(fixed_records):
    ratios = [r.radius / t for _, t, r in fixed_records if r.certified]
    assert len(ratios) >= 0.9 * CASES
    assert np.median(ratios) >= 0.9


def test_printed_radius_exceeds_the_truth_on_most(fixed_records):
    printed = [
        {row["name"]: row for row in formula_table(r, 1.0, d)}["as_printed"]["radius"] > t
        for d, t, r in fixed_records
        if r.certified
    ]
    assert np.mean(printed) > 0.5


def test_every_sound_formula_stays_below(fixed_records):
    for d, t, r in fixed_records:
        if r.certified and r.radius <= t:
            for f in RADII.values():
                if f.sound:
                    assert f.radius(r.p_lower, r.pb_upper, 1.0, d) <= t


@pytest.mark.parametrize("mode", ["radius", "grid", "decide", "fixed"])
def test_lattice_noise_on_an_axis_aligned_half_space(mode):
    """Between two grid points the rounded normal sees the very same half-space: radius t exactly."""
    step, t = 2.0**-6, 40.5 * 2.0**-6

    def model(x):
        side = x[:, 0] - t
        return torch.stack([-side, side], dim=1)

    options = {
        "radius": {},
        "grid": {"step": 0.25},
        "decide": {"radius": 0.5},
        "fixed": {"n0": 100, "n": 10_000},
    }
    g = certify.Smoothed(model, sigma=0.5, num_classes=2, grid=step, bounds=(-4.0, 4.0), batch_size=500)
    run = g.certify(torch.zeros(20, 3), [0] * 20, mode=mode, seed=3, n_max=20_000, **options[mode])
    assert all(r.certified and r.label == 0 for r in run)
    # One of 20 wrong has probability 2 %, two 2e-4.
    assert sum(r.radius > t for r in run) <= 1
    assert np.median([r.radius for r in run]) >= (0.5 if mode in ("grid", "decide") else 0.85 * t)
    assert math.isclose(run.settings["diffusion_sigma"], 0.5 / math.sqrt(2))
