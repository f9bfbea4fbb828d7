"""Bounds by planned stakes: valid for every law and at every look, and worth fewer samples."""

import itertools

import numpy as np
import pytest
from scipy import stats

from certify.procedures.soft_mean import SoftMean
from certify.scores.means import kelly_grid_histogram
from certify.scores.timed import Spread, TimedBets, block_after, horizon_for, mean_thresholds

FLOORS = np.append(0.0, mean_thresholds(64))
#: Chance that a test of a valid bound fails, per comparison.
FALSE_ALARM = 1e-6
#: Laws on the floors themselves, so that their means are known: (floor indices, probabilities).
LAWS = {
    "half and half": ([0, 64], [0.5, 0.5]),
    "confident": ([64, 20], [0.97, 0.03]),
    "rare": ([64, 0], [0.02, 0.98]),
    "spread": (list(range(65)), [1 / 65] * 65),
    "narrow": ([40, 41, 42], [0.3, 0.4, 0.3]),
}


def histogram(drawn):
    return np.bincount(drawn, minlength=len(FLOORS))


def played(law, n, rng, *, alpha, n0=64, misled=False):
    """The game after n samples and its best bound over all looks."""
    places, chances = law
    first = histogram(rng.choice(places, n0, p=chances))
    if misled:  # the selection came from somewhere else: stakes may be bad, the bound stays one
        first = histogram(rng.integers(0, 65, n0))
    spread = Spread.of(FLOORS, first)
    game = TimedBets(FLOORS, first, alpha=alpha, horizon=horizon_for(spread, n, 0.3, alpha), n_max=n)
    best = 0.0
    while game.done < n:
        game.take(histogram(rng.choice(places, game.next_block(), p=chances)))
        best = max(best, game.lower())
    return best


@pytest.mark.parametrize(("law", "misled"), [("half and half", True), ("confident", False), ("narrow", True)])
def test_coverage_at_every_look_together(law, misled):
    places, chances = LAWS[law]
    mean = float(FLOORS[places] @ np.array(chances))
    rng, runs, alpha = np.random.default_rng(5), 60, 0.1
    misses = sum(played(LAWS[law], 40, rng, alpha=alpha, misled=misled) > mean for _ in range(runs))
    assert stats.binomtest(misses, runs, alpha, alternative="greater").pvalue >= FALSE_ALARM


@pytest.mark.slow
@pytest.mark.parametrize("misled", [False, True])
@pytest.mark.parametrize("n", [20, 60, 400])
@pytest.mark.parametrize("law", LAWS)
def test_coverage_with_more_runs(law, n, misled):
    places, chances = LAWS[law]
    mean = float(FLOORS[places] @ np.array(chances))
    rng, runs, alpha = np.random.default_rng(6), 4000, 0.1
    misses = sum(played(LAWS[law], n, rng, alpha=alpha, misled=misled) > mean for _ in range(runs))
    assert stats.binomtest(misses, runs, alpha, alternative="greater").pvalue >= FALSE_ALARM


def test_capital_has_mean_one_against_the_true_mean():
    """Exact, by all sequences of two blocks: a stake that looked at its own block would show."""
    p, alpha = 0.6, 0.2
    first = histogram(np.array([64] * 5 + [0] * 3))
    game = TimedBets(FLOORS, first, alpha=alpha, horizon=16, n_max=16)
    sizes = [block_after(0, 16, 16)[0], block_after(8, 16, 16)[0]]
    assert sizes == [8, 8]
    cell = int(np.searchsorted(game.edges, p))
    total = 0.0
    for a in range(9):
        for b in range(9):
            game = TimedBets(FLOORS, first, alpha=alpha, horizon=16, n_max=16)
            for ones in (a, b):
                game.take(histogram(np.array([64] * ones + [0] * (8 - ones))))
            capital = np.prod([
                (1 + s[cell] * (1 - p)) ** ones * (1 - s[cell] * p) ** (8 - ones)
                for s, ones in zip(game.stakes, (a, b), strict=True)
            ])  # fmt: skip
            total += capital * stats.binom.pmf(a, 8, p) * stats.binom.pmf(b, 8, p)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_every_mean_below_the_bound_is_refuted():
    rng = np.random.default_rng(7)
    game = TimedBets(FLOORS, histogram(rng.integers(30, 60, 64)), alpha=0.01, horizon=500, n_max=500)
    while game.done < 500:
        game.take(histogram(rng.integers(30, 60, game.next_block())))
    bound = game.lower()
    assert 0.4 < bound < FLOORS[30:60].mean()
    # with one cell's stakes, capital falls in the mean: a finer look inside finds no gap
    cell = int(np.searchsorted(game.edges, bound))
    played = list(zip(game.stakes, game.blocks, strict=True))
    capitals = [
        sum(float(np.log1p(stake[cell] * (FLOORS - m)) @ block) for stake, block in played)
        for m in np.linspace(game.edges[cell - 1], game.edges[cell], 50)
    ]
    assert all(x >= y for x, y in itertools.pairwise(capitals))


def test_blocks_fill_the_horizon_and_then_double_it():
    for horizon, n_max in ((32, 32), (500, 500), (40, 5000), (7, 7), (1000, 1500)):
        done = 0
        while done < n_max:
            size, left = block_after(done, horizon, n_max)
            assert 0 < size <= left <= n_max - done
            done += size
        assert done == n_max


@pytest.mark.parametrize("n", [300, 3000])
def test_a_quarter_of_the_samples_is_saved_at_equal_bound(n):
    """Against the grid of fixed bets on the same scores: width^2 is what samples cost."""
    rng, widths = np.random.default_rng(8), []
    for _ in range(12):
        scores = rng.beta(3.0, 1.5, n + 64)
        bins = np.searchsorted(mean_thresholds(512), scores, side="right")
        floors = np.append(0.0, mean_thresholds(512))
        count = lambda part: np.bincount(part, minlength=513)  # noqa: E731
        game = TimedBets(floors, count(bins[:64]), alpha=1e-3, horizon=n, n_max=n)
        start = 64
        while game.done < n:
            size = game.next_block()
            game.take(count(bins[start : start + size]))
            start += size
        mean = scores[64:].mean()
        old = kelly_grid_histogram(floors, count(bins[64:]), 1e-3)
        widths.append((mean - game.lower(), mean - old))
    ours, grid = np.mean(widths, axis=0)
    assert ours**2 <= 0.75 * grid**2


def test_a_plan_reads_its_bound_after_every_block():
    plan = SoftMean(n_max=500, slack=0.0, bins=64)
    progress, rng, total = plan.start(), np.random.default_rng(9), np.zeros((2, 65), dtype=np.int64)
    ends = []
    while (wanted := progress.wanted()) is not None:
        fresh = rng.integers(40, 65, wanted - int(total[0].sum()))
        total[0] += histogram(fresh)
        total[1] += histogram(64 - fresh)
        ends.append(wanted)
        progress.look(total.copy())
    outcome = progress.outcome()
    assert ends[0] == 64
    assert ends[-1] == 564
    assert outcome.label == 0
    assert outcome.details["horizon"] == 500
    assert outcome.p_lower < FLOORS[40:65].mean()
