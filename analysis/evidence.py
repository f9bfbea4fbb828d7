"""What the ledger of claims is made of: a claim, the evidence it is checked against, a row of the result.

A claim is a class. It states what is asserted, under which assumption, where it comes from
and what is known about it, and it has a ``check`` that confronts it with evidence: the records
and confirmed attacks of a stored run, a sample of points, an exactly solvable case.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from analysis.streams import stream
from certify.records import Record

if TYPE_CHECKING:
    from analysis.result import BoundResult

Outcome = Literal["holds", "violated", "undetermined"]


@dataclass(frozen=True)
class LedgerRow:
    """One confrontation of one claim with one measurement.

    ``theory`` is what the claim asserts about ``quantity``, ``measured`` what was found, with
    its interval [low, high]; ``slack`` is how far the claim is from being tight (negative where it
    is violated). ``checked`` counts the cases looked at, ``violations`` those that refute the claim,
    ``example`` describes the worst of them. ``sound`` says whether the claim is a theorem:
    a violated sound claim means that a proof, this program or the evidence is wrong.
    """

    claim: str
    statement: str
    assumption: str
    reference: str
    verdict: str
    sound: bool
    quantity: str
    theory: float | None
    measured: float | None
    low: float | None
    high: float | None
    slack: float | None
    status: Outcome
    vacuous: bool = False
    violations: int = 0
    checked: int = 0
    example: Mapping[str, Any] | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; numbers that are not finite become None."""
        row = asdict(self)
        for key in ("theory", "measured", "low", "high", "slack"):
            value = row[key]
            row[key] = float(value) if value is not None and math.isfinite(value) else None
        return row


@dataclass(frozen=True)
class Evidence:
    """What the claims are checked against; every part but the generator may be missing."""

    records: tuple[Record, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    attacks: tuple[Mapping[str, Any], ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    points: Tensor | None = None
    bounds: tuple[BoundResult, ...] = ()
    draws: int = 400
    seed: int = 0

    @property
    def sigma(self) -> float | None:
        """The isotropic noise's standard deviation, or None where the run has none."""
        value = self.settings.get("sigma")
        return float(value) if isinstance(value, int | float) else None

    @property
    def dim(self) -> int | None:
        """Coordinates of one input; None where the run does not say."""
        value = self.settings.get("dim")
        return int(value) if value else None

    @property
    def gaussian(self) -> bool:
        """Whether the run's noise is (lattice-rounded) isotropic Gaussian: what T1-T5 speak about."""
        return self.settings.get("noise", "gaussian") in ("gaussian", "lattice") and self.sigma is not None

    def generator(self) -> torch.Generator:
        """A fresh stream, the same for every claim."""
        return stream(self.seed, "ledger")

    def distances(self, key: str = "distance_l2") -> dict[int, Mapping[str, Any]]:
        """By input: the nearest confirmed adversarial example against the smoothed classifier.

        Only outcomes whose class differs from the certified one count: they are the ones that a
        radius has to stay below. ``distance_l2`` and ``distance_linf`` are known for every outcome;
        ``distance`` is in the threat's own norm and counts only where that is the run's norm.
        """
        own = str(self.settings.get("norm", "2"))
        labels = {r.index: r.label for r in self.records if r.certified}
        nearest: dict[int, Mapping[str, Any]] = {}
        for outcome in self.attacks:
            index = outcome.get("index")
            if index not in labels or not outcome.get("smoothed") or outcome.get("status") != "broken":
                continue
            if key == "distance" and str(outcome.get("norm")) != own:
                continue
            distance, found = outcome.get(key), outcome.get("prediction")
            if distance is None or found is None or found == labels[index]:
                continue
            if index not in nearest or distance < nearest[index][key]:
                nearest[index] = outcome
        return nearest


class Claim(ABC):
    """One statement of the theory and the test that tries to refute it."""

    name: ClassVar[str]
    statement: ClassVar[str]
    assumption: ClassVar[str]
    reference: ClassVar[str]
    verdict: ClassVar[str]
    sound: ClassVar[bool]

    @abstractmethod
    def check(self, evidence: Evidence) -> list[LedgerRow]:
        """Confront the claim with the evidence; at least one row, ``undetermined`` without any."""

    def row(self, quantity: str, status: Outcome, **values: Any) -> LedgerRow:
        """A ledger row with this claim's own words filled in."""
        empty = dict.fromkeys(("theory", "measured", "low", "high", "slack"))
        own = {
            key: getattr(self, key) for key in ("statement", "assumption", "reference", "verdict", "sound")
        }
        return LedgerRow(
            **{**empty, **own, "claim": self.name, "quantity": quantity, "status": status, **values}
        )

    def undetermined(self, quantity: str, why: str) -> LedgerRow:
        """A row that says why nothing could decide the claim."""
        return self.row(quantity, "undetermined", note=why)
