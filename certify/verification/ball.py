"""The radius that a class probability proves, written out a second time.

| noise | norm | radius for probability p of the class, all others 1 - p |
|---|---|---|
| lattice, gaussian | l2 | sigma Phi^-1(p) |
| lattice, gaussian | lp, p > 2 | the same, times d^(1/p - 1/2): the lp ball inside the l2 ball |
| internal | l2, lp | as gaussian, with sigma worked out from the noise scales and Lipschitz bounds |
| anisotropic | l2 | smallest sigma times Phi^-1(p) |
| uniform | l1 | sqrt(3) sigma (2p - 1): sigma is the standard deviation of the noise |
| laplace | l1 | -(sigma / sqrt(2)) ln(2 (1 - p)) |

Where every other class has q < p at most, the same or, if it is more: (Phi^-1(p) - Phi^-1(q)) / 2 in place
of Phi^-1(p); sqrt(3) sigma (p - q); the larger of b ln(p / q) / 2 and -b ln(1 - p + q), b = sigma / sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from certify.verification.independent import normal_radius, quantile


def reach_of(settings: Mapping[str, Any]) -> Callable[[float], float] | None:
    """p -> radius for the run's noise and norm; None for a pair that is not in the table."""
    name, p, sigma = _law(settings)
    scale = _step(settings)
    if scale is not None:
        return lambda q: math.inf if q >= 1.0 else normal_radius(q, scale)
    if name == "uniform" and p == 1:
        return lambda q: math.sqrt(3) * sigma * max(0.0, 2 * q - 1)
    if name == "laplace" and p == 1:
        return lambda q: 0.0 if q <= 0.5 else -sigma / math.sqrt(2) * math.log(2 * max(1 - q, 2.0**-53))
    return None


def between_of(settings: Mapping[str, Any]) -> Callable[[float, float], float] | None:
    """(p, q) -> radius where the class has p or more and every other one q or less; None as ``reach_of``."""
    alone = reach_of(settings)
    if alone is None:
        return None
    (name, _, sigma), scale = _law(settings), _step(settings)

    def both(p: float, q: float) -> float:
        if name == "uniform":
            return math.sqrt(3) * sigma * (p - q)
        if name == "laplace":
            margin, ratio = -math.log(max(1 - p + q, 2.0**-53)), math.log(p / max(q, 2.0**-53)) / 2
            return sigma / math.sqrt(2) * max(margin, ratio)
        return math.inf if p >= 1.0 or q <= 0.0 else (scale or 0.0) * (quantile(p) - quantile(q)) / 2

    return lambda p, q: max(alone(p), both(p, q)) if p > q else alone(p)


def _law(settings: Mapping[str, Any]) -> tuple[Any, float, float]:
    """The noise's name, the norm's p, and sigma."""
    noise = settings.get("noise")
    name = noise.get("name") if isinstance(noise, Mapping) else noise
    return name, float(settings.get("norm", "2")), float(settings["sigma"])


def _step(settings: Mapping[str, Any]) -> float | None:
    """The distance in the run's norm that moves Phi^-1 of a probability by one; None for other laws."""
    name, p, sigma = _law(settings)
    if name == "internal":
        sigma = min(sigma, effective(settings.get("noise_settings") or {}))
    if name in ("lattice", "gaussian", "internal") and p >= 1:
        return sigma * float(int(settings.get("dim", 1))) ** min(0.0, 1 / p - 0.5)
    return sigma if name == "anisotropic" and p == 2 else None


def effective(stages: Mapping[str, Any]) -> float:
    """Input noise that noise inside the network is worth; 0 where the settings do not say."""
    total = growth = 0.0
    for scale, bound in zip(stages.get("scales", ()), stages.get("lipschitz", ()), strict=True):
        if not (scale >= 0 and bound > 0):
            return 0.0
        growth += math.log(bound)
        total += math.exp(2 * (math.log(scale) - growth)) if scale > 0 else 0.0
    return math.sqrt(total)
