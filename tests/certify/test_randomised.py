"""The randomised bound: exact at its level, by enumeration; drawn by key; stored, and worked out again."""

import json
from dataclasses import replace
from hashlib import sha256

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import certify
from certify.bounds import binomial_lower
from certify.errors import InvalidCounts, InvalidSetting
from certify.procedures import Fixed, make_procedure
from certify.randomised import randomised_lower, uniform_of
from certify.runner_up import SHARE
from certify.store import open_run, read_run
from certify.verification import verify


def tail(k, n, p, u):
    """P(Bin > k) + u P(Bin = k) to 50 digits."""
    with mpmath.workdps(50):
        p, terms = mpmath.mpf(p), range(k + 1, n + 1)
        pmf = lambda i: mpmath.binomial(n, i) * p**i * (1 - p) ** (n - i)  # noqa: E731
        return mpmath.fsum(map(pmf, terms)) + mpmath.mpf(u) * pmf(k)


@settings(max_examples=150)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(1e-9, 1.0), st.floats(-12, -0.31))
def test_the_tail_at_the_bound_is_at_most_alpha_and_hardly_less(n, share, uniform, power):
    k, alpha = round(share * n), 10.0**power
    found, u = randomised_lower(k, n, alpha, uniform), max(uniform, alpha**0.5)
    assert found >= binomial_lower(k, n, alpha)
    assert found < 1
    if k == 0:
        assert found == 0
        return
    assert tail(k, n, found, u) <= alpha
    assert tail(k, n, found * (1 + 1e-9) + 1e-13, u) > alpha * (1 - 1e-5)


@pytest.mark.parametrize(("n", "p"), [(9, 0.5), (20, 0.9), (60, 0.97), (60, 0.51), (150, 0.995)])
def test_its_error_is_alpha_where_the_usual_bounds_is_less(n, p):
    """Exact over the counts, a fine grid over the uniform number, which errs by at most one step."""
    alpha, steps = 0.05, 2000
    us = (np.arange(steps) + 0.5) / steps
    law = stats.binom.pmf(np.arange(n + 1), n, p)
    wrong = np.array([np.mean([randomised_lower(k, n, alpha, u) > p for u in us]) for k in range(n + 1)])
    usual = np.array([binomial_lower(k, n, alpha) > p for k in range(n + 1)])
    assert law @ wrong <= alpha + 1 / steps
    assert law @ usual < 0.95 * alpha, "the law was chosen to have room between two counts"
    if law[-1] < alpha:  # where unanimous votes are likelier than that the floor on u keeps the error below
        assert law @ wrong >= alpha * (1 - alpha**0.5) - 1 / steps


def test_without_a_number_it_is_the_usual_bound():
    for k, n in ((0, 10), (7, 10), (10, 10), (99_000, 100_000)):
        assert randomised_lower(k, n, 0.001, 1.0) == binomial_lower(k, n, 0.001)


def test_unanimous_votes_prove_no_more_than_twice_as_many_would():
    for n in (1, 20, 1000):
        largest = randomised_lower(n, n, 0.001, 2.0**-53)
        assert largest == pytest.approx(binomial_lower(2 * n, 2 * n, 0.001), rel=1e-11)


@pytest.mark.parametrize("uniform", [0.0, -0.5, 1.5, float("nan")])
def test_numbers_that_are_not_uniform_are_refused(uniform):
    with pytest.raises(InvalidSetting, match="uniform"):
        randomised_lower(5, 10, 0.001, uniform)
    with pytest.raises(InvalidCounts):
        randomised_lower(11, 10, 0.001, 0.5)


def test_numbers_are_uniform_and_differ_by_seed_and_input():
    numbers = [uniform_of(seed, id) for seed in (0, 1, 2**127 + 5) for id in range(2000)]
    assert len(set(numbers)) == len(numbers)
    assert stats.kstest(numbers, "uniform").pvalue > 1e-6
    word = sha256(b"certify: randomised bound, seed 7, input 3").digest()
    assert uniform_of(7, 3) == (int.from_bytes(word[:8], "big") // 2**11 + 1) / 2**53


@pytest.mark.parametrize("runner_up", [0.0, SHARE])
def test_the_plan_proves_more_with_a_number_and_says_so(runner_up):
    plan = Fixed(0.001, 10, 100, tv=1e-6, runner_up=runner_up, randomised=True)
    counts = np.array([95, 3, 2])

    def ended(progress):
        progress.look(np.array([10, 0, 0]))
        progress.look(counts + np.array([10, 0, 0]))
        return progress.outcome()

    drawn, usual = ended(plan.start(0.25)), ended(replace(plan, randomised=False).start(0.25))
    level = 0.001 * (1 - runner_up)
    assert drawn.p_lower == randomised_lower(95, 100, level, 0.25) - 1e-6 > usual.p_lower
    assert drawn.details["uniform"] == 0.25
    assert "uniform" not in usual.details
    assert plan.settings()["randomised"] is True
    assert "randomised" not in replace(plan, randomised=False).settings()
    assert "Stevens" in plan.guarantee()
    assert "Stevens" not in replace(plan, randomised=False).guarantee()


@pytest.mark.parametrize("options", [{"mode": "radius"}, {"mode": "fixed", "scores": "soft"}])
def test_where_it_has_no_meaning_it_is_refused(options):
    with pytest.raises(InvalidSetting, match="randomised has no meaning"):
        make_procedure(sigma=0.25, randomised=True, **options)


@pytest.fixture
def run(tmp_path):
    x = torch.linspace(-1, 1, 12).reshape(12, 1)
    model = torch.nn.Linear(1, 2, bias=False).eval()
    model.weight.data = torch.tensor([[-1.0], [1.0]])  # the class is the sign: its radius is |x|
    g = certify.Smoothed(model, 1.0, noise="gaussian", bounds=None, num_classes=2)
    return (
        g,
        x,
        g.certify(x, mode="fixed", n0=20, n=200, seed=2**100 + 1, randomised=True, store=tmp_path / "r"),
    )


def test_a_run_keeps_its_numbers_and_is_verified_again(run, tmp_path):
    g, x, found = run
    assert [r.details["uniform"] for r in found] == [uniform_of(2**100 + 1, i) for i in range(12)]
    assert verify(tmp_path / "r").outcome == "holds"
    usual = g.certify(x, mode="fixed", n0=20, n=200, seed=2**100 + 1)
    pairs = list(zip(found, usual, strict=True))
    assert all(a.counts == b.counts and a.p_lower >= b.p_lower for a, b in pairs)
    assert any(a.radius > b.radius for a, b in pairs)
    distance = special.ndtr(np.abs(x[:, 0].numpy()))
    assert sum(r.p_lower > p for r, p in zip(found, distance, strict=True) if r.certified) <= 1


@pytest.mark.parametrize("forged", ["a smaller number", "none", "another seed"])
def test_a_number_that_was_not_drawn_is_found(run, tmp_path, forged):
    stored = read_run(tmp_path / "r")
    said = json.loads(json.dumps(stored.settings))
    if forged == "another seed":
        said["seed"] = str(int(said["seed"]) + 1)
    with open_run(tmp_path / "forged", said, stored.guarantee) as store:
        for r in stored.run:
            details = dict(r.details)
            if forged == "none":
                details.pop("uniform")
            elif forged == "a smaller number":
                details["uniform"] = 0.04
            store.add(replace(r, details=details))
    failures = {c.name: c.detail for c in verify(tmp_path / "forged").failures}
    assert "its random number is" in failures["bounds"]
