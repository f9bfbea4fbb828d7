"""Cohen's procedure: choose the class on n0 samples, bound its probability on n fresh ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.bounds import check_alpha
from certify.chances import at_most
from certify.procedures.outcome import Outcome, checked_counts, complement, described, stated
from certify.randomised import DRAWN, UNIFORM, randomised_lower
from certify.records import Status
from certify.runner_up import check_share, rival_votes, rivals_upper
from certify.sequential.boundaries import whole


@dataclass(frozen=True)
class Fixed:
    """CERTIFY of Cohen, Rosenfeld and Kolter (ICML 2019), Theorem 1 with p_B := 1 - p_A.

    Certified when the one-sided Clopper-Pearson bound at level ``alpha`` exceeds 1/2. The n0
    selection samples never enter the bound. ``tv`` is the total variation distance between the
    noise that was drawn and the one the theorem is about; it is subtracted from the bound.

    ``runner_up``: the share of alpha that bounds the other classes from above (``certify.runner_up``; with 0
    p_B := 1 - p_A). Certified is then whatever leads them, and the theorem is read with both bounds.

    ``randomised``: the bound on the class is the randomised one (``certify.randomised``), with one uniform
    number per input, drawn by its key; larger for every input.
    """

    alpha: float = 1e-3
    n0: int = 100
    n: int = 100_000
    tv: float = 0.0
    runner_up: float = 0.0
    randomised: bool = False

    name = "fixed"
    statistic = "counts"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_share(self.runner_up, self.alpha)
        whole(self.n0, "n0")
        whole(self.n, "n")

    def settings(self) -> dict[str, Any]:
        return stated(self)

    def guarantee(self) -> str:
        return self._bounds_said() + (DRAWN if self.randomised else "")

    def _bounds_said(self) -> str:
        if self.runner_up:
            return (
                f"The class was chosen on {self.n0} samples. On {self.n} fresh ones its probability was "
                "bounded from below, and that of every other class from above, by two one-sided "
                f"Clopper-Pearson bounds whose levels add up to {at_most(self.alpha)} (a share of "
                f"{self.runner_up:g} for the other classes)."
            )
        return (
            f"The class was chosen on {self.n0} samples and its probability bounded on {self.n} fresh ones "
            f"by a one-sided Clopper-Pearson bound at level {at_most(self.alpha)}."
        )

    def start(self, uniform: float = 1.0) -> FixedProgress:
        """Begin one input; ``uniform`` in (0, 1] is its own random number, used where ``randomised``."""
        return FixedProgress(self, uniform if self.randomised else None)


class FixedProgress:
    """Two looks: after selection, and after estimation."""

    def __init__(self, plan: Fixed, uniform: float | None = None) -> None:
        self.plan = plan
        self.uniform = uniform
        self.selection: np.ndarray | None = None
        self.estimation: np.ndarray | None = None

    def wanted(self) -> int | None:
        if self.selection is None:
            return self.plan.n0
        return self.plan.n0 + self.plan.n if self.estimation is None else None

    def look(self, counts: np.ndarray) -> None:
        counts = checked_counts(counts, self.wanted() or 0)
        if self.selection is None:
            self.selection = counts
        else:
            self.estimation = checked_counts(counts - self.selection, self.plan.n)

    def outcome(self) -> Outcome:
        if self.selection is None or self.estimation is None:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        plan, label = self.plan, int(np.argmax(self.selection))
        p_lower, pb_upper = self._bounds(label, self.estimation)
        certified = p_lower > (pb_upper if plan.runner_up else 0.5)
        drawn = {} if self.uniform is None else {UNIFORM: self.uniform}
        return Outcome(
            status=Status.CERTIFIED if certified else Status.ABSTAINED,
            label=label if certified else None,
            p_lower=p_lower,
            pb_upper=pb_upper,
            samples=plan.n0 + plan.n,
            details={"selected": label, "selection_counts": self.selection.tolist()} | drawn,
            two_sided=plan.runner_up > 0,
            **described(self.estimation, plan.n, label, plan.alpha),
        )

    def _bounds(self, label: int, counts: np.ndarray) -> tuple[float, float]:
        """(lower bound on the label's probability, upper bound on every other class's)."""
        plan, votes, alpha = self.plan, int(counts[label]), (1 - self.plan.runner_up) * self.plan.alpha
        uniform = 1.0 if self.uniform is None else self.uniform
        p_lower = max(0.0, randomised_lower(votes, plan.n, alpha, uniform) - plan.tv)
        if not plan.runner_up:
            return p_lower, complement(p_lower)
        shared = {"alpha": plan.alpha, "share": plan.runner_up, "tv": plan.tv}
        upper = rivals_upper(rival_votes(counts, plan.n, label), plan.n, **shared)
        return p_lower, min(upper, complement(p_lower))
