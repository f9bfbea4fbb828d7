"""The claims of the theory, in order: the list that ``analysis.ledger`` walks."""

from __future__ import annotations

from analysis.claims_complexity import CoveringBound
from analysis.claims_extended import (
    InternalNoise,
    OtherNorms,
    ScoreDistribution,
    SoftScores,
    TrainedDiffusion,
)
from analysis.claims_generalization import RiskBounds
from analysis.claims_radii import (
    CohenRadius,
    DimensionRadius,
    LipschitzRadius,
    MarginRadius,
    PrintedRadius,
)
from analysis.claims_transport import EvolvedClass, Oracles
from analysis.evidence import Claim

CLAIMS: tuple[type[Claim], ...] = (
    PrintedRadius,
    CohenRadius,
    MarginRadius,
    LipschitzRadius,
    DimensionRadius,
    SoftScores,
    ScoreDistribution,
    InternalNoise,
    TrainedDiffusion,
    OtherNorms,
    CoveringBound,
    EvolvedClass,
    Oracles,
    RiskBounds,
)
