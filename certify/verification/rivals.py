"""Level 2 for runs that bound the runner-up, too: what the most-voted other class proves, worked out again.

A share s of alpha pays for the bound on all other classes, the rest for the leader. That bound belongs to the
largest count among the others (samples without a class are one of them): it is too small with probability
at most s alpha, since it would have to be so for the one class that is the runner-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from certify.records import Record
from certify.verification.independent import tail_at_most, upper_bound

#: Agreement asked of two ways to compute the same number, and of a tail with its level.
CLOSE = 1e-9
_ROUNDING = 1e-6


def share_of(settings: Mapping[str, Any]) -> float:
    """The share of alpha that pays for the runner-up; 0 where the run does without."""
    return float(settings["mode_options"].get("runner_up", 0.0))


def share_faults(settings: Mapping[str, Any]) -> str | None:
    """Why no run can have divided its alpha like this, or None."""
    share = share_of(settings)
    if "runner_up" not in settings["mode_options"]:
        return None
    if not 0.0 < share < 1.0:
        return f"a share of {share} of alpha is said to pay for the runner-up"
    if int(settings["num_classes"]) < 3 or settings.get("scores", "votes") != "votes":
        return "the runner-up is bounded among more than two classes, from votes"
    return None


def most_voted(counts: Sequence[int], n: int, label: int) -> int:
    """The largest count among all but ``label``, the samples without a class included."""
    return max([n - sum(counts), *(k for c, k in enumerate(counts) if c != label)])


def upper_fault(r: Record, label: int, n: int, alpha: float, tv: float) -> str | None:
    """Why pb_upper does not follow from the votes against ``label`` at level alpha, or None."""
    k = most_voted(r.counts, n, label)
    left, proved = 1.0 - r.p_lower, min(1.0, upper_bound(k, n, alpha) + tv)
    told = f"pb_upper is {r.pb_upper:.9g}, {k} of {n} votes at level {alpha:g} prove {min(left, proved):.9g}"
    if abs(r.pb_upper - min(left, proved)) > CLOSE:
        return told
    enough = r.pb_upper + r.p_lower >= 1.0 or r.pb_upper >= 1.0
    if not enough and tail_at_most(k, n, r.pb_upper - tv) > alpha * (1 + _ROUNDING):
        return told
    return None


def one_sided_fault(r: Record, proved: float, *, tested: bool) -> str | None:
    """Why the record's radius for p_B := 1 - p_A is not what p_lower proves, or None.

    ``tested``: the run's radii are given ones, and what is proved may be more.
    """
    said = r.details.get("one_sided")
    if not isinstance(said, int | float) or not math.isfinite(said) or said < 0:
        return f"its radius without the runner-up is given as {said!r}"
    apart = said - proved
    if apart > CLOSE * max(1.0, proved) or (not tested and apart < -CLOSE * max(1.0, proved)):
        return f"its radius without the runner-up is {said:.9g}, p_lower = {r.p_lower:.9g} gives {proved:.9g}"
    return None
