"""Is the certified radius at least r? One exact group-sequential test per input."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certify.chances import at_most, exactly
from certify.errors import InvalidSetting
from certify.procedures.outcome import NO_SETTING, Outcome, checked_counts, complement, described, stated
from certify.procedures.sided import Between, Standing, both, foreseen
from certify.records import Status
from certify.runner_up import ONE_SIDED, check_share
from certify.sequential import ExactSequentialTest
from certify.sequential.gaps import Gaps
from certify.sequential.uncontested import second_largest


@dataclass(frozen=True)
class Decide:
    """Certify exactly the radius ``radius``, or abstain.

    ``p_target`` is the class probability that proves it, rounded up (``certify.radii``
    ``target_probability`` for Gaussian noise); ``tv`` is added to it (total variation distance
    between the noise drawn and the one the theorem is about). ``runner_up``: the share of alpha that bounds
    the other ``classes``; ``between`` is then the radius that both bounds prove. Raises InvalidSetting where
    n_max samples could not certify even unanimous votes.
    """

    radius: float
    p_target: float
    alpha: float = 1e-3
    n_max: int = 100_000
    first: int = 16
    growth: float = 1.1
    gamma: float = 0.1
    tv: float = 0.0
    runner_up: float = 0.0
    classes: int = field(default=2, metadata=NO_SETTING)
    between: Between | None = field(default=None, compare=False, repr=False, metadata=NO_SETTING)

    name = "decide"
    statistic = "counts"

    def __post_init__(self) -> None:
        check_share(self.runner_up, self.alpha)
        if self.test.accept[-1] > self.n_max and self.test.uncontested is None:
            raise InvalidSetting(
                f"radius {self.radius:g} cannot be certified with {self.n_max} samples",
                why=f"it needs a class probability of {self.p_target:.7g}: even unanimous votes prove less",
                remedy="raise n_max, ask for a smaller radius, or use a larger sigma",
            )

    @property
    def test(self) -> ExactSequentialTest:
        """The sequential test of the class probability that the radius needs."""
        alpha, target = self.alpha * (1 - self.runner_up), self.p_target + self.tv
        return ExactSequentialTest(alpha, target, self.n_max, self.first, self.growth, self.gamma)

    @property
    def gaps(self) -> Gaps:
        """The bounds on leader and runner-up beside the test."""
        return _gaps(self)

    def proves(self, reached: int) -> float:
        """The class probability that is proved once the test has accepted; 0 before."""
        return self.p_target if reached else 0.0

    def reached_at_the_end(self, votes: int, second: int) -> int:
        """How many targets such counts of the two leading classes reach at the last look."""
        test, rule = self.test, self.test.uncontested
        return int(votes >= test.accept[-1] or (rule is not None and rule.certifies(votes, second)))

    def by_both(self, bounds: tuple[float, float]) -> bool:
        """Whether bounds on leader and runner-up prove the radius."""
        p_lower, pb_upper = bounds
        return self.between is not None and p_lower > pb_upper and self.between(*bounds) >= self.radius

    def settings(self) -> dict[str, Any]:
        return stated(self)

    def guarantee(self) -> str:
        if self.runner_up:
            return (
                f"Whether the radius is at least {exactly(self.radius)} was decided at "
                f"{len(self.test.looks)} looks fixed beforehand (at most {self.n_max} samples), by an exact "
                "sequential test of the leader's probability, or by bounds on it and on that of every other "
                f"class; all of these are wrong with probability at most {at_most(self.alpha)} together (a "
                f"share of {self.runner_up:g} for the other classes). Nothing is claimed beyond that radius."
            )
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
        elif self.plan.runner_up and self.plan.by_both(both(self.plan, self.step, self._standing(), 0)):
            self.end = "two-sided"
        elif last:
            self.end = "exhausted"
        elif top <= self.test.futility[self.step] and not self._hopeful():
            self.end = "futile"
        else:
            self.step += 1

    def _uncontested(self, top: int) -> bool:
        rule = self.test.uncontested
        return rule is not None and rule.certifies(top, second_largest(self.counts))

    def _standing(self) -> Standing:
        return Standing.of(self.counts, int(self.test.looks[self.step]), int(np.argmax(self.counts)))

    def _hopeful(self) -> bool:
        """Whether both bounds might prove the radius yet (never without a bound on the runner-up)."""
        plan = self.plan
        return plan.runner_up > 0 and plan.by_both(foreseen(plan, self._standing(), lucky=True))

    def outcome(self) -> Outcome:
        if self.end is None:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        plan, certified = self.plan, self.end in ("accepted", "two-sided")
        leader, samples = int(np.argmax(self.counts)), int(self.test.looks[self.step])
        details: dict[str, Any] = {"end": self.end, "look": self.step}
        p_lower = plan.p_target if certified else 0.0
        pb_upper = complement(p_lower)
        if plan.runner_up:
            reached = int(self.end == "accepted")
            details |= {"target": reached - 1, ONE_SIDED: plan.radius if reached else 0.0}
            if certified:
                p_lower, pb_upper = both(plan, self.step, self._standing(), reached)
        values = described(self.counts, samples, leader, plan.alpha)
        return Outcome(
            status=Status.CERTIFIED if certified else Status.ABSTAINED,
            label=leader if certified else None,
            p_lower=p_lower,
            pb_upper=pb_upper,
            samples=samples,
            details=details,
            proved_radius=plan.radius if certified else None,
            two_sided=plan.runner_up > 0,
            **values,
        )


@functools.lru_cache(maxsize=64)
def _gaps(plan: Decide) -> Gaps:
    test = plan.test
    return Gaps(
        test.looks, [test.p_target], test.accept[None], test.uncontested,
        alpha=plan.alpha, share=plan.runner_up, classes=plan.classes, read=1,
    )  # fmt: skip
