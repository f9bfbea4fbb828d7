"""Two bounds instead of one: exact errors for every law, what is gained, what it costs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from certify.bounds import binomial_lower
from certify.errors import InvalidSetting
from certify.procedures import Fixed
from certify.radii import radius_between, radius_down
from certify.runner_up import SHARE, check_share, leader_lower, rival_votes, rivals_upper, told_apart

ALPHA = 0.001


def radius(leader, rival, n, alpha=ALPHA, share=SHARE):
    """Radius in units of sigma from the votes of the leader and of the most-voted other class."""
    lower, upper = leader_lower(leader, n, alpha, share=share), rivals_upper(rival, n, alpha, share=share)
    return radius_between(lower, upper, 1.0)


# -- error: exact, for every law ---------------------------------------------------------------


class Errors:
    """P(the certified radius of class 0 is false), exactly, by the law of all counts of n samples."""

    def __init__(self, classes, n, alpha, share):
        axes = np.indices((n + 1,) * (classes - 1)).reshape(classes - 1, -1)
        axes = axes[:, axes.sum(axis=0) <= n]
        self.counts = np.vstack([axes, n - axes.sum(axis=0)])
        self.n, rivals = n, self.counts[1:].max(axis=0)
        table = np.array([[radius(k, m, n, alpha, share) if k + m <= n else 0.0 for m in range(n + 1)]
                          for k in range(n + 1)])  # fmt: skip
        self.claimed = table[self.counts[0], rivals]
        self.ways = special.gammaln(n + 1) - special.gammaln(self.counts + 1).sum(axis=0)

    def __call__(self, p):
        """Cohen's theorem is tight: some classifier with these probabilities has no larger radius."""
        p = np.asarray(p, dtype=float)
        true = (
            max(-1.0, (special.ndtri(p[0]) - special.ndtri(p[1:].max())) / 2) if p[0] > p[1:].max() else 0.0
        )
        false = self.claimed > max(true, 0.0) + 1e-12
        log = self.ways[false] + special.xlogy(self.counts[:, false], p[:, None]).sum(axis=0)
        return float(np.exp(log).sum())


def simplex(classes, steps):
    grid = np.indices((steps + 1,) * (classes - 1)).reshape(classes - 1, -1).T
    grid = grid[grid.sum(axis=1) <= steps]
    return np.column_stack([grid, steps - grid.sum(axis=1)]) / steps


@pytest.mark.parametrize("share", [0.5, 0.1, SHARE])
@pytest.mark.parametrize(("classes", "n", "alpha"), [(3, 40, 0.05), (4, 24, 0.2), (3, 25, 0.4)])
def test_no_law_of_three_or_four_classes_has_a_larger_error_than_alpha(classes, n, alpha, share):
    error = Errors(classes, n, alpha, share)
    found = [error(p) for p in simplex(classes, 20 if classes == 3 else 14)]
    assert max(found) <= alpha
    assert max(found) > 0.2 * alpha  # what is enumerated does happen


def climbed(error, start, rng, steps=150):
    """The largest error found by random moves of shrinking size from ``start``."""
    best, p, size = error(start), start, 0.2
    for _ in range(steps):
        q = np.maximum(p + rng.normal(0, size, len(p)) * (rng.random(len(p)) < 0.6), 0.0)
        q = q / q.sum()
        found = error(q)
        if found > best:
            best, p = found, q
        else:
            size = max(size * 0.97, 1e-4)
    return best


@pytest.mark.parametrize(
    ("classes", "n", "alpha", "share"), [(3, 40, 0.2, 0.5), (4, 20, 0.3, 0.5), (3, 40, 0.2, 0.2)]
)
def test_climbing_to_the_worst_law_stays_below_alpha_and_comes_near_it(classes, n, alpha, share):
    """What is found is the larger of the two shares: one false bound must outweigh the other one's slack."""
    error, rng = Errors(classes, n, alpha, share), np.random.default_rng(5)
    worst = max(climbed(error, rng.dirichlet(np.ones(classes)), rng) for _ in range(6))
    assert 0.9 * max(share, 1 - share) * alpha < worst <= alpha


def test_the_bound_on_the_rivals_is_one_event_however_many_there_are():
    """A union would divide the level; undivided, a bound on *each* rival fails far more often."""
    n, alpha, rivals, rng = 400, 0.05, 30, np.random.default_rng(2)
    p = np.append(0.1, np.full(rivals, 0.9 / rivals))
    counts = rng.multinomial(n, p, size=4000)
    upper = np.array([rivals_upper(k, n, alpha, share=0.5) for k in range(n + 1)])
    largest = upper[counts[:, 1:].max(axis=1)] < p[1]
    each = (upper[counts[:, 1:]] < p[1]).any(axis=1)
    assert largest.sum() == 0
    assert each.mean() > 5 * alpha
    # One rival alone is the worst case, and has the level asked for (false alarm 1e-6).
    alone = rng.binomial(n, 0.3, size=20_000)
    assert (
        stats.binomtest(int((upper[alone] < 0.3).sum()), 20_000, alpha / 2, alternative="greater").pvalue
        > 1e-6
    )


def test_coverage_of_the_fixed_procedure():
    """Ten classes, selection included; a false radius may occur with alpha = 0.05 (false alarm 1e-6)."""
    plan, rng, runs = Fixed(0.05, 10, 300, runner_up=0.3), np.random.default_rng(11), 4000
    p = np.array([0.3, 0.28, *[0.0525] * 8])
    true, wrong, certified = radius_between(0.3, 0.28, 1.0), 0, 0
    for _ in range(runs):
        progress = plan.start()
        first = rng.multinomial(10, p)
        progress.look(first)
        progress.look(first + rng.multinomial(300, p))
        outcome = progress.outcome()
        certified += outcome.label is not None
        wrong += outcome.label not in (None, 0) or outcome.radius(1.0) > true
    assert certified > 0
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 1e-6


# -- what it brings, what it costs ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("leader", "rival", "binary", "expected"),
    [(0.6, 0.35, 0.241, 0.305), (0.8, 0.15, 0.828, 0.922), (0.6, 0.15, 0.241, 0.628),
     (0.9, 0.02, 1.265, 1.637), (0.45, 0.1, 0.0, 0.558)],
)  # fmt: skip
def test_radii_at_a_hundred_thousand_samples(leader, rival, binary, expected):
    n = 100_000
    k, m = round(leader * n), round(rival * n)
    assert radius_down(binomial_lower(k, n, ALPHA), 1.0) == pytest.approx(binary, abs=5e-4)
    assert radius(k, m, n) >= expected - 0.005


@pytest.mark.parametrize("alpha", [0.01, 0.001, 1e-6])
@pytest.mark.parametrize("n", [10, 20, 33, 100, 1000, 10_000, 1_000_000])
def test_where_two_classes_share_all_votes_at_most_two_thousandths_are_lost(n, alpha):
    votes = np.unique(np.concatenate([np.linspace(n / 2, n, 60), n - np.arange(min(5, n))]).astype(int))
    for k in votes.tolist():
        alone = radius_down(binomial_lower(k, n, alpha), 1.0)
        assert alone - radius(k, n - k, n, alpha) <= 0.002
        assert alone - radius(k, 0, n, alpha) <= 0.002


def test_an_even_split_would_cost_more():
    n = 100_000
    alone = radius_down(binomial_lower(n, n, ALPHA), 1.0)
    assert alone - radius(n, 0, n, share=0.5) > 0.02


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400))
def test_never_less_than_the_leader_alone_and_monotone(k, m, rest):
    n = k + m + rest
    lower = leader_lower(k, n, ALPHA)
    assert radius(k, m, n) >= radius_down(lower, 1.0)
    assert radius(k, m, n) >= radius(k, m + 1, n + 1) or rest == 0 or lower > 0.5
    assert rivals_upper(m, n, ALPHA) >= m / n


# -- the parts -------------------------------------------------------------------------------------


def test_samples_without_a_class_are_a_rival():
    assert rival_votes(np.array([5, 2, 1]), 8, 0) == 2
    assert rival_votes(np.array([5, 2, 1]), 20, 0) == 12
    assert rival_votes(np.array([7]), 7, 0) == 0


def test_the_noises_own_error_is_paid_on_both_sides():
    assert leader_lower(60, 100, ALPHA, tv=0.01) == leader_lower(60, 100, ALPHA) - 0.01
    assert rivals_upper(9, 100, ALPHA, tv=0.01) >= rivals_upper(9, 100, ALPHA) + 0.01
    assert rivals_upper(100, 100, ALPHA, tv=0.01) == 1.0


@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_two_equal_classes_are_hardly_ever_told_apart(alpha):
    """The law of the votes up to 1500 common samples, exactly: less than alpha, and not by much."""
    crossed = 0.0
    reach = np.zeros(1501, dtype=int)
    for m in range(1, 1501):
        k = max(reach[m - 1], m // 2)
        while k <= m and not told_apart(k, m - k, rivals=1, alpha=alpha):
            k += 1
        reach[m] = k
    law = np.ones(1)  # law[k]: k votes for the first of the two
    for m in range(1, 1501):
        law = np.convolve(law, [0.5, 0.5])
        crossed += law[reach[m] :].sum()
        law[reach[m] :] = 0.0
    assert 0.1 * alpha < crossed <= alpha
    assert not told_apart(5, 5, rivals=1, alpha=0.4)
    assert told_apart(900, 600, rivals=10, alpha=1e-6)
    assert not told_apart(900, 600, rivals=10, alpha=1e-30)


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan, 2])
def test_shares_that_leave_one_side_nothing_are_refused(share):
    with pytest.raises(InvalidSetting):
        check_share(share, ALPHA)
    with pytest.raises(InvalidSetting):
        Fixed(runner_up=share)


def test_a_level_too_small_to_compute_with_is_refused():
    assert check_share(0.0, 1e-250) == 0.0
    with pytest.raises(InvalidSetting):
        check_share(SHARE, 1e-249)
