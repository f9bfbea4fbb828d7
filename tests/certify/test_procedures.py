"""The procedures the engine drives: contract, coverage of every mode, and what a log costs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certify.bounds import binomial_lower
from certify.errors import InvalidCounts, InvalidSetting
from certify.procedures import MODES, Fixed, Radius, make_procedure
from certify.records import Status
from certify.sequential.nested import NestedTests
from certify.sequential.walks import crossing


def run(procedure, probabilities, rng):
    progress, counts, n = procedure.start(), np.zeros(len(probabilities), dtype=np.int64), 0
    while (wanted := progress.wanted()) is not None:
        assert wanted > n
        counts = counts + rng.multinomial(wanted - n, probabilities)
        n = wanted
        progress.look(counts)
    outcome = progress.outcome()
    assert outcome.samples == n
    return outcome


def small(mode, alpha, n_max=400, **options):
    options = {"decide": {"radius": 0.25}, "grid": {"step": 0.25}, "fixed": {"n0": 30}}.get(
        mode, {}
    ) | options
    return make_procedure(mode, alpha=alpha, sigma=0.5, n_max=n_max, **options)


@pytest.mark.parametrize("mode", MODES)
def test_an_easy_input_is_certified_and_a_hard_one_is_not(mode):
    procedure, rng = small(mode, 0.001, n_max=5_000), np.random.default_rng(0)
    easy = run(procedure, [0.01, 0.98, 0.01], rng)
    assert (easy.status, easy.label) == (Status.CERTIFIED, 1)
    assert easy.radius(0.5) > 0.2
    assert easy.p_lower <= 0.98 <= easy.p_upper
    assert easy.pb_upper == pytest.approx(1 - easy.p_lower)
    assert easy.pb_upper >= 1 - easy.p_lower
    hard = run(procedure, [0.34, 0.33, 0.33], rng)
    assert (hard.status, hard.label, hard.radius(0.5)) == (Status.ABSTAINED, None, 0.0)
    assert procedure.statistic == "counts"
    assert "alpha" in procedure.settings()
    assert procedure.guarantee().endswith(".")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("alpha", "runs"), [(0.05, 1_000), (0.001, 2_500)])
def test_coverage(mode, alpha, runs):
    """A certificate beyond p_A is a miss; binomial test, false alarm below 1e-6 per case."""
    procedure, rng = small(mode, alpha), np.random.default_rng(3)
    target = float(stats.norm.cdf(0.5))  # 0.25 / 0.5: a target of decide, grid and radius mode
    for p in (target - 1e-9, 0.5 - 1e-9):
        misses = 0
        for _ in range(runs):
            outcome = run(procedure, [p, 1 - p - 0.01, 0.01], rng)
            wrong_label = outcome.label not in (None, int(p < 0.49))
            misses += outcome.label is not None and (outcome.p_lower > p or wrong_label)
        assert stats.binomtest(misses, runs, alpha, alternative="greater").pvalue > 1e-6


def test_decide_and_grid_return_the_very_radii_that_were_asked_for():
    rng = np.random.default_rng(1)
    decided = run(make_procedure("decide", sigma=0.25, radius=0.1), [0.95, 0.05], rng)
    assert decided.radius(0.25) == 0.1
    graded = run(make_procedure("grid", sigma=0.25, step=0.1, n_max=20_000), [0.95, 0.05], rng)
    assert graded.radius(0.25) in (0.3, 0.30000000000000004, 0.4)


def test_targets_are_rounded_up_and_pay_for_the_noise():
    procedure = make_procedure("decide", sigma=1.0, radius=1.0, tv=1e-4)
    assert procedure.p_target >= stats.norm.cdf(1.0)
    assert procedure.test.p_target == procedure.p_target + 1e-4
    grid = make_procedure("grid", sigma=1.0, step=1.0, tv=1e-4, n_max=5_000)
    assert grid.tests.targets[0] >= 0.5 + 1e-4
    fixed = run(Fixed(0.001, 10, 1_000, tv=0.01), [1.0, 0.0], np.random.default_rng(0))
    assert fixed.p_lower == binomial_lower(1_000, 1_000, 0.001) - 0.01


def test_fixed_never_reuses_its_selection_samples():
    progress = Fixed(0.001, 50, 100).start()
    progress.look(np.array([50, 0]))
    progress.look(np.array([50, 100]))  # all fresh samples went to the other class
    outcome = progress.outcome()
    assert (outcome.status, outcome.counts) == (Status.ABSTAINED, (0, 100))


def test_samples_without_a_class_vote_for_nobody():
    progress = make_procedure("decide", sigma=0.25, radius=0.25).start()
    while (wanted := progress.wanted()) is not None:
        progress.look(np.array([wanted // 2, 0]))
    assert progress.outcome().status is Status.ABSTAINED


@pytest.mark.parametrize(
    "bad", [np.array([-1, 2]), np.array([40, 40]), np.array([0.5, 1.0]), np.zeros((2, 2))]
)
def test_impossible_counts_are_refused(bad):
    for mode in MODES:
        with pytest.raises(InvalidCounts):
            small(mode, 0.001).start().look(bad)


def test_outcome_before_the_end_is_an_error():
    for mode in MODES:
        with pytest.raises(RuntimeError):
            small(mode, 0.001).start().outcome()


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "adaptive"},
        {"mode": "decide"},
        {"mode": "grid"},
        {"mode": "grid", "step": 0.0},
        {"mode": "grid", "step": 1e-5},
        {"mode": "decide", "radius": -0.1},
        {"mode": "decide", "radius": float("nan")},
        {"mode": "decide", "radius": 1.0},  # 4 sigma: 100,000 unanimous votes are not enough
        {"mode": "decide", "radius": 10.0},
        {"mode": "radius", "radius": 0.5},
        {"mode": "radius", "slack": 1.0},
        {"mode": "radius", "n_max": 5},
        {"mode": "fixed", "slack": 0.1},
        {"mode": "fixed", "n0": 0},
        {"mode": "fixed", "n": -3},
        {"mode": "radius", "sigma": 0.0},
        {"mode": "radius", "alpha": 0.7},
        {"mode": "grid", "step": 0.25, "n_max": 4},
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(InvalidSetting) as caught:
        make_procedure(**({"sigma": 0.25} | options))
    assert caught.value.remedy


# -- nested tests ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(
    ("mode", "options"), [("grid", {"step": 0.125}), ("grid", {"step": 1.0}), ("radius", {})]
)
def test_nested_plans_keep_to_alpha_at_every_probability(mode, options, alpha):
    tests = make_procedure(mode, alpha=alpha, sigma=0.5, n_max=10_000, **options).tests
    assert np.all(np.diff(tests.accept, axis=0) >= 0)
    assert np.all(2 * tests.accept > tests.looks)
    assert tests.errors.max() <= alpha
    near = tests.targets[:30]
    spots = np.concatenate([near - 1e-12, (near[1:] + near[:-1]) / 2, [0.2, 0.999]])
    assert max(tests.error_probability(float(p)) for p in spots) <= alpha * (1 + 1e-9)


def test_nested_plans_use_the_full_alpha_at_most_targets():
    tests = make_procedure("grid", sigma=0.25, step=0.25).tests
    assert np.median(tests.errors) > 0.95e-3


@settings(max_examples=15, deadline=None)
@given(
    zs=st.lists(st.floats(0.02, 2.5), min_size=1, max_size=5, unique_by=lambda z: round(z, 2)),
    p=st.floats(0.0, 1.0),
    alpha=st.sampled_from([0.2, 0.05, 0.001]),
)
def test_any_grid_is_sound(zs, p, alpha):
    targets = [0.5, *stats.norm.cdf(sorted(zs))]
    looks = np.array([12, 30, 80, 200])
    tests = NestedTests(targets, looks, alpha, lambda looks, p, a: a * looks / looks[-1])
    assert tests.error_probability(p) <= alpha * (1 + 1e-9)


def test_interpolating_between_targets_breaks_alpha_and_flooring_does_not():
    """At p between two targets, a chord of the two boundaries is below the exact boundary."""
    procedure = Radius(alpha=0.001, n_max=20_000)
    tests = procedure.tests

    def error(p, weight_of_next, m):
        chord = (1 - weight_of_next) * tests.accept[m] + weight_of_next * tests.accept[m + step]
        return crossing(tests.looks, np.ceil(chord).astype(np.int64), p)

    step = 40  # targets 0.4 sigma apart, as a coarse calibration table would have them
    worst = 0.0
    for m in range(0, len(tests.targets) - step, step):
        low, high = tests.targets[m], tests.targets[m + step]
        for weight in (0.25, 0.5, 0.75):
            p = low + weight * (high - low)
            worst = max(worst, error(p, weight, m))
            assert crossing(tests.looks, tests.accept[m + step], p) <= 0.001  # floored: the next target
    assert worst > 0.00115


@pytest.mark.parametrize("slack", [0.02, 0.2])
def test_radius_mode_stops_within_its_slack_of_the_fixed_sample_radius(slack):
    procedure, rng = Radius(alpha=0.001, n_max=20_000, slack=slack), np.random.default_rng(2)
    ratios, samples = [], []
    for p in (0.7, 0.9, 0.97, 0.999):
        full = stats.norm.ppf(binomial_lower(math.floor(p * 20_000), 20_000, 0.001))
        for _ in range(10):
            outcome = run(procedure, [p, 1 - p], rng)
            ratios.append(outcome.radius(1.0) / full)
            samples.append(outcome.samples)
    assert np.mean(ratios) > 1 - slack - 0.02
    if slack == 0.2:
        assert np.mean(samples) < 5_000


def test_a_stronger_second_class_never_replaces_a_higher_certificate():
    progress = make_procedure("grid", sigma=1.0, step=0.5, n_max=2_000).start()
    n = progress.wanted()
    progress.look(np.array([n, 0]))
    while (wanted := progress.wanted()) is not None:
        progress.look(np.array([n, wanted - n]))
    assert progress.outcome().label in (0, 1)  # both were seen to lead: one of them, never a crash
