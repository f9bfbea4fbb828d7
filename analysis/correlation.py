"""Does a complexity measure rank networks as their generalization gaps do? Kendall's tau, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from certify.calls import checked
from certify.errors import InvalidInput


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b between one measure and the gap over trained networks, with a bootstrap interval."""

    measure: str
    tau: float
    low: float
    high: float
    p_value: float
    networks: int
    level: float

    def to_json(self) -> dict[str, float | str | int]:
        """Plain JSON types."""
        return asdict(self)


@checked
def rank_correlations(
    measures: Mapping[str, Sequence[float]],
    gaps: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[RankCorrelation]:
    """tau of every measure with the measured gaps, strongest first.

    The interval is the percentile bootstrap over networks. A network on which a measure is not finite
    is left out of that measure's ranking (``networks`` counts the rest); a measure that is constant,
    or finite on fewer than four networks, has no ranking. Reference: Kendall 1938; Jiang et al., ICLR 2020.
    Raises InvalidInput for fewer than four gaps, or a measure with another number of values.
    """
    gap = np.asarray(gaps, dtype=np.float64)
    if len(gap) < 4 or not np.isfinite(gap).all():
        raise InvalidInput(
            f"{len(gap)} gaps cannot be ranked",
            why="a rank correlation with an interval needs at least four finite gaps",
            remedy="train more networks",
        )
    rng = np.random.default_rng(seed)
    rows = []
    for name, values in measures.items():
        measure = np.asarray(values, dtype=np.float64)
        if len(measure) != len(gap):
            raise InvalidInput(
                f"measure {name!r} has {len(measure)} values for {len(gap)} gaps",
                why="each network needs one value of each measure",
                remedy="leave the measure out, or compute it for every network",
            )
        known = np.isfinite(measure)
        if known.sum() < 4 or np.ptp(measure[known]) == 0:
            continue
        ranked, target = measure[known], gap[known]
        tau, p_value = _kendall(ranked, target)
        picks = rng.integers(0, len(target), size=(resamples, len(target)))
        taus = np.array([_kendall(ranked[p], target[p])[0] for p in picks])
        low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
        rows.append(RankCorrelation(name, tau, float(low), float(high), p_value, len(target), level))
    return sorted(rows, key=lambda r: -abs(r.tau))


def _kendall(measure: np.ndarray, gap: np.ndarray) -> tuple[float, float]:
    result: Any = stats.kendalltau(measure, gap)
    return float(result.statistic), float(result.pvalue)
