"""What every bound and estimate returns: the number, what it bounds, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["upper", "lower", "estimate"]

#: Holds by a theorem, for these numbers, with no sampling involved.
EXACT = "exact"
#: Holds with probability at least 1 - delta, for every sample size.
GUARANTEED = "guaranteed"
#: As GUARANTEED, if what the network holds beside its weights does not depend on the points.
GUARANTEED_IF_FIXED = "guaranteed if the buffers are independent of the points"
#: Holds in the limit of many draws (a t or bootstrap interval).
ASYMPTOTIC = "asymptotic"
#: A formula somebody printed that is false; computed so that it can be refuted.
UNSOUND = "unsound as printed"


@dataclass(frozen=True)
class BoundResult:
    """One bound or estimate of one quantity.

    ``value`` is the number to quote. For ``side="upper"`` it is the upper bound, for ``"lower"``
    the lower bound, for ``"estimate"`` the point estimate; ``[low, high]`` brackets ``target``
    as ``validity`` says (an exact value has low = value = high, a one-sided bound has an infinite
    or trivial other end). ``predictor`` says whose risk it is: the Gibbs classifier of a
    posterior, the deterministic network, the smoothed network, or a whole class of functions.
    ``terms`` holds the numbers the value was put together from, ``union_terms`` how delta was
    split over choices made after seeing the data.
    """

    name: str
    reference: str
    target: str
    predictor: str
    side: Side
    validity: str
    value: float
    low: float
    high: float
    terms: Mapping[str, float] = field(default_factory=dict)
    delta: float | None = None
    union_terms: Mapping[str, float] = field(default_factory=dict)
    data_used: str = ""
    assumptions: tuple[str, ...] = ()
    seed: int | None = None
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether the value is backed by a theorem or a valid estimator."""
        return self.validity != UNSOUND

    @property
    def vacuous(self) -> bool:
        """Whether an upper bound on an error rate says nothing (it is 1 or more, or not finite)."""
        return self.side == "upper" and self.target.startswith("risk") and not self.value < 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; an infinite end becomes None."""
        row = asdict(self)
        row["assumptions"] = list(self.assumptions)
        row["terms"] = {k: _finite(v) for k, v in self.terms.items()}
        row["union_terms"] = {k: _finite(v) for k, v in self.union_terms.items()}
        for key in ("value", "low", "high"):
            row[key] = _finite(row[key])
        row["vacuous"] = self.vacuous
        return row


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
