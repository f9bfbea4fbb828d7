"""Statements about robust accuracy hold whether or not every certificate does: alpha is paid for."""

import math

import numpy as np
import pytest
import torch

import certify
from analysis import risk_at_radius
from certify.bounds import binomial_interval, binomial_upper
from certify.records import Record, Run, Status
from reports.evidence import Evidence
from reports.words import headline
from tests.reports.evidence_fixture import stored_run


def record(i, issued, radius):
    """Input i of class 0: certified with its true class, or not at all."""
    if issued:
        return Record(i, Status.CERTIFIED, label=0, target=0, radius=radius)
    return Record(i, Status.ABSTAINED, target=0)


def at_a_tie(inputs, alpha, seed):
    """Inputs on which every certificate with a radius is wrong; each is issued with probability alpha."""
    issued = np.random.default_rng(seed).random(inputs) < alpha
    return [record(i, won, 0.1) for i, won in enumerate(issued)]


def test_where_every_certificate_is_wrong_only_the_bound_with_alpha_holds():
    run = Run(at_a_tie(3000, 0.3, 0), {"alpha": 0.3, "norm": "2"}, "")
    [row] = risk_at_radius(run, [0.1])
    assert row.terms["if_certificates_hold"] < 0.8 < 1.0 == row.value  # the robust risk is 1
    [estimate] = run.accuracy([0.1])
    assert estimate.low > 0.25  # certified accuracy is what its interval says
    assert estimate.robust_low == 0.0  # and proves nothing about robust accuracy
    [row] = risk_at_radius(run.records, [0.1])
    assert "if the certificates hold" in row.name
    assert "if the certificates hold" in row.validity


def test_the_bound_with_alpha_covers_on_half_spaces():
    # Right everywhere within r with probability 0.6, else never; wrong certificates as often as alpha allows.
    alpha, share, n = 0.1, 0.6, 150
    rng = np.random.default_rng(1)
    missed = low_missed = 0
    for _ in range(400):
        robust = rng.random(n) < share
        issued = np.where(robust, rng.random(n) < 0.95, rng.random(n) < alpha)
        records = [record(i, won, 0.5) for i, won in enumerate(issued)]
        run = Run(records, {"alpha": alpha}, "")
        missed += risk_at_radius(run, [0.5], 0.05)[0].value < 1 - share
        low_missed += run.accuracy([0.5])[0].robust_low > share
    assert missed <= 40  # expected at most 20; 40 or more has probability below 2e-5
    assert low_missed <= 40


def test_a_transferred_run_pays_for_both_steps_and_speaks_of_its_own_norm():
    settings = {"alpha": 0.01, "transfer": {"alpha": 0.02}, "norm": "inf"}
    run = Run([Record(i, Status.CERTIFIED, label=1, target=1, radius=0.5) for i in range(50)], settings, "")
    [row] = risk_at_radius(run, [0.25])
    assert row.value == pytest.approx(binomial_upper(0, 50, 0.05) + 0.03)
    assert row.terms["alpha"] == pytest.approx(0.03)
    assert "linf radius 0.25" in row.name
    assert "linf" in row.target
    assert run.accuracy([0.25])[0].robust_low == pytest.approx(binomial_interval(50, 50, 0.05)[0] - 0.03)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.001, "imported": {"format": "locuslab"}}])
def test_nothing_is_said_where_alpha_is_not_known_or_a_log_claims_it(settings):
    run = Run([Record(0, Status.CERTIFIED, label=1, target=1, radius=0.5)], settings, "")
    assert run.accuracy()[0].robust_low is None


def test_report_and_pixels_say_the_same(tmp_path):
    evidence = Evidence.of(stored_run(tmp_path / "r", inputs=40))
    radius = evidence.headline_radius
    ours = evidence.run.accuracy([radius])[0]
    theirs = evidence.certified_accuracy([radius])[0]
    assert theirs.robust_low == ours.robust_low == pytest.approx(ours.low - evidence.alpha)
    assert "Whether or not every proof holds" in " ".join(headline(evidence).details)
    evidence.settings["transfer"] = {"alpha": 0.004}
    assert evidence.alpha == pytest.approx(0.005)
    assert "at most 0.005" in " ".join(headline(evidence).details)


def test_pixels_pay_alpha_too():
    g = certify.SmoothedSegmentation(
        lambda x: torch.cat([x, 0.5 - x], dim=1), 0.25, num_classes=2, bounds=(0.0, 1.0), grid=1 / 255
    )
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x = (x * 255).round() / 255
    run = g.certify(x, (x[:, 0] < 0.25).long(), alpha=0.02, n0=10, n=100, seed=0)
    [row] = run.certified_correct([0.0])
    assert row.robust_low == pytest.approx(max(0.0, row.low - 0.02), abs=1e-12)
    assert math.isfinite(row.value)
