"""The score-distribution radius against oracles whose true radius is known."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from certify.errors import InvalidCounts, InvalidSetting
from certify.procedures import make_procedure
from certify.records import Status
from certify.scores.distribution import (
    band_lower,
    distribution_radius,
    exceedances,
    mean_at,
    score_thresholds,
)

SIGMA = 0.5


def histogram(scores, thresholds):
    bins = np.searchsorted(thresholds, scores, side="right")
    return np.bincount(bins, minlength=len(thresholds) + 1)


class SoftHalfSpace:
    """f(z) = Phi((t + z_1) / slope) for noise z: the smoothed class changes at distance exactly t."""

    def __init__(self, t, slope):
        self.t, self.slope = t, slope
        self.true_radius = t

    def scores(self, rng, n):
        return stats.norm.cdf((self.t + SIGMA * rng.standard_normal(n)) / self.slope)


class SoftInterval:
    """f(z) = 1 / (1 + exp((|z| - width) / slope)) in one dimension, seen from the origin."""

    def __init__(self, width, slope):
        self.width, self.slope = width, slope
        self.true_radius = optimize.brentq(lambda d: self.mean(d) - 0.5, 0, 10)

    def value(self, z):
        return 0.5 * (1 + np.tanh((self.width - np.abs(z)) / (2 * self.slope)))

    def mean(self, distance):
        def weighted(u):
            return self.value(distance + SIGMA * u) * stats.norm.pdf(u)

        return integrate.quad(weighted, -9, 9, limit=200, points=[-(self.width + distance) / SIGMA, 0])[0]

    def scores(self, rng, n):
        return self.value(SIGMA * rng.standard_normal(n))


ORACLES = [SoftHalfSpace(0.3, 1e-9), SoftHalfSpace(0.7, 0.4), SoftInterval(1.0, 0.3), SoftInterval(0.7, 0.05)]


def run(procedure, oracle, rng):
    """Drive a soft procedure with a two-class oracle (the margin score of class 0 is f itself)."""
    progress, n = procedure.start(), 0
    counts = np.zeros((2, len(procedure.thresholds) + 1), dtype=np.int64)
    while (wanted := progress.wanted()) is not None:
        f = oracle.scores(rng, wanted - n)
        counts += np.stack([histogram(f, procedure.thresholds), histogram(1 - f, procedure.thresholds)])
        n = wanted
        progress.look(counts)
    outcome = progress.outcome()
    assert outcome.samples == n
    return outcome


SOFT_MODES = [
    ("soft", "radius", {"n_max": 3_000}),
    ("soft", "decide", {"n_max": 3_000, "radius": 0.3}),
    ("soft", "fixed", {"n": 2_000}),
    ("distribution", "fixed", {"n": 2_000}),
]


@pytest.mark.parametrize("oracle", ORACLES, ids=["votes", "soft-half-space", "interval", "sharp-interval"])
@pytest.mark.parametrize(("scores", "mode", "options"), SOFT_MODES)
def test_no_radius_exceeds_the_true_one_beyond_alpha(scores, mode, options, oracle):
    procedure = make_procedure(mode, scores=scores, sigma=SIGMA, alpha=0.05, **options)
    rng, runs = np.random.default_rng(41), 40
    outcomes = [run(procedure, oracle, rng) for _ in range(runs)]
    misses = sum(o.radius(SIGMA) > oracle.true_radius or o.label == 1 for o in outcomes)
    assert stats.binomtest(misses, runs, 0.05, alternative="greater").pvalue > 1e-6
    if not (mode == "decide" and oracle.true_radius < 0.35):
        assert np.mean([o.status is Status.CERTIFIED for o in outcomes]) > 0.9


@pytest.mark.parametrize("oracle", ORACLES[1:3], ids=["soft-half-space", "interval"])
def test_the_whole_distribution_proves_more_than_the_mean(oracle):
    rng = np.random.default_rng(43)
    both = [make_procedure("fixed", scores=s, sigma=SIGMA, n=100_000) for s in ("soft", "distribution")]
    mean_only, whole = (run(p, oracle, rng).radius(SIGMA) for p in both)
    assert mean_only < 0.85 * whole < whole <= oracle.true_radius
    assert whole > 0.7 * oracle.true_radius


def test_the_empirical_distribution_without_a_band_is_no_certificate():
    """The plug-in radius exceeds the true one again and again; the banded one never."""
    thresholds, rng, n = score_thresholds(64), np.random.default_rng(47), 200
    for oracle in (ORACLES[0], SoftHalfSpace(1.4, 0.05)):
        plug_in = banded = 0
        for _ in range(100):
            reached = exceedances(histogram(oracle.scores(rng, n), thresholds))
            empirical = np.minimum(reached / n, 1 - 1e-16)
            plug_in += SIGMA * distribution_radius(empirical, thresholds) > oracle.true_radius
            band = band_lower(reached, n, 0.001)
            banded += SIGMA * distribution_radius(band, thresholds) > oracle.true_radius
        assert banded == 0
        assert plug_in > 30
    assert SIGMA * distribution_radius(empirical, thresholds) > 2 * oracle.true_radius


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_band_covers_the_whole_distribution_at_once(alpha):
    law, thresholds, rng, runs = stats.beta(3, 0.4), score_thresholds(64), np.random.default_rng(53), 1_500
    truth = law.sf(thresholds)
    misses = 0
    for _ in range(runs):
        reached = exceedances(histogram(law.rvs(300, random_state=rng), thresholds))
        misses += np.any(band_lower(reached, 300, alpha) > truth)
    assert stats.binomtest(int(misses), runs, alpha, alternative="greater").pvalue > 1e-6


def test_votes_give_the_radius_of_the_votes():
    """Scores 0 and 1 only: the integral collapses to Phi(Phi^-1(p) - r)."""
    thresholds = score_thresholds(16)
    band = np.full(16, 0.9)
    assert distribution_radius(band, thresholds) == pytest.approx(stats.norm.ppf(0.9), abs=1e-9)
    assert mean_at(0.0, band, thresholds) == pytest.approx(0.9)


def test_the_band_is_monotone_and_never_certain():
    thresholds = score_thresholds(64)
    band = band_lower(exceedances(histogram(np.ones(1_000_000), thresholds)), 1_000_000, 0.001)
    assert np.all(band < 1)
    assert np.all(np.diff(band) <= 0)
    assert distribution_radius(np.zeros(64), thresholds) == 0.0


def test_exceedances_count_scores_at_or_above_each_threshold():
    thresholds = np.array([0.25, 0.5, 1.0])
    scores = np.array([0.0, 0.25, 0.3, 0.5, 0.99, 1.0])
    assert exceedances(histogram(scores, thresholds)).tolist() == [5, 3, 1]


@pytest.mark.parametrize("scores", ["soft", "distribution"])
def test_wrong_histograms_are_refused(scores):
    procedure = make_procedure("fixed", scores=scores, sigma=SIGMA, n=100)
    bins = len(procedure.thresholds) + 1
    for bad in (np.zeros((2, bins - 1), int), np.zeros(bins, int), np.zeros((2, bins), int)):
        with pytest.raises(InvalidCounts):
            procedure.start().look(bad)


def test_selection_samples_never_enter_the_bound():
    procedure = make_procedure("fixed", scores="soft", sigma=SIGMA, n0=50, n=100)
    progress, bins = procedure.start(), len(procedure.thresholds) + 1
    first, second = np.zeros((2, bins), int), np.zeros((2, bins), int)
    first[0, -1] = first[1, 0] = 50
    progress.look(first)
    while (wanted := progress.wanted()) is not None:
        second[0, 0] = second[1, -1] = wanted - 50
        progress.look(first + second)
    assert progress.outcome().samples == 150
    assert progress.outcome().status is Status.ABSTAINED
    assert progress.outcome().p_lower == 0.0


def test_modes_without_a_soft_version_say_so():
    for scores, mode, options in (
        ("soft", "grid", {"step": 0.25}),
        ("distribution", "radius", {}),
        ("hard", "radius", {}),
    ):
        with pytest.raises(InvalidSetting) as caught:
            make_procedure(mode, scores=scores, sigma=SIGMA, **options)
        assert "scores" in caught.value.why
    with pytest.raises(InvalidSetting, match="Gaussian"):
        make_procedure("fixed", scores="distribution", sigma=SIGMA, needed=lambda r: (1 + r) / 2)
    with pytest.raises(InvalidSetting):
        score_thresholds(1)
    with pytest.raises(InvalidCounts):
        band_lower([11], 10, 0.05)
    with pytest.raises(InvalidCounts):
        exceedances(np.array([1.5, 2.0]))
