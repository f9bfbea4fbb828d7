"""The last look without a rival near half: all of alpha, and not more, for any classes."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from certify.procedures import make_procedure
from certify.records import Status
from certify.sequential import ExactSequentialTest
from certify.sequential.boundaries import plan_looks, spending
from certify.sequential.nested import NestedTests
from certify.sequential.uncontested import mirrored_boundary, second_largest
from certify.verification.plan import Plan, PlanFault
from certify.verification.witness import plan_of
from tests.certify.sample_run import record as sample


def false_claims(looks, accept, rule, shares, target, counted=3):
    """P(some class of three with p < target is ever claimed), by the full law of their counts.

    ``rule`` is (votes, rival) of the last look. The claim of a true class ends nothing. Only the first
    ``counted`` of the three are classes; the others are samples without one.
    """
    law, n, out = np.ones((1, 1)), 0, 0.0
    for j, (look, u) in enumerate(zip(looks, accept, strict=True)):
        a, b = np.mgrid[: look - n + 1, : look - n + 1]
        with np.errstate(invalid="ignore"):  # scipy's own, at impossible counts
            steps = stats.multinomial.pmf(np.stack([a, b, look - n - a - b], axis=-1), look - n, shares)
        law, n = np.maximum(signal.fftconvolve(law, steps), 0), look
        a, b = np.mgrid[: look + 1, : look + 1]
        counts = np.stack([a, b, look - a - b])[:counted]
        order = np.sort(counts, axis=0)
        claimed = order[-1] >= u
        if rule is not None and j + 1 == len(looks):
            claimed |= (order[-1] >= rule[0]) & (order[-2] <= rule[1])
        false = claimed & (np.array(shares)[counts.argmax(axis=0)] < target)
        out += law[false].sum()
        law = np.where(false, 0.0, law)
    return out


@pytest.fixture(scope="module")
def small():
    looks, alpha, target = np.array([40, 160, 320]), 0.05, 0.5 + 1e-9
    accept, error, rule = mirrored_boundary(looks, target, alpha * np.array([0.1, 0.25, 1.0]))
    assert rule is not None
    return looks.tolist(), accept.tolist(), rule, error, alpha, target


def test_no_three_classes_are_wrongly_claimed_more_often_than_alpha(small):
    looks, accept, rule, error, alpha, target = small
    assert error <= alpha
    worst = 0.0
    some = (0.0, 0.2, 0.4, 0.43, 0.46, 0.48, 0.5, 0.52, 0.56, 0.7)
    for a, b in [s for s in itertools.product(some, repeat=2) if sum(s) <= 1 and s[0] >= s[1]]:
        wrong = false_claims(looks, accept, (rule.votes, rule.rival), (a, b, 1 - a - b), target)
        assert wrong <= error + 1e-12
        worst = max(worst, wrong)
    assert worst > 0.8 * alpha


@pytest.mark.parametrize("shares", [(0.5, 0.0, 0.5), (0.5, 0.3, 0.2), (0.48, 0.48, 0.04), (0.25, 0.25, 0.5)])
def test_samples_without_a_class_are_no_way_around_alpha(small, shares):
    looks, accept, rule, error, alpha, target = small
    wrong = false_claims(looks, accept, (rule.votes, rule.rival), shares, target, counted=2)
    assert wrong <= error
    assert (wrong > 0.75 * alpha) == (shares[0] == 0.5)  # one class at the target has nearly all of it


def test_nested_targets_and_wrong_labels_stay_below_alpha_together():
    """Two classes: a false claim is a target too high for the first, or the second class at all."""
    looks, alpha, tv = plan_looks(16, 1.5, 120), 0.2, 1e-9
    tests = NestedTests([0.5 + tv, 0.52, 0.6], looks, alpha, spending)
    worst = 0.0
    assert tests.uncontested is not None
    assert tests.uncontested.votes < tests.accept[0, -1]
    for p in (0.5, 0.5 + tv, 0.51, 0.52 - tv, 0.52, 0.56, 0.6 - tv, 0.6):
        law, n, wrong = np.ones(1), 0, 0.0
        for j, look in enumerate(looks.tolist()):
            law, n = np.convolve(law, stats.binom.pmf(np.arange(look - n + 1), look - n, p)), look
            for k in range(n + 1):
                best = tests.reached(j, max(k, n - k), min(k, n - k))
                if best and (p if 2 * k > n else 1 - p) < tests.targets[best - 1]:
                    wrong, law[k] = wrong + law[k], 0.0
        assert wrong <= tests.errors.max() <= alpha
        worst = max(worst, wrong)
    assert worst > 0.8 * alpha


def test_the_rule_gives_one_class_what_two_would_share(small):
    looks, accept, rule, _error, alpha, target = small
    shares = (0.5, 0.3, 0.2)
    assert false_claims(looks, accept, None, shares, target) < 0.6 * alpha
    assert false_claims(looks, accept, (rule.votes, rule.rival), shares, target) > 0.75 * alpha


def test_without_the_rival_two_classes_would_break_alpha(small):
    looks, accept, rule, _error, alpha, target = small
    careless = false_claims(looks, accept, (rule.votes, looks[-1]), (0.5, 0.5, 0.0), target)
    assert careless > alpha * 1.05


@pytest.mark.parametrize("n_max", [1_000, 10_000, 100_000])
def test_an_uncontested_class_is_judged_at_the_full_alpha(n_max):
    test = ExactSequentialTest(0.001, 0.5, n_max)
    single = stats.binom.isf(0.001, n_max, 0.5) + 1  # one look, one class, all of alpha
    half = stats.binom.isf(0.0005, n_max, 0.5) + 1
    assert single <= test.uncontested.votes < half <= test.accept[-1]
    assert test.uncontested.votes - single <= 0.1 * math.sqrt(n_max) / 2
    assert test.uncontested.rival > n_max / 2 - 4 * math.sqrt(n_max)


def test_there_is_no_rule_where_one_class_has_all_of_alpha_already():
    assert ExactSequentialTest(0.001, 0.7).uncontested is None
    assert ExactSequentialTest(0.001, 0.5 + 1e-6).uncontested is not None


@settings(max_examples=25, deadline=None)
@given(
    alpha=st.sampled_from([0.2, 0.05, 0.001]),
    n=st.integers(20, 3_000),
    tv=st.floats(0, 0.05),
    p=st.floats(0.0, 1.0),
)
def test_no_plan_exceeds_alpha(alpha, n, tv, p):
    looks = plan_looks(8, 1.5, n)
    test = ExactSequentialTest(alpha, 0.5 + tv, n, 8, 1.5)
    assert test.false_certification <= alpha
    if test.uncontested:
        assert n // 2 < test.uncontested.votes < test.accept[-1]
        assert test.uncontested.rival < n / 2
    nested = NestedTests([0.5 + tv, 0.7 + tv, 0.8 + tv], looks, alpha, spending)
    assert nested.error_probability(p) <= alpha * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 100), min_size=1, max_size=12))
def test_second_largest(counts):
    assert second_largest(np.array(counts)) == (sorted(counts)[-2] if len(counts) > 1 else 0)


# -- the procedures ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options"), [("decide", {"radius": 0.0}), ("grid", {"step": 0.25}), ("radius", {})]
)
def test_modes_certify_the_class_and_not_the_tie(mode, options):
    procedure = make_procedure(mode, sigma=0.25, n_max=10_000, **options)
    tests = procedure.test if mode == "decide" else procedure.tests
    votes, accept = tests.uncontested.votes, tests.accept.reshape(-1, len(tests.looks))[0, -1]
    assert votes < accept

    def end(top, second):
        progress = procedure.start()
        while (n := progress.wanted()) is not None:
            share = np.array([top, second, 10_000 - top - second]) / 10_000
            # Between giving up and certifying on the way, the given counts at the end.
            ahead = round(n * votes / 10_000 + 0.5 * math.sqrt(n * (1 - n / 10_000)))
            now = np.array([ahead, (n - ahead) // 2, 0]) if n < 10_000 else np.round(share * n).astype(int)
            progress.look(now)
        return progress.outcome()

    assert end(votes, 2_500).label == 0
    assert 0 <= end(votes, 2_500).radius(0.25) < 1e-9
    assert end(votes, 10_000 - votes).label is None
    assert end(votes - 1, 2_500).label is None
    assert end(int(accept), 10_000 - int(accept)).label == 0


# -- what others recompute --------------------------------------------------------------------


@pytest.fixture
def stored():
    procedure = make_procedure("grid", sigma=0.25, step=0.25, n_max=10_000)
    return plan_of(procedure), {
        "mode": "grid",
        "alpha": 0.001,
        "mode_options": procedure.settings(),
        "sigma": 0.25,
        "noise": "lattice",
    }


def checked(body, said):
    plan = Plan.of(body, said)
    plan.check_error([])
    return plan


def test_the_rule_of_an_honest_plan_is_confirmed(stored):
    body, said = stored
    assert set(body["uncontested"]) == {"votes", "rival", "split"}
    assert 0.0009 < checked(body, said).error <= 0.001


@pytest.mark.parametrize("alpha", [1e-9, 1e-11, 1e-13])
def test_an_honest_plan_is_confirmed_at_any_alpha(alpha):
    procedure = make_procedure("decide", sigma=0.25, radius=0.0, alpha=alpha, n_max=10_000)
    plan = checked(
        plan_of(procedure), {"mode": "decide", "alpha": alpha, "mode_options": procedure.settings()}
    )
    assert plan.error == pytest.approx(procedure.test.false_certification, rel=0.01, abs=0)


@pytest.mark.parametrize(
    "lie",
    [
        {"votes": -8}, {"rival": +60}, {"split": -0.02}, {"split": +0.02}, {"split": -0.3},
        {"rival": -10_000}, {"votes": -200}, {"votes": +9_000}, {"split": math.nan},
    ],
)  # fmt: skip
def test_a_rule_that_proves_too_much_is_named(stored, lie):
    body, said = copy.deepcopy(stored[0]), stored[1]
    for name, change in lie.items():
        body["uncontested"][name] += change
    with pytest.raises(PlanFault):
        checked(body, said)


def test_a_record_needs_its_rivals_to_stay_below(stored):
    body, said = stored
    plan, votes = checked(body, said), body["uncontested"]["votes"]

    def fault(second):
        given = {
            "status": Status.CERTIFIED, "label": 0, "counts": (votes, second, 10_000 - votes - second),
            "samples": 10_000, "p_lower": body["targets"][0], "radius": 0.0,
            "details": {"look": len(body["looks"]) - 1, "target": 0, "reached_at": 10_000,
                        "reached_count": votes},
        }  # fmt: skip
        return plan.fault(replace(sample(0), **given))

    assert fault(2_000) is None
    assert "do not reach the boundary" in str(fault(body["uncontested"]["rival"] + 1))
