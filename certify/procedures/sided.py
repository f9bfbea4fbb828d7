"""What a sequential plan says of both sides at a look: of the leader, and of the runner-up.

The statements and their proof are in ``certify.sequential.gaps``; here they become bounds under the law of
the theorem (the noise's own error is paid), and forecasts that decide only how long to sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from certify.procedures.outcome import complement
from certify.runner_up import raised, rival_votes
from certify.sequential.gaps import Gaps, hopeful

#: The radius that bounds on leader and runner-up prove, rounded down.
Between = Callable[[float, float], float]


class TwoSidedPlan(Protocol):
    """A plan with targets, and gaps between them."""

    @property
    def tv(self) -> float: ...

    @property
    def gaps(self) -> Gaps: ...

    def proves(self, reached: int) -> float:
        """The class probability that is proved once so many targets were reached; 0 for none."""
        ...

    def reached_at_the_end(self, votes: int, second: int) -> int:
        """How many targets such counts at the last look reach."""
        ...


@dataclass(frozen=True)
class Standing:
    """The counts of a look, as far as both sides are concerned."""

    votes: int
    rival: int
    samples: int

    @classmethod
    def of(cls, counts: np.ndarray, samples: int, label: int) -> Standing:
        """``label`` against the most-voted of all others, samples without a class included."""
        return cls(int(counts[label]), rival_votes(counts, samples, label), samples)


def both(plan: TwoSidedPlan, look: int, now: Standing, reached: int) -> tuple[float, float]:
    """(p_lower, pb_upper) at a look, after so many targets were reached: they hold together."""
    return _paid(plan, plan.gaps.bounds(look, now.votes, now.rival, reached), reached)


def foreseen(plan: TwoSidedPlan, now: Standing, *, lucky: bool) -> tuple[float, float]:
    """The same at the last look, if the shares of now stay; ``lucky``: if they turn for the better, too."""
    votes, rival = hopeful(now.votes, now.rival, now.samples) if lucky else (now.votes, now.rival)
    last, end = len(plan.gaps.looks) - 1, int(plan.gaps.looks[-1])
    most = min(end, int(votes * end / now.samples))
    rest = min(end - most, int(np.ceil(rival * end / now.samples)))
    reached = plan.reached_at_the_end(most, rest)
    return _paid(plan, plan.gaps.bounds(last, most, rest, reached), reached)


def _paid(plan: TwoSidedPlan, drawn: tuple[float, float], reached: int) -> tuple[float, float]:
    p_lower = max(plan.proves(reached), drawn[0] - plan.tv, 0.0)
    return p_lower, min(complement(p_lower), raised(drawn[1], plan.tv))
