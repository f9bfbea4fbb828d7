"""The claims of the theory, in order: the list that ``analysis.ledger`` walks."""

from __future__ import annotations

from analysis.claims_complexity import CoveringBound
from analysis.claims_radii import (
    CohenRadius,
    DimensionRadius,
    LipschitzRadius,
    MarginRadius,
    PrintedRadius,
)
from analysis.ledger import Claim

CLAIMS: tuple[type[Claim], ...] = (
    PrintedRadius,
    CohenRadius,
    MarginRadius,
    LipschitzRadius,
    DimensionRadius,
    CoveringBound,
)
