"""Margins and the bound they give: few small margins in a simple class mean low risk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.given import check_delta, check_labels
from analysis.result import GUARANTEED, BoundResult
from certify.calls import checked
from certify.errors import InvalidInput

#: Margins are tried at 2^(k/2); each k gets delta / (3 (|k| + 1)^2), which sums to less than delta.
_GRID = range(-120, 121)


@dataclass(frozen=True)
class MarginDistribution:
    """Margins s_y - max_{c != y} s_c of a sample, sorted; negative where the point is misclassified."""

    values: np.ndarray

    def below(self, gamma: float) -> float:
        """Share of points with margin <= gamma."""
        return float(np.searchsorted(self.values, gamma, side="right") / len(self.values))

    def ramp(self, gamma: float) -> float:
        """Mean of min(1, max(0, 1 - margin/gamma)): between the error and ``below(gamma)``."""
        return float(np.clip(1.0 - self.values / gamma, 0.0, 1.0).mean())


@checked
def margin_distribution(logits: Tensor, labels: Tensor) -> MarginDistribution:
    """The margins of logits (n, classes) at labels (n,). Raises InvalidInput for non-finite logits."""
    if (
        logits.ndim != 2
        or labels.ndim != 1
        or len(logits) != len(labels)
        or not bool(torch.isfinite(logits).all())
    ):
        raise InvalidInput(
            "margins need finite logits (n, classes) and n labels",
            why=f"got shapes {tuple(logits.shape)} and {tuple(labels.shape)}, or NaN",
            remedy="pass model(x) and y",
        )
    check_labels(labels, len(logits), logits.shape[1])
    labels = labels.long()
    scores = logits.detach().double().clone()
    picked = scores.gather(1, labels[:, None])[:, 0]
    scores.scatter_(1, labels[:, None], -math.inf)
    return MarginDistribution(np.sort((picked - scores.amax(1)).numpy()))


@checked
def margin_bound(
    margins: MarginDistribution,
    complexity: Callable[[float], float],
    scale: float,
    delta: float = 0.05,
    *,
    name: str,
    reference: str,
    assumptions: tuple[str, ...] = (),
) -> BoundResult:
    """Risk <= ramp(gamma) + complexity(gamma) + 3 sqrt(ln(2/delta_k)/(2N)), best over gamma.

    ``scale`` is the network's norm: divided by it, the network lies in the class of norm 1 and its
    margins shrink alike. ``complexity(gamma)`` bounds twice R_S of the ramp losses of that unit class
    at margin gamma (see ``lipschitz_complexity``). gamma is chosen after training from the grid
    2^(k/2), the k-th choice at delta / (3 (|k|+1)^2).

    References: Bartlett and Mendelson 2002; Mohri, Rostamizadeh and Talwalkar 2018, Theorems 5.8
    and 9.2; Maurer, ALT 2016 (vector contraction).
    """
    n, delta = len(margins.values), check_delta(delta)
    best = (math.inf, 0, 0.0, 0.0, 0.0)
    for k in _GRID:
        gamma = 2.0 ** (k / 2)
        capacity = complexity(gamma)
        confidence = 3 * math.sqrt(math.log(2 * 3 * (abs(k) + 1) ** 2 / delta) / (2 * n))
        if capacity + confidence < best[0]:
            ramp = margins.ramp(gamma * scale)
            total = ramp + capacity + confidence
            best = min(best, (total, k, ramp, capacity, confidence))
    value, k, ramp, capacity, confidence = best
    return BoundResult(
        name=name,
        reference=reference,
        target="risk",
        predictor="deterministic network",
        side="upper",
        validity=GUARANTEED,
        value=value,
        low=0.0,
        high=value,
        terms={
            "ramp_loss": ramp, "complexity": capacity, "confidence": confidence, "scale": scale,
            "margin": 2.0 ** (k / 2) * scale,
        },
        delta=delta,
        union_terms={"grid_index": float(k), "delta_k": delta / (3 * (abs(k) + 1) ** 2)},
        data_used=f"{n} training points",
        assumptions=("training points i.i.d.", *assumptions),
    )  # fmt: skip


def lipschitz_complexity(unit_complexity: float, factor: float) -> Callable[[float], float]:
    """gamma -> factor unit_complexity / gamma, from R_S of the unit class by contraction.

    ``factor`` is 2 for one scalar score, 4 K for K classes by the complexity of their scalar scores,
    4 for the vector-valued complexity of all scores together.
    """
    return lambda gamma: factor * unit_complexity / gamma
