"""Does a complexity measure rank networks as their generalization gaps do? Kendall's tau, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

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
        return asdict(self)


def rank_correlations(
    measures: Mapping[str, Sequence[float]],
    gaps: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[RankCorrelation]:
    """tau of every measure with the measured gaps, strongest first.

    The interval is the percentile bootstrap over networks. A measure that is constant or not
    finite somewhere has no ranking and is left out. Reference: Kendall 1938; Jiang et al., ICLR 2020.
    """
    gap = np.asarray(gaps, dtype=np.float64)
    if len(gap) < 4 or not np.isfinite(gap).all():
        raise InvalidInput(
            f"{len(gap)} gaps cannot be ranked",
            why="a rank correlation with an interval needs at least four finite gaps",
            remedy="train more networks",
        )
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(gap), size=(resamples, len(gap)))
    rows = []
    for name, values in measures.items():
        measure = np.asarray(values, dtype=np.float64)
        if len(measure) != len(gap):
            raise InvalidInput(
                f"measure {name!r} has {len(measure)} values for {len(gap)} gaps",
                why="each network needs one value of each measure",
                remedy="leave the measure out, or compute it for every network",
            )
        if not np.isfinite(measure).all() or np.ptp(measure) == 0:
            continue
        tau, p_value = _kendall(measure, gap)
        taus = np.array([_kendall(measure[p], gap[p])[0] for p in picks])
        low, high = np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])
        rows.append(RankCorrelation(name, tau, float(low), float(high), p_value, len(gap), level))
    return sorted(rows, key=lambda r: -abs(r.tau))


def _kendall(measure: np.ndarray, gap: np.ndarray) -> tuple[float, float]:
    result: Any = stats.kendalltau(measure, gap)
    return float(result.statistic), float(result.pvalue)
