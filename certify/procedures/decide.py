"""Is the certified radius at least r? One exact group-sequential test per input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from certify.chances import at_most, exactly
from certify.errors import InvalidSetting
from certify.procedures.outcome import Outcome, checked_counts, complement, described
from certify.records import Status
from certify.sequential import ExactSequentialTest
from certify.sequential.uncontested import second_largest


@dataclass(frozen=True)
class Decide:
    """Certify exactly the radius ``radius``, or abstain.

    ``p_target`` is the class probability that proves it, rounded up (``certify.radii``
    ``target_probability`` for Gaussian noise); ``tv`` is added to it (total variation distance
    between the noise drawn and the one the theorem is about). Raises InvalidSetting where n_max
    samples could not certify even unanimous votes.
    """

    radius: float
    p_target: float
    alpha: float = 1e-3
    n_max: int = 100_000
    first: int = 16
    growth: float = 1.1
    gamma: float = 0.1
    tv: float = 0.0

    name = "decide"
    statistic = "counts"

    def __post_init__(self) -> None:
        if self.test.accept[-1] > self.n_max and self.test.uncontested is None:
            raise InvalidSetting(
                f"radius {self.radius:g} cannot be certified with {self.n_max} samples",
                why=f"it needs a class probability of {self.p_target:.7g}: even unanimous votes prove less",
                remedy="raise n_max, ask for a smaller radius, or use a larger sigma",
            )

    @property
    def test(self) -> ExactSequentialTest:
        """The sequential test of the class probability that the radius needs."""
        target = self.p_target + self.tv
        return ExactSequentialTest(self.alpha, target, self.n_max, self.first, self.growth, self.gamma)

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def guarantee(self) -> str:
        return (
            f"Whether the radius is at least {exactly(self.radius)} was decided by an exact sequential test "
            f"with {len(self.test.looks)} looks fixed beforehand and at most {self.n_max} samples; by "
            f"dynamic programming it certifies a wrong input with probability at most "
            f"{at_most(self.test.false_certification)}. Nothing is claimed beyond that radius."
        )

    def start(self) -> DecideProgress:
        return DecideProgress(self)


class DecideProgress:
    """One input: the next look, or the decision."""

    def __init__(self, plan: Decide) -> None:
        self.plan = plan
        self.test = plan.test
        self.step = 0
        self.end: str | None = None
        self.counts = np.zeros(0, dtype=np.int64)

    def wanted(self) -> int | None:
        return None if self.end else int(self.test.looks[self.step])

    def look(self, counts: np.ndarray) -> None:
        self.counts = checked_counts(counts, int(self.test.looks[self.step]))
        top = int(self.counts.max())
        last = self.step + 1 == len(self.test.looks)
        if top >= self.test.accept[self.step] or (last and self._uncontested(top)):
            self.end = "accepted"
        elif last:
            self.end = "exhausted"
        elif top <= self.test.futility[self.step]:
            self.end = "futile"
        else:
            self.step += 1

    def _uncontested(self, top: int) -> bool:
        rule = self.test.uncontested
        return rule is not None and rule.certifies(top, second_largest(self.counts))

    def outcome(self) -> Outcome:
        if self.end is None:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        certified = self.end == "accepted"
        leader, samples = int(np.argmax(self.counts)), int(self.test.looks[self.step])
        p_lower = self.plan.p_target if certified else 0.0
        return Outcome(
            status=Status.CERTIFIED if certified else Status.ABSTAINED,
            label=leader if certified else None,
            p_lower=p_lower,
            pb_upper=complement(p_lower),
            samples=samples,
            details={"end": self.end, "look": self.step},
            proved_radius=self.plan.radius if certified else None,
            **described(self.counts, samples, leader, self.plan.alpha),
        )
