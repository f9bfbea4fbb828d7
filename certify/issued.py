"""The record of one input, from what its procedure proved and the ball that this is worth."""

from __future__ import annotations

from typing import Any

from certify.geometry import Geometry
from certify.procedures.outcome import Outcome
from certify.records import Record, Status
from certify.runner_up import ONE_SIDED


def issued(id: int, target: int | None, outcome: Outcome, geometry: Geometry, seconds: float) -> Record:
    """The certificate or abstention of input ``id``; ``target``: its true class, where known."""
    certified, bounds = outcome.status is Status.CERTIFIED, (outcome.p_lower, outcome.pb_upper)
    details: dict[str, Any] = dict(outcome.details)
    if outcome.two_sided:
        proved, upper = geometry.between(*bounds), geometry.between(outcome.p_upper, outcome.pb_lower)
        details |= geometry.details(*bounds) if certified else {}
        details.setdefault(ONE_SIDED, geometry.radius(outcome.p_lower))
    else:
        proved, upper = geometry.radius(outcome.p_lower), geometry.radius(outcome.p_upper)
        details |= geometry.details(outcome.p_lower) if certified else {}
    proved = proved if outcome.proved_radius is None else outcome.proved_radius
    return Record(
        index=id,
        status=outcome.status,
        label=outcome.label,
        target=target,
        radius=proved if certified else 0.0,
        radius_upper=upper,
        p_lower=outcome.p_lower,
        p_upper=outcome.p_upper,
        pb_lower=outcome.pb_lower,
        pb_upper=outcome.pb_upper,
        samples=outcome.samples,
        counts=outcome.counts,
        seconds=seconds,
        details=details,
    )
