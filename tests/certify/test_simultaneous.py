"""Radii for all inputs together: Bonferroni, never larger than per input, and jointly right."""

import numpy as np
import pytest
import torch
from scipy import stats

import certify
from certify.bounds import binomial_lower
from certify.errors import InvalidSetting
from certify.simultaneous import joint_level

T = 40.5 / 64


def half_space(x):
    side = x[:, 0] - T
    return torch.stack([-side, side], dim=1)


def smoothed():
    return certify.Smoothed(half_space, 0.5, num_classes=2, grid=2.0**-6, bounds=(-4.0, 4.0), batch_size=1000)


MODES = {"radius": {}, "grid": {"step": 0.25}, "fixed": {"n": 5000}}


@pytest.mark.parametrize("mode", MODES)
def test_smaller_than_per_input_but_not_by_much(mode):
    run = smoothed().certify(torch.zeros(4, 2), mode=mode, n_max=10_000, seed=1, **MODES[mode])
    per_input = np.array([r.radius for r in run])
    joint = np.array(run.simultaneous(inputs=500))
    assert (joint <= per_input).all()
    assert (run.simultaneous() >= joint).all()
    assert (joint > (0.2 if mode == "grid" else 0.85 * per_input)).all()


def test_fixed_mode_is_clopper_pearson_at_alpha_over_m():
    run = smoothed().certify(torch.zeros(3, 2), mode="fixed", n=2000, seed=1)
    p = binomial_lower(run[0].counts[0], 2000, 0.001 / 3) - run.settings["mode_options"]["tv"]
    assert run.simultaneous()[0] == pytest.approx(0.5 * stats.norm.ppf(p), rel=1e-9)


def test_joint_coverage():
    """60 groups of 10 inputs at alpha = 0.2: a group with any wrong radius may occur in 20 % of them.

    Per-input radii at that level fail in far more groups. One-sided binomial test at 1e-4.
    """
    run = smoothed().certify(torch.zeros(600, 2), mode="fixed", n0=10, n=200, alpha=0.2, seed=7)
    wrong_joint = wrong_single = 0
    for g in range(60):
        part = certify.Run(run.records[10 * g : 10 * g + 10], run.settings, run.guarantee)
        wrong_joint += any(r > T for r in part.simultaneous())
        wrong_single += any(r.radius > T for r in part)
    assert stats.binomtest(wrong_joint, 60, 0.2, alternative="greater").pvalue > 1e-4
    assert wrong_single > 40
    assert joint_level(0.001, 500) == pytest.approx(0.606, abs=1e-3)


def test_decide_runs_and_lost_inputs_are_refused():
    run = smoothed().certify(torch.zeros(2, 2), mode="decide", radius=0.25, n_max=2000, seed=1)
    with pytest.raises(InvalidSetting):
        run.simultaneous()
    fixed = smoothed().certify(torch.zeros(2, 2), mode="fixed", n=100, seed=1)
    with pytest.raises(InvalidSetting):
        fixed.simultaneous(inputs=1)


@pytest.mark.parametrize("mode", ["radius", "grid"])
def test_where_unanimous_votes_prove_nothing_together_every_radius_is_zero(mode):
    """8 of 8 votes: 2**-8 < 0.1 proves one input, at 0.1 / 1000 nothing is left to prove."""
    run = smoothed().certify(torch.full((2, 2), 1.5), mode=mode, alpha=0.1, n_max=8, seed=1, **MODES[mode])
    assert all(r.certified for r in run)
    assert (np.array(run.simultaneous()) <= [r.radius for r in run]).all()
    assert run.simultaneous(inputs=1000) == [0.0, 0.0]
