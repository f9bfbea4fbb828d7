"""A lower bound on the mean of scores by stakes that know when the game is planned to end.

Against "the mean is at most m" a gambler stakes s_t(m) >= 0 on every sample before it is seen. The capital
prod_t (1 + s_t(m) (x_t - m)), at first 1, is a nonnegative supermartingale if that is true: it ever reaches
1 / alpha with probability <= alpha (Ville 1939). The bound is the infimum of the m that are not refuted. It
exceeds the mean only if the gambler against the mean itself has been successful: one test, one alpha, at
every look together, and however the m share what they compute.

Stakes change between blocks of samples and depend on earlier blocks alone, and on the samples that chose
the class. The means of a cell (below, edge] share the stakes computed for its edge, so capital falls in m
within a cell: a cell is refuted as a whole if its edge is, and in the first other one the bound is a root.

The stakes follow Voracek and Orabona, "STaR-Bets", 2025, in the form of an option's hedge: for sums that
move like a Brownian motion they replicate a payment of 1 / alpha should the sum end above its alpha
quantile, so no capital is spent on winning more. A share of the capital plays the grid of fixed bets of
``certify.scores.means``, for sums that do not move like that (nearly all scores close to 1).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from certify.scores.means import _BETS
from certify.sequential.boundaries import whole

#: Share of the capital that plays the hedge; the rest plays the grid of fixed bets.
HEDGED = 0.95
#: No stake can lose more than this share of the capital on one sample.
_MOST = 0.95
#: The goal is aimed at from above by this share: at the end no stake is left to hit it exactly.
_ABOVE = 0.05
#: A block is this part of the samples that are left, at least this part of the horizon, at least so many.
_PART, _SMALLEST, _FEWEST = 6, 24, 8
#: Capital counts as 1 / alpha if its logarithm is more by this much; a bound is moved down by this much.
OUTWARD, _DOWN = 1e-9, 1e-12
#: Cells: around the bound that the selection lets expect, of this many to its width, and over all of [0, 1].
_FINE, _COARSE = 6, 100


@functools.lru_cache(maxsize=16)
def mean_thresholds(bins: int) -> np.ndarray:
    """``bins`` thresholds in (0, 1], the last exactly 1: even in arcsin sqrt, fine where scores vary least.

    A mean read at the lower ends of such bins loses at most pi sqrt(p (1 - p)) / (2 bins) near p.
    """
    whole(bins, "bins")
    out = np.append(np.sin(np.pi / 2 * np.arange(1, bins) / bins) ** 2, 1.0)
    out.setflags(write=False)
    return out


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of the scores in a histogram, the latter never 0."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, floors: np.ndarray, histogram: np.ndarray) -> Spread:
        total = float(histogram.sum())
        mean = float(histogram @ floors) / total
        return cls(mean, math.sqrt((float(histogram @ (floors - mean) ** 2) + 0.02) / (total + 1)))


def horizon_for(spread: Spread, n_max: int, slack: float, alpha: float) -> int:
    """Samples after which the radius is forecast to be within the share ``slack`` of that of n_max samples.

    Power only. n_max where slack is 0, or where no positive radius is forecast.
    """

    def score(n: int) -> float:
        return float(special.ndtri(forecast(spread, n, alpha)))

    if slack == 0 or score(n_max) <= 0:
        return n_max
    low, high = 0, n_max
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if score(middle) >= (1 - slack) * score(n_max) else (middle, high)
    return max(high, min(n_max, 32))


def block_after(done: int, horizon: int, n_max: int) -> tuple[int, int]:
    """(samples of the next block, samples left to the horizon with it); a horizon that is reached doubles."""
    while done >= horizon:
        horizon = min(n_max, 2 * horizon)
    left = horizon - done
    size = max(math.ceil(left / _PART), math.ceil(horizon / _SMALLEST), _FEWEST)
    return (left if left - size < _FEWEST else size), left


class TimedBets:
    """The gamblers of all cells: they take block after block, then say what they have refuted."""

    def __init__(
        self, floors: np.ndarray, selection: np.ndarray, *, alpha: float, horizon: int, n_max: int
    ) -> None:
        """``floors``: (B + 1,) what a bin proves about its scores; ``selection``: (B + 1,) what chose."""
        self.floors, self.alpha = floors, alpha
        self.horizon, self.n_max = horizon, n_max
        self.past = selection.astype(np.float64)
        self.edges = cells(Spread.of(floors, selection), horizon, n_max, alpha)
        self.hedge = np.zeros(len(self.edges))
        self.stakes: list[np.ndarray] = []
        self.blocks: list[np.ndarray] = []

    @property
    def done(self) -> int:
        return int(sum(int(block.sum()) for block in self.blocks))

    def next_block(self) -> int:
        """Samples that the next block must have."""
        return block_after(self.done, self.horizon, self.n_max)[0]

    def take(self, block: np.ndarray) -> None:
        """Counts (B + 1,) of exactly ``next_block()`` fresh samples."""
        size, left = block_after(self.done, self.horizon, self.n_max)
        assert int(block.sum()) == size
        deviation = Spread.of(self.floors, self.past).deviation
        stake = stakes(self.hedge, self.edges, deviation * math.sqrt(left), self.alpha)
        seen = np.flatnonzero(block)
        self.hedge = (
            self.hedge + np.log1p(stake[:, None] * (self.floors[seen] - self.edges[:, None])) @ block[seen]
        )
        self.stakes.append(stake)
        self.blocks.append(block.astype(np.int64))
        self.past += block

    def lower(self) -> float:
        """The bound: the mean is at least this, rounded down."""
        first = self._first_not_refuted()
        below = float(self.edges[first - 1]) if first else 0.0
        if first == len(self.edges):
            return below
        return max(0.0, self._inside(first, below, float(self.edges[first])) - _DOWN)

    def _first_not_refuted(self) -> int:
        """The first cell whose edge is not refuted, by the hedge alone or together with the fixed bets."""
        total = np.sum(self.blocks, axis=0)
        seen = np.flatnonzero(total)
        points, counts = self.floors[seen], total[seen]
        open_cells = np.flatnonzero(~(self.hedge + math.log(HEDGED) >= self._goal()))
        for part in np.array_split(open_cells, max(1, -(-len(open_cells) // 8))):
            value = log_capital(self.hedge[part], _fixed(points, counts, self.edges[part]))
            if len(failed := part[~(value >= self._goal())]):
                return int(failed[0])
        return len(self.edges)

    def _goal(self) -> float:
        return OUTWARD - math.log(self.alpha)

    def _inside(self, cell: int, below: float, edge: float) -> float:
        """The largest refuted mean of the cell: capital falls in m as long as its stakes are these."""
        seen = [np.flatnonzero(block) for block in self.blocks]
        points = np.concatenate([self.floors[s] for s in seen])
        counts = np.concatenate([block[s] for block, s in zip(self.blocks, seen, strict=True)])
        stake = np.repeat([stake[cell] for stake in self.stakes], [len(s) for s in seen])
        for _ in range(40):
            middle = (below + edge) / 2
            hedge = np.atleast_1d(np.log1p(stake * (points - middle)) @ counts)
            if log_capital(hedge, _fixed(points, counts, np.array([middle])))[0] >= self._goal():
                below = middle
            else:
                edge = middle
        return below


def cells(spread: Spread, horizon: int, n_max: int, alpha: float) -> np.ndarray:
    """Upper edges of the cells, increasing, in (0, 1): functions of the selection and the plan alone."""
    width = _width(spread, n_max, alpha)
    expected = spread.mean - _width(spread, horizon, alpha)
    reach = 3 * spread.deviation / 8 + 2 * _width(spread, horizon, alpha)
    count = min(1500, math.ceil(2 * _FINE * reach / width))
    near = expected + reach * np.linspace(-1, 1, count)
    far = np.sin(np.pi / 2 * np.arange(1, _COARSE) / _COARSE) ** 2
    edges = np.unique(np.concatenate([near, far]))
    return edges[(edges > 1e-6) & (edges < 1 - 1e-9)]


def stakes(hedge: np.ndarray, edges: np.ndarray, spread: float, alpha: float) -> np.ndarray:
    """What is staked per unit of score on the next block, by edge.

    ``hedge``: log of the hedging capital so far. ``spread``: standard deviation of the sum of the scores
    that are left.
    """
    price = np.minimum(hedge + math.log(alpha * HEDGED), 0.0) - math.log1p(_ABOVE)
    depth = special.ndtri_exp(price)
    stake = np.exp(-(depth**2) / 2 - price) / (math.sqrt(2 * math.pi) * spread)
    reached = hedge + math.log(alpha * HEDGED) >= OUTWARD
    return np.where(reached, 0.0, np.minimum(stake, _MOST / edges))


def log_capital(hedge: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """log of the whole capital: the hedge and the fixed bets, each with its share."""
    return np.logaddexp(hedge + math.log(HEDGED), fixed + math.log1p(-HEDGED))


def _fixed(points: np.ndarray, counts: np.ndarray, means: np.ndarray) -> np.ndarray:
    """log of the average capital of the fixed bets against each mean, (len(means),)."""
    gains = np.stack([np.log1p(share * (points[None, :] / means[:, None] - 1)) @ counts for share in _BETS])
    top = gains.max(axis=0)
    return top + np.log(np.exp(gains - top).mean(axis=0))


def forecast(spread: Spread, n: int, alpha: float) -> float:
    """The bound that n samples are expected to prove, in (0, 1). Power only."""
    return min(1 - 1e-15, max(1e-15, spread.mean - _width(spread, n, alpha)))


def _width(spread: Spread, n: int, alpha: float) -> float:
    """How far below the mean the bound is expected to lie after n samples."""
    return float(-special.ndtri(min(alpha, 0.4))) * 1.15 * spread.deviation / math.sqrt(n) - math.log(
        alpha
    ) / (4 * n)
