"""Procedures for soft scores: whether their mean reaches a target, or their whole distribution.

The third, a bound on the mean itself, is ``certify.procedures.soft_mean``. All certify the classifier
x -> argmax_c E f_c(x + sigma Z), which is not the voting one; a run says which of the two it certified. Per
sample and class the engine computes the margin score
h_c = (1 + f_c - max of the others) / 2 in [0, 1] (0 for every class where a score is not finite)
and counts it in a histogram of the plan's ``thresholds``: integer counts, so that batches and shards
add up exactly. E h_c > 1/2 makes c the smoothed class, and Phi^-1(E h_c) is 1/sigma-Lipschitz.

The class is chosen on ``n0`` samples that never enter a bound.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from certify.bounds import check_alpha
from certify.chances import at_least, at_most
from certify.errors import InvalidCounts
from certify.procedures.outcome import Outcome, complement
from certify.records import Status
from certify.scores.distribution import (
    band_lower,
    distribution_radius,
    exceedances,
    mean_at,
    score_thresholds,
)
from certify.scores.means import kelly_grid_histogram
from certify.sequential.boundaries import plan_looks, whole


@dataclass(frozen=True)
class Soft:
    """Whether the mean margin score reaches ``p_target``, which proves exactly ``radius``.

    Sequential: the bound holds at every look, no table needed.
    """

    radius: float
    p_target: float
    alpha: float = 1e-3
    n_max: int = 100_000
    n0: int = 64
    bins: int = 512
    first: int = 64
    growth: float = 1.2
    tv: float = 0.0

    name = "soft"
    statistic = "histogram"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        whole(self.n0, "n0")
        plan_looks(self.first, self.growth, self.n_max)
        score_thresholds(self.bins)

    @property
    def thresholds(self) -> np.ndarray:
        """(B,) in (0, 1]: a score's bin is searchsorted(thresholds, score, side="right")."""
        return _thresholds(self.bins)

    @property
    def looks(self) -> np.ndarray:
        """Numbers of fresh samples (selection excluded) at which the bound is read."""
        return plan_looks(self.first, self.growth, self.n_max)

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def guarantee(self) -> str:
        return (
            f"The class was chosen on {self.n0} samples; the mean of its soft margin score was bounded on"
            f" fresh ones by betting with a grid of fixed bets (at most {self.n_max} samples), which holds"
            f" at every look together with probability at least {at_least(self.alpha)}. The certified"
            " classifier is the one that averages scores, not the one that counts votes."
        )

    def start(self) -> SoftProgress:
        return SoftProgress(self)


@dataclass(frozen=True)
class Distribution:
    """The score-distribution radius on a fixed number of samples, with a confidence band."""

    sigma: float
    alpha: float = 1e-3
    n0: int = 64
    n: int = 100_000
    bins: int = 64
    tv: float = 0.0

    name = "distribution"
    statistic = "histogram"

    def __post_init__(self) -> None:
        whole(self.n0, "n0")
        whole(self.n, "n")
        score_thresholds(self.bins)
        check_alpha(self.alpha, shares=2 * self.bins)

    @property
    def thresholds(self) -> np.ndarray:
        """(B,) in (0, 1]: a score's bin is searchsorted(thresholds, score, side="right")."""
        return _thresholds(self.bins)

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def guarantee(self) -> str:
        return (
            f"The class was chosen on {self.n0} samples; the distribution of its soft margin score was"
            f" bounded on {self.n} fresh ones by a lower band at {self.bins} thresholds fixed beforehand"
            f" (Dvoretzky-Kiefer-Wolfowitz and Clopper-Pearson, jointly at level {at_most(self.alpha)}), and"
            " every level set was moved by the Neyman-Pearson bound. The certified classifier is the one that"
            " averages scores, not the one that counts votes."
        )

    def start(self) -> DistributionProgress:
        return DistributionProgress(self)


class Selecting:
    """Common to both: choose the class on the first n0 samples, then keep its fresh histogram."""

    def __init__(self, n0: int, thresholds: np.ndarray, alpha: float) -> None:
        self.n0, self.alpha = n0, alpha
        self.floors = np.append(0.0, thresholds)  # what a bin proves about its scores
        self.selection: np.ndarray | None = None
        self.label = -1
        self.fresh = np.zeros(len(self.floors), dtype=np.int64)
        self.total = 0

    def take(self, histogram: np.ndarray, samples: int) -> None:
        values = np.asarray(histogram)
        if values.ndim != 2 or values.shape[1] != len(self.floors) or values.dtype.kind not in "iu":
            raise InvalidCounts(
                f"a statistic of shape {values.shape} is not a histogram of scores",
                why=f"a look takes whole numbers of shape (classes, {len(self.floors)})",
                remedy="count every sample of every class in the bins of the plan's thresholds",
            )
        if values.min() < 0 or np.any(values.sum(axis=1) != samples):
            raise InvalidCounts(
                f"a histogram of {samples} samples must hold each of them once per class",
                why="counts are cumulative; a sample without finite scores counts as score 0",
                remedy="pass the cumulative histogram at exactly wanted() samples",
            )
        if self.selection is None:
            self.selection = values.astype(np.int64)
            self.label = int(np.argmax(self.selection @ self.floors))
            return
        fresh = values[self.label] - self.selection[self.label]
        if np.any(fresh < 0):
            raise InvalidCounts(
                "a histogram has shrunk", why="counts are cumulative", remedy="pass cumulative counts"
            )
        self.fresh, self.total = fresh.astype(np.int64), samples - self.n0

    def mean(self) -> float:
        return float(self.fresh @ self.floors) / max(self.total, 1)

    def ended(self, p_lower: float, radius: float | None, evidence: np.ndarray, **details: Any) -> Outcome:
        """The outcome; ``evidence`` is the fresh histogram that proves p_lower, kept as (bin, count)."""
        certified = p_lower > 0.5
        width = math.sqrt(-math.log(self.alpha) / (2 * max(self.total, 1)))
        details["histogram"] = pairs(evidence)
        return Outcome(
            status=Status.CERTIFIED if certified else Status.ABSTAINED,
            label=self.label if certified else None,
            p_lower=p_lower,
            p_upper=min(1.0, max(p_lower, self._ceiling() + width)),
            pb_lower=0.0,
            pb_upper=complement(p_lower),
            counts=(),
            samples=self.n0 + self.total,
            details={"selected": self.label, "mean_score": self.mean()} | details,
            proved_radius=radius if certified else None,
        )

    def _ceiling(self) -> float:
        """Mean of the scores with every bin read at its upper end (description only)."""
        return float(self.fresh @ np.append(self.floors[1:], 1.0)) / max(self.total, 1)


class SoftProgress(Selecting):
    """One input: selection, then a bound at every look."""

    def __init__(self, plan: Soft) -> None:
        super().__init__(plan.n0, plan.thresholds, plan.alpha)
        self.plan = plan
        self.step = 0
        self.best = 0.0
        self.evidence = self.fresh
        self.finished = False

    def wanted(self) -> int | None:
        if self.selection is None:
            return self.n0
        return None if self.finished else self.n0 + int(self.plan.looks[self.step])

    def look(self, histogram: np.ndarray) -> None:
        selecting = self.selection is None
        self.take(histogram, self.wanted() or 0)
        if selecting:
            return
        bound = kelly_grid_histogram(self.floors, self.fresh, self.plan.alpha) - self.plan.tv
        if bound > self.best:
            self.best, self.evidence = bound, self.fresh
        if self.step + 1 == len(self.plan.looks) or self._enough():
            self.finished = True
        else:
            self.step += 1

    def outcome(self) -> Outcome:
        if not self.finished:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        p_lower = self.plan.p_target if self.best >= self.plan.p_target else 0.0
        return self.ended(p_lower, self.plan.radius, self.evidence, look=self.step)

    def _enough(self) -> bool:
        """Power only: whether the target is proved, or far out of reach."""
        hopeful = min(1.0, self.mean() + 4 * self._deviation() / math.sqrt(self.total))
        return hopeful < self.plan.p_target or self.best >= self.plan.p_target

    def _deviation(self) -> float:
        spread = float(self.fresh @ (self.floors - self.mean()) ** 2) / self.total
        return math.sqrt(spread + 1 / self.total)


class DistributionProgress(Selecting):
    """One input: selection, then one band."""

    def __init__(self, plan: Distribution) -> None:
        super().__init__(plan.n0, plan.thresholds, plan.alpha)
        self.plan = plan
        self.finished = False

    def wanted(self) -> int | None:
        if self.selection is None:
            return self.n0
        return None if self.finished else self.n0 + self.plan.n

    def look(self, histogram: np.ndarray) -> None:
        selecting = self.selection is None
        self.take(histogram, self.wanted() or 0)
        self.finished = not selecting

    def outcome(self) -> Outcome:
        if not self.finished:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        plan = self.plan
        band = np.maximum(band_lower(exceedances(self.fresh), plan.n, plan.alpha) - plan.tv, 0.0)
        p_lower = max(0.0, mean_at(0.0, band, plan.thresholds) - 1e-12)
        radius = plan.sigma * distribution_radius(band, plan.thresholds)
        return self.ended(p_lower, radius, self.fresh)


def pairs(histogram: np.ndarray) -> list[list[int]]:
    """A histogram as (bin, count), empty bins left out: how records keep it."""
    return [[int(b), int(histogram[b])] for b in np.flatnonzero(histogram)]


@functools.lru_cache(maxsize=16)
def _thresholds(bins: int) -> np.ndarray:
    return score_thresholds(bins)
