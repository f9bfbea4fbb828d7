"""What a sampling procedure promises and what it returns: the contract with the engine.

A ``Procedure`` is a plan shared by all inputs of a run; ``start`` gives one input's ``Progress``.
The engine draws samples until the progress's ``wanted`` total is reached, hands over the
cumulative statistic at exactly that total, and asks again; ``None`` means finished. Nothing
between two looks may influence a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from certify.bounds import binomial_lower, binomial_upper
from certify.errors import InvalidCounts
from certify.radii import radius_between, radius_down
from certify.randomised import uniform_of
from certify.records import Status


@dataclass(frozen=True)
class Outcome:
    """The end of one input.

    ``p_lower`` is the proved lower bound on the label's probability (0 where nothing was proved)
    and ``pb_upper`` bounds every other class; both hold together at level alpha. It is 1 - p_lower, or
    less where the runner-up was bounded, too (``two_sided``: certify.runner_up).
    ``p_upper`` and ``pb_lower`` describe the Monte Carlo uncertainty only. ``proved_radius`` is
    set by procedures that test given radii; the others prove ``p_lower`` and leave the formula
    to ``radius``.
    """

    status: Status
    label: int | None
    p_lower: float
    p_upper: float
    pb_lower: float
    pb_upper: float
    counts: tuple[int, ...]
    samples: int
    details: Mapping[str, Any] = field(default_factory=dict)
    proved_radius: float | None = None
    two_sided: bool = False

    def radius(self, sigma: float) -> float:
        """Certified l2 radius under Gaussian noise of standard deviation sigma, rounded down."""
        if self.status is not Status.CERTIFIED:
            return 0.0
        if self.proved_radius is not None:
            return self.proved_radius
        if self.two_sided:
            return radius_between(self.p_lower, self.pb_upper, sigma)
        return radius_down(self.p_lower, sigma)


class Progress(Protocol):
    """One input under way."""

    def wanted(self) -> int | None:
        """Cumulative number of samples at the next look; None when finished."""
        ...

    def look(self, statistic: np.ndarray, /) -> None:
        """Take the cumulative statistic at exactly ``wanted()`` samples."""
        ...

    def outcome(self) -> Outcome:
        """The result, once ``wanted()`` is None."""
        ...


class Procedure(Protocol):
    """A plan, fixed before the first sample."""

    name: str
    #: What ``Progress.look`` takes: class "counts" (K,), or a "histogram" (K, B + 1) of margin
    #: scores in the bins of the procedure's ``thresholds`` (B,).
    statistic: str

    def settings(self) -> dict[str, Any]:
        """Every number that defines the plan, as JSON types."""
        ...

    def guarantee(self) -> str:
        """The sentence that says what was proved, and how."""
        ...

    def start(self) -> Progress:
        """Begin one input."""
        ...


def begun(procedure: Procedure, *, seed: int, id: int) -> Progress:
    """Begin the input ``id`` of a run with this seed: they fix its random number, if the plan has one."""
    plan: Any = procedure
    return plan.start(uniform_of(seed, id)) if getattr(plan, "randomised", False) else plan.start()


def most_samples(procedure: Procedure) -> int:
    """How many samples of one input the plan can ask for at most."""
    said = procedure.settings()
    return int(said.get("n0", 0)) + int(said["n_max"] if "n_max" in said else said["n"])


def checked_counts(counts: np.ndarray, samples: int) -> np.ndarray:
    """Class counts (K,) int64 at ``samples`` samples; a sample without a class counts for none.

    Raises InvalidCounts where no experiment can have produced them.
    """
    values = np.asarray(counts)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise InvalidCounts(
            f"class counts of shape {values.shape} and type {values.dtype} cannot be read",
            why="a look takes one whole number per class",
            remedy="pass the cumulative counts as an integer array of shape (classes,)",
        )
    if values.min() < 0 or int(values.sum()) > samples:
        raise InvalidCounts(
            f"class counts summing to {int(values.sum())} cannot come from {samples} samples",
            why="counts are cumulative and each sample votes for at most one class",
            remedy="call look with the counts at exactly wanted() samples",
        )
    return values.astype(np.int64)


def described(counts: np.ndarray, samples: int, leader: int, alpha: float) -> dict[str, Any]:
    """The descriptive ends of the intervals (fixed-sample Clopper-Pearson on the final counts)."""
    others = np.delete(counts, leader)
    second = int(others.max()) if len(others) else 0
    return {
        "p_upper": binomial_upper(int(counts[leader]), samples, alpha),
        "pb_lower": binomial_lower(second, samples, alpha),
        "counts": tuple(int(c) for c in counts),
    }


def complement(p_lower: float) -> float:
    """1 - p_lower, rounded up."""
    return min(1.0, float(np.nextafter(1.0 - p_lower, 2.0))) if p_lower > 0 else 1.0


#: Marks the fields of a plan that are no settings of its own: other settings of the run say them.
NO_SETTING = {"setting": False}


#: Settings that are left out where they are off.
_UNSAID = ("runner_up", "randomised")


def stated(plan: Any) -> dict[str, Any]:
    """A plan's numbers as JSON types; without the share of the runner-up where it has none, and the like."""
    options = {f.name: getattr(plan, f.name) for f in fields(plan) if f.metadata.get("setting", True)}
    return {name: value for name, value in options.items() if value or name not in _UNSAID}
