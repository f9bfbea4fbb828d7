"""One input under nested tests: the best target so far, where it was reached, and when to end."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from certify.procedures.outcome import Outcome, checked_counts, complement, described
from certify.procedures.sided import Standing, TwoSidedPlan, both
from certify.records import Status
from certify.runner_up import ONE_SIDED
from certify.sequential.nested import NestedTests
from certify.sequential.uncontested import second_largest


class NestedPlan(TwoSidedPlan, Protocol):
    """A plan whose tests are nested: what its targets prove, and when it has seen enough."""

    @property
    def alpha(self) -> float: ...

    @property
    def runner_up(self) -> float: ...

    def proved(self, best: int) -> tuple[float, float | None]:
        """(p_lower, tested radius) after ``best`` >= 1 targets were reached."""
        ...

    def tested(self, bounds: tuple[float, float], best: int) -> tuple[float | None, dict[str, float]]:
        """The tested radius that both bounds prove, and what else a record keeps."""
        ...

    def stop(self, step: int, top: int, best: int, now: Standing) -> bool:
        """Whether to end at this look."""
        ...


class NestedProgress:
    """One input of ``Grid`` or ``Radius``: the best target so far and where it was reached."""

    def __init__(self, plan: NestedPlan, tests: NestedTests) -> None:
        self.plan, self.tests = plan, tests
        self.step = 0
        self.best = 0
        self.label = -1
        self.reached: tuple[int, int] = (0, 0)
        self.finished = False
        self.counts = np.zeros(0, dtype=np.int64)

    def wanted(self) -> int | None:
        return None if self.finished else int(self.tests.looks[self.step])

    def look(self, counts: np.ndarray) -> None:
        n = int(self.tests.looks[self.step])
        self.counts = checked_counts(counts, n)
        leader = int(np.argmax(self.counts))
        top = int(self.counts[leader])
        best = self.tests.reached(self.step, top, second_largest(self.counts))
        if best > self.best:
            self.best, self.label, self.reached = best, leader, (n, top)
        last = self.step + 1 == len(self.tests.looks)
        if last or self.plan.stop(self.step, top, self.best, self._standing()):
            self.finished = True
        else:
            self.step += 1

    def _standing(self) -> Standing:
        """The class that reached a target, else the leader, against all others."""
        shown = self.label if self.best else int(np.argmax(self.counts))
        return Standing.of(self.counts, int(self.tests.looks[self.step]), shown)

    def outcome(self) -> Outcome:
        if not self.finished:
            raise RuntimeError("the procedure has not finished: samples are still wanted")
        samples = int(self.tests.looks[self.step])
        shown = self.label if self.best else int(np.argmax(self.counts))
        p_lower, pb_upper, radius, one_sided = self._proved()
        certified = p_lower > 0
        details = {"look": self.step, "target": self.best - 1} | one_sided
        if self.best:
            details |= {"reached_at": self.reached[0], "reached_count": self.reached[1]}
        values = described(self.counts, samples, shown, self.plan.alpha)
        values["p_upper"] = max(values["p_upper"], p_lower)
        return Outcome(
            status=Status.CERTIFIED if certified else Status.ABSTAINED,
            label=shown if certified else None,
            p_lower=p_lower,
            pb_upper=pb_upper,
            samples=samples,
            details=details,
            proved_radius=radius,
            two_sided=self.plan.runner_up > 0,
            **values,
        )

    def _proved(self) -> tuple[float, float, float | None, dict[str, float]]:
        """(p_lower, pb_upper, tested radius, the radius without the runner-up); p_lower 0: nothing is."""
        plan = self.plan
        if not plan.runner_up:
            alone = plan.proved(self.best) if self.best else (0.0, None)
            return alone[0], complement(alone[0]), alone[1], {}
        bounds = both(plan, self.step, self._standing(), self.best)
        if not bounds[0] > bounds[1]:
            return 0.0, 1.0, None, {ONE_SIDED: 0.0}
        return *bounds, *plan.tested(bounds, self.best)
