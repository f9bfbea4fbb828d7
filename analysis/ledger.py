"""Theory beside measurement: every claim, the test that tries to refute it, and its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from analysis.claims import CLAIMS
from analysis.evidence import Claim, Evidence, LedgerRow
from certify.calls import checked
from certify.records import Run

if TYPE_CHECKING:
    import pandas

    from analysis.result import BoundResult
    from certify.store import StoredRun


@dataclass(frozen=True)
class Ledger:
    """The table of claims, in the order of the theory."""

    rows: tuple[LedgerRow, ...]

    def __iter__(self) -> Iterator[LedgerRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def claim(self, name: str) -> list[LedgerRow]:
        """The rows of one claim, by its name."""
        return [row for row in self.rows if row.claim == name]

    @property
    def alarms(self) -> list[LedgerRow]:
        """Theorems that the evidence contradicts: must be empty."""
        return [row for row in self.rows if row.sound and row.status == "violated"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: one entry per row, under "claims"."""
        return {"claims": [row.to_json() for row in self.rows]}

    def frame(self) -> pandas.DataFrame:
        """One row per confrontation as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame([row.to_json() for row in self.rows])


@checked
def ledger(
    run: StoredRun | Run | None = None,
    *,
    attacks: Sequence[Mapping[str, Any]] | None = None,
    points: Tensor | None = None,
    bounds: Sequence[BoundResult] = (),
    claims: Sequence[type[Claim]] | None = None,
    draws: int = 400,
    seed: int = 0,
) -> Ledger:
    """Check every claim against a run, its attacks and a sample of points.

    ``run`` is a stored run (``certify.store.read_run``) or a Run; without one only the exactly
    solvable cases are checked. ``attacks`` overrides the stored run's attack outcomes. ``points``
    (N, ...) is the sample for the complexity claims; ``bounds`` are generalization bounds to
    set beside the measured gap. ``draws`` and ``seed`` belong to the Monte Carlo complexities.
    """
    inner = run if isinstance(run, Run) else getattr(run, "run", None)
    stored = getattr(run, "attacks", ()) if attacks is None else attacks
    settings = getattr(run, "settings", {})
    evidence = Evidence(
        records=tuple(inner.records) if inner is not None else (),
        settings=settings,
        attacks=tuple(_plain(a) for a in stored),
        documents=getattr(run, "documents", {}) or {},
        points=points,
        bounds=tuple(bounds),
        draws=draws,
        seed=seed,
    )
    chosen = CLAIMS if claims is None else claims
    return Ledger(tuple(row for claim in chosen for row in claim().check(evidence)))


def _plain(outcome: Any) -> Mapping[str, Any]:
    return outcome if isinstance(outcome, Mapping) else outcome.to_json()
