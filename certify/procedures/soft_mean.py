"""A bound on the mean of the soft scores, by stakes planned for a number of samples.

The bound and its proof: ``certify.scores.timed``. Which classifier is certified, and how its class is
chosen: ``certify.procedures.soft_modes``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from certify.bounds import check_alpha
from certify.chances import at_least
from certify.procedures.outcome import Outcome
from certify.procedures.soft_modes import Selecting, Soft, pairs
from certify.scores.timed import Spread, TimedBets, forecast, horizon_for, mean_thresholds
from certify.sequential.boundaries import check_slack, whole


@dataclass(frozen=True)
class SoftMean:
    """A bound on the mean margin score, read after blocks of samples.

    Sampling ends when the radius is within the share ``slack`` of what n_max samples are forecast to
    prove (slack 0: always n_max). The stakes are planned for the number of samples at which the
    selection lets expect that.
    """

    alpha: float = 1e-3
    n_max: int = 100_000
    slack: float = 0.05
    n0: int = 64
    bins: int = 512
    tv: float = 0.0

    name = "soft"
    statistic = "histogram"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        whole(self.n0, "n0")
        whole(self.n_max, "n_max")
        check_slack(self.slack)
        mean_thresholds(self.bins)

    @property
    def thresholds(self) -> np.ndarray:
        """(B,) in (0, 1]: a score's bin is searchsorted(thresholds, score, side="right")."""
        return mean_thresholds(self.bins)

    def settings(self) -> dict[str, Any]:
        return asdict(self) | {"bets": "timed"}

    def guarantee(self) -> str:
        return (
            f"The class was chosen on {self.n0} samples; the mean of its soft margin score was bounded on"
            f" fresh ones by betting, with stakes that depend on earlier samples only (at most {self.n_max}"
            f" samples), which holds at every look together with probability at least {at_least(self.alpha)}."
            " The certified classifier is the one that averages scores, not the one that counts votes."
        )

    def start(self) -> SoftMeanProgress:
        return SoftMeanProgress(self)


class SoftMeanProgress(Selecting):
    """One input: selection, then a bound after every block."""

    def __init__(self, plan: SoftMean) -> None:
        super().__init__(plan.n0, plan.thresholds, plan.alpha)
        self.plan = plan
        self.bets: TimedBets | None = None
        self.best, self.proving = 0.0, 0
        self.finished = False

    def wanted(self) -> int | None:
        if self.bets is None:
            return self.n0
        return None if self.finished else self.n0 + self.bets.done + self.bets.next_block()

    def look(self, histogram: np.ndarray) -> None:
        before = self.fresh
        self.take(histogram, self.wanted() or 0)
        if self.bets is None:
            self.bets = self._begun()
            return
        self.bets.take(self.fresh - before)
        if self._may_end():
            bound = self.bets.lower() - self.plan.tv
            if bound > self.best:
                self.best, self.proving = bound, len(self.bets.blocks)
            self.finished = self.total >= self.plan.n_max or self._enough()

    def outcome(self) -> Outcome:
        if not self.finished or self.bets is None or self.selection is None:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        blocks = self.bets.blocks[: self.proving]
        details = {
            "selection": pairs(self.selection[self.label]),
            "horizon": self.bets.horizon,
            "blocks": [pairs(block) for block in blocks],
        }
        return self.ended(self.best, None, np.sum(blocks, axis=0) if blocks else self.fresh, **details)

    def _begun(self) -> TimedBets:
        assert self.selection is not None
        plan, chosen = self.plan, self.selection[self.label]
        spread = Spread.of(self.floors, chosen)
        horizon = horizon_for(spread, plan.n_max, plan.slack, plan.alpha)
        return TimedBets(self.floors, chosen, alpha=plan.alpha, horizon=horizon, n_max=plan.n_max)

    def _may_end(self) -> bool:
        """Planned stakes pay towards the horizon: reading the bound long before it is wasted work."""
        assert self.bets is not None
        return self.total >= self.plan.n_max or (self.plan.slack > 0 and 2 * self.total >= self.bets.horizon)

    def _enough(self) -> bool:
        """Power only: whether to stop, from what n_max samples are forecast to prove."""
        plan = self.plan
        if plan.slack == 0:
            return False
        spread = Spread.of(self.floors, self.fresh)
        if spread.mean + 4 * spread.deviation / math.sqrt(self.total) < 0.5:
            return True
        hoped = forecast(spread, plan.n_max, plan.alpha) - plan.tv
        return self.best > 0.5 and special.ndtri(self.best) >= (1 - plan.slack) * special.ndtri(
            max(hoped, 0.5)
        )


def soft_scores(bins: int, bets: str) -> SoftMean | Soft:
    """A plan whose bins are those of records with these ``bets``, for counting scores alone."""
    return SoftMean(bins=bins) if bets == "timed" else Soft(0.0, 0.5, bins=bins)
