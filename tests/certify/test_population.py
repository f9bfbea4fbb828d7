"""Bounds on the share of a population: exact small cases, hostile laws of p, closed forms, published logs."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from certify.bounds import binomial_lower
from certify.errors import InvalidCounts, InvalidSetting
from certify.population import attacked, lower_bound, one_pass_accuracy, shifted, upper_bound
from certify.population.betting import in_blocks, log_shares, means_to_test
from certify.population.mixing import law_of_counts, support
from certify.population.order import keyed_order
from certify.population.polynomial import chances
from certify.population.rules import Rule, design, design_mean
from certify.population.threshold import false_share, threshold_bound

P_TARGET = 0.9
#: A correct test fails with at most this probability.
FALSE_ALARM = 1e-6


def pilot_of(law: dict[float, float], n: int, inputs: int = 400) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.binomial(n, rng.choice(list(law), inputs, p=list(law.values())))


#: Laws of p over the inputs that sit where a rule is weakest.
LAWS = {
    "all just below the target": {P_TARGET: 1.0},
    "just below and sure": {P_TARGET: 0.3, 1.0: 0.7},
    "few below, many sure": {P_TARGET: 0.02, 1.0: 0.98},
    "never and just below": {0.0: 0.5, P_TARGET: 0.5},
    "just below and just above": {P_TARGET: 0.5, P_TARGET + 1e-6: 0.5},
    "spread below": {0.3: 0.2, 0.6: 0.2, 0.8: 0.2, 0.88: 0.2, 0.97: 0.2},
}

#: A law like that of a trained network.
MANY = {0.1: 0.2, 0.6: 0.2, 0.85: 0.1, 0.95: 0.2, 0.999: 0.3}


def share_of(law: dict[float, float]) -> float:
    return sum(w for p, w in law.items() if p > P_TARGET)


def worst_law(rule: Rule, share: float) -> dict[float, float]:
    """The law with this share above the target whose mean weight is largest and most uneven, by search."""
    points = support(8 * rule.n)
    values = chances(rule.n, points) @ np.array(rule.weights)
    below, above = points <= rule.p_target, points > rule.p_target
    square = chances(rule.n, points) @ np.array(rule.weights) ** 2
    tight = [points[on][np.argsort(values[on] + 1e-4 * square[on])[-3:]] for on in (below, above)]
    return {
        float(p): weight / 3
        for group, weight in zip(tight, (1 - share, share), strict=True)
        for p in group
    }  # fmt: skip


def wrong(rule: Rule, law: dict[float, float], statements: int, seed: int) -> int:
    """How many of so many simulated statements exceed the true share."""
    rng = np.random.default_rng(seed)
    share = share_of(law)
    means = means_to_test(rule.anticipated, 3.3 * math.sqrt(rule.variance / rule.inputs))
    first = means[means > share][:1]  # an error refutes the first mean above the true one
    chance = np.array(list(law.values())) @ chances(rule.n, np.array(list(law)))
    blocks = in_blocks(np.zeros(rule.inputs, dtype=np.int64), rule.n)
    drawn = [rng.multinomial(int(b.sum()), chance / chance.sum(), size=statements) for b in blocks]
    if rule.method == "threshold":
        reached = sum(d[:, rule.threshold :].sum(axis=1) for d in drawn)
        a = false_share(rule.threshold or 0, rule.n, rule.p_target)
        found = {k: threshold_bound(int(k), rule.inputs, a, rule.alpha) for k in np.unique(reached)}
        return sum(found[k] > share for k in reached)
    values = log_shares(
        np.array(rule.weights), drawn, np.repeat(first, statements), rule.alpha, rule.variance
    )
    return int((values >= 0).sum())


def allowed(statements: int, alpha: float) -> int:
    return int(stats.binom.isf(FALSE_ALARM, statements, alpha))


@pytest.mark.parametrize("n", [1, 10, 50])
@pytest.mark.parametrize("name", LAWS)
def test_hostile_laws_are_overstated_no_more_often_than_the_level_allows(name, n):
    law, alpha = LAWS[name], 0.05
    for pilot in (pilot_of(law, n), pilot_of(MANY, n)):
        rule = design(pilot, n, P_TARGET, 100, alpha)
        assert wrong(rule, law, 1000, seed=n) <= allowed(1000, alpha)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_worst_law_for_the_chosen_weights_is_overstated_no_more_often_than_allowed(share):
    rule = design(pilot_of(MANY, 25), 25, P_TARGET, 300, 0.05)
    assert rule.method == "minorant"
    law = worst_law(rule, share)
    assert sum(law.values()) == pytest.approx(1)
    assert share_of(law) == pytest.approx(share)
    assert wrong(rule, law, 2000, seed=1) <= allowed(2000, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("name", [*LAWS, "worst 0.1", "worst 0.5", "worst 0.9"])
def test_twenty_thousand_statements_per_law(name, alpha):
    for n in (10, 50):
        pilot = pilot_of(LAWS.get(name, MANY), n)
        rule = design(pilot, n, P_TARGET, 400, alpha)
        law = worst_law(rule, float(name[6:])) if name.startswith("worst") else LAWS[name]
        assert wrong(rule, law, 20_000, seed=n) <= allowed(20_000, alpha)


@pytest.mark.parametrize("about", ["population", "set"])
def test_every_sequence_of_counts_of_a_small_statement_adds_up_to_less_than_alpha(about):
    n, m, alpha = 2, 6, 0.2
    for pilot in ([], [2] * 9 + [1]):
        rule = design(np.array(pilot, dtype=np.int64), n, 0.7, m, alpha, about)
        sequences = list(itertools.product(range(n + 1), repeat=m))
        found = np.array([rule.lower(np.array(s)) for s in sequences])
        assert found.max() > 0
        for weight, low, high in itertools.product((0.0, 0.3, 0.7, 0.95), (0.0, 0.5, 0.7), (0.71, 0.9, 1.0)):
            chance = (1 - weight) * chances(n, np.array([low]))[0] + weight * chances(n, np.array([high]))[0]
            sure = np.prod(chance[np.array(sequences)], axis=1)
            assert sure[found > weight].sum() <= alpha


def test_the_share_of_a_finite_set_is_not_overstated_by_random_subsets():
    """Every subset of 5 of 8 inputs and every outcome of one copy each, with unequal p."""
    p = np.array([0.95, 0.95, 0.9, 0.9, 0.5, 0.5, 0.3, 0.0])
    alpha, m = 0.25, 5
    for target in (0.6, 0.92):
        share = float((p > target).mean())
        rule = design(np.array([1] * 8 + [0] * 2), 1, target, m, alpha, "set")
        total = 0.0
        for chosen in itertools.combinations(range(8), m):
            for outcome in itertools.product((0, 1), repeat=m):
                if rule.lower(np.array(outcome)) > share:
                    total += float(
                        np.prod([q if k else 1 - q for q, k in zip(p[list(chosen)], outcome, strict=True)])
                    )
        assert total / math.comb(8, m) <= alpha


def test_the_threshold_rule_bounds_what_its_proof_says():
    """P(K >= u) <= A + (1 - A) a for every law, with equality where p is the target or 1."""
    n, u = 10, 10
    a = false_share(u, n, P_TARGET)
    assert a == pytest.approx(P_TARGET**10)
    assert a >= P_TARGET**10
    for share in (0.0, 0.3, 1.0):
        q = share + (1 - share) * P_TARGET**10
        assert (q - a) / (1 - a) == pytest.approx(share, abs=1e-9)
    k = 960
    assert threshold_bound(k, 1000, a, 1e-3) == pytest.approx((binomial_lower(k, 1000, 1e-3) - a) / (1 - a))
    assert threshold_bound(3, 1000, a, 1e-3) == 0.0
    assert threshold_bound(1000, 1000, 1.0, 1e-3) == 0.0


def test_the_threshold_is_a_special_case_of_weights():
    rule = design(np.array([1] * 90 + [0] * 10), 1, P_TARGET, 500, 1e-3)
    assert rule.method == "threshold"
    assert rule.threshold == 1
    assert rule.weights[1] == 1.0
    assert rule.weights[0] == pytest.approx(-P_TARGET / (1 - P_TARGET))


def test_both_ends_hold_the_true_share_and_mirror_each_other():
    rng = np.random.default_rng(3)
    p = np.where(rng.random(3000) < 0.7, 0.995, 0.4)
    counts = rng.binomial(40, p)
    low, high = lower_bound(counts, 40, P_TARGET), upper_bound(counts, 40, P_TARGET)
    assert 0.62 < low < 0.7 < high < 0.76
    assert high == pytest.approx(1 - lower_bound(40 - counts, 40, 1 - P_TARGET), abs=1e-9)


def test_a_pilot_is_not_counted_and_decides_the_rule_alone():
    rng = np.random.default_rng(4)
    counts = rng.binomial(20, np.where(rng.random(1000) < 0.8, 0.99, 0.3))
    order = np.array(keyed_order(range(1000), 5, "pilot"))
    apart = design(counts[order[:100]], 20, P_TARGET, 900, 1 - 0.99)
    assert lower_bound(counts, 20, P_TARGET, 0.99, seed=5) == apart.lower(counts[order[100:]])
    assert lower_bound(counts, 20, P_TARGET, 0.99, pilot=counts[:50]) == (
        design(counts[:50], 20, P_TARGET, 1000, 1 - 0.99).lower(counts)
    )


def test_more_inputs_and_more_copies_prove_more():
    rng = np.random.default_rng(5)
    p = np.where(rng.random(5000) < 0.8, 0.99, 0.5)
    means = [
        np.mean([lower_bound(rng.binomial(n, p[:m]), n, P_TARGET, seed=s) for s in range(2)])
        for n, m in ((10, 500), (10, 5000), (40, 5000))
    ]
    assert means[0] < means[1] < means[2] < 0.8


@pytest.mark.parametrize("inputs", [1, 2, 11, 40])
@pytest.mark.parametrize("n", [1, 3, 60])
def test_small_samples_give_an_answer(inputs, n):
    for pilot in (0.0, 0.3):
        counts = np.full(inputs, n)
        low, high = lower_bound(counts, n, 0.6, pilot=pilot), upper_bound(counts, n, 0.6, pilot=pilot)
        assert 0.0 <= low < high <= 1.0


def test_the_mean_of_p_is_bounded_by_binomial_and_by_bets():
    assert one_pass_accuracy(980, 1000, 0.0, 0.25, 0.99) == pytest.approx(binomial_lower(980, 1000, 0.01))
    rng = np.random.default_rng(6)
    counts = rng.binomial(20, np.where(rng.random(3000) < 0.9, 0.97, 0.2))
    many = design_mean(counts[:300], 20, 2700, 1e-3).lower(counts[300:])
    ones = rng.random(3000) < counts / 20
    one = design_mean(ones[:300].astype(int), 1, 2700, 1e-3).lower(ones[300:].astype(int))
    assert 0 < counts.mean() / 20 - many < ones.mean() - one
    assert one == pytest.approx(binomial_lower(int(ones[300:].sum()), 2700, 1e-3))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_a_mean_is_overstated_no_more_often_than_allowed(alpha):
    n, law = 4, {0.2: 0.1, 0.97: 0.9}
    rule = design_mean(pilot_of(law, n), n, 300, alpha)
    mean = sum(w * p for p, w in law.items())
    means = means_to_test(rule.anticipated, 3.3 * math.sqrt(rule.variance / rule.inputs))
    first = means[means > mean][:1]
    rng = np.random.default_rng(0)
    chance = np.array(list(law.values())) @ chances(n, np.array(list(law)))
    sizes = [int(b.sum()) for b in in_blocks(np.zeros(300, dtype=np.int64), n)]
    drawn = [rng.multinomial(size, chance / chance.sum(), size=4000) for size in sizes]
    values = log_shares(np.array(rule.weights), drawn, np.repeat(first, 4000), alpha, rule.variance)
    assert int((values >= 0).sum()) <= allowed(4000, alpha)


def test_the_best_attack_on_half_spaces_reaches_the_one_copy_bound():
    """Where all inputs have one p, a move by r along the normal leaves exactly Phi(Phi^-1(p) - r / sigma)."""
    sigma, r = 0.5, 0.3
    for p in (0.2, 0.6, 0.99):
        left = stats.norm.cdf(stats.norm.ppf(p) - r / sigma)
        assert attacked(p, r, sigma) == pytest.approx(left, abs=1e-9)
        assert attacked(p, r, sigma) <= left
    rng = np.random.default_rng(0)
    for _ in range(50):  # for any law of p the attacked accuracy is at least the bound from its mean
        p, w = rng.random(5), rng.dirichlet(np.ones(5))
        assert attacked(float(w @ p), r, sigma) <= w @ stats.norm.cdf(stats.norm.ppf(p) - r / sigma) + 1e-12


def test_a_shift_of_the_population_costs_what_the_half_space_at_its_middle_loses():
    sigma, rho = 0.5, 0.2
    p = stats.norm.cdf(rho / (2 * sigma))  # p falls from Phi(z) to Phi(-z): the most that a move can take
    assert shifted(p, rho, sigma) == pytest.approx(1 - p, abs=1e-9)
    assert shifted(0.9, 0.0, sigma) == pytest.approx(0.9, abs=1e-9)


def test_the_samplers_own_error_is_paid_for():
    assert attacked(0.9, 0.0, 0.25, tv=0.01) == pytest.approx(0.88)
    assert shifted(0.9, 0.0, 0.25, tv=0.01) == pytest.approx(0.88)
    assert attacked(0.005, 0.1, 0.25, tv=0.01) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": []}, {"counts": [[1, 2]]}, {"counts": [0.5]}, {"counts": [4]}, {"counts": [-1]},
        {"n": 0}, {"p_target": 0.0}, {"p_target": 1.0}, {"p_target": math.nan}, {"confidence": 1.0},
        {"confidence": 0.2}, {"pilot": 0.6}, {"pilot": -0.1}, {"pilot": [4]}, {"about": "people"},
    ],
)  # fmt: skip
def test_what_no_experiment_can_have_made_is_refused_by_name(wrong):
    call = {"counts": [3, 2, 3], "n": 3, "p_target": 0.7, "confidence": 0.99} | wrong
    for bound in (lower_bound, upper_bound):
        with pytest.raises((InvalidCounts, InvalidSetting)):
            bound(**call)


def test_a_rule_is_for_the_number_of_inputs_it_was_made_for():
    rule = design(np.array([3, 2]), 3, 0.7, 10, 0.01)
    with pytest.raises(InvalidCounts, match="10 inputs"):
        rule.lower(np.array([3] * 9))


def test_the_law_of_counts_is_a_law_and_knows_its_pilot():
    for pilot in ([], [5] * 30, [0, 5]):
        law = law_of_counts(np.array(pilot, dtype=np.int64), 5)
        assert law.sum() == pytest.approx(1)
        assert law.min() > 0
    assert law_of_counts(np.array([5] * 300), 5)[5] > 0.9


#: Replayed from published logs of 10,000 images: what an earlier rule proved, on average over pilots.
TO_BEAT = [
    ("mnist-lenet-gaussian-0.25", 0.5, 10, 0.843),
    ("mnist-lenet-gaussian-0.25", 0.5, 25, 0.904),
    ("mnist-lenet-gaussian-0.25", 0.5, 50, 0.924),
    ("mnist-lenet-gaussian-0.25", 0.5, 100, 0.940),
    ("cifar10-resnet110-consistency-0.50", 0.5, 25, 0.414),
    ("cifar10-resnet110-consistency-0.50", 0.5, 50, 0.433),
    ("cifar10-resnet110-consistency-0.50", 0.5, 100, 0.451),
    ("cifar10-resnet110-consistency-0.50", 1.0, 100, 0.286),
]
LOGS = Path(os.environ.get("CERTIFY_DATA", "-")) / "logs"


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the published logs in $CERTIFY_DATA/logs")
@pytest.mark.parametrize(("name", "radius", "n", "least"), TO_BEAT)
def test_published_logs_prove_at_least_what_is_known_to_be_possible(name, radius, n, least):
    sigma = float(name.rsplit("-", 1)[1])
    table = [line.split("\t") for line in (LOGS / f"{name}.tsv").read_text().splitlines()[1:]]
    p = np.array([stats.norm.cdf(float(r[3]) / sigma) if r[4] == "1" else 0.0 for r in table])
    target, rng = float(stats.norm.cdf(radius / sigma)), np.random.default_rng(0)
    found = [lower_bound(rng.binomial(n, p), n, target, seed=seed) for seed in range(2)]
    assert least < np.mean(found)
    assert max(found) < (p > target).mean()
