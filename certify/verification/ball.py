"""The radius that a class probability proves, written out a second time.

| noise | norm | radius for probability p of the class, all others 1 - p |
|---|---|---|
| lattice, gaussian | l2 | sigma Phi^-1(p) |
| lattice, gaussian | lp, p > 2 | the same, times d^(1/p - 1/2): the lp ball inside the l2 ball |
| internal | l2, lp | as gaussian, with sigma worked out from the noise scales and Lipschitz bounds |
| anisotropic | l2 | smallest sigma times Phi^-1(p) |
| uniform | l1 | sqrt(3) sigma (2p - 1): sigma is the standard deviation of the noise |
| laplace | l1 | -(sigma / sqrt(2)) ln(2 (1 - p)) |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from certify.verification.independent import normal_radius


def reach_of(settings: Mapping[str, Any]) -> Callable[[float], float] | None:
    """p -> radius for the run's noise and norm; None for a pair that is not in the table."""
    noise = settings.get("noise")
    name = noise.get("name") if isinstance(noise, Mapping) else noise
    p, sigma, dim = float(settings.get("norm", "2")), float(settings["sigma"]), int(settings.get("dim", 1))
    if name == "internal":
        sigma = min(sigma, effective(settings.get("noise_settings") or {}))
    if name in ("lattice", "gaussian", "internal") and p >= 1:
        inside = float(dim) ** min(0.0, 1 / p - 0.5)
        return lambda q: _gaussian(q, sigma) * inside
    if name == "anisotropic" and p == 2:
        return lambda q: _gaussian(q, sigma)
    if name == "uniform" and p == 1:
        return lambda q: math.sqrt(3) * sigma * max(0.0, 2 * q - 1)
    if name == "laplace" and p == 1:
        return lambda q: 0.0 if q <= 0.5 else -sigma / math.sqrt(2) * math.log(2 * max(1 - q, 2.0**-53))
    return None


def _gaussian(q: float, sigma: float) -> float:
    return math.inf if q >= 1.0 else normal_radius(q, sigma)


def effective(stages: Mapping[str, Any]) -> float:
    """Input noise that noise inside the network is worth; 0 where the settings do not say."""
    total = growth = 0.0
    for scale, bound in zip(stages.get("scales", ()), stages.get("lipschitz", ()), strict=True):
        if not (scale >= 0 and bound > 0):
            return 0.0
        growth += math.log(bound)
        total += math.exp(2 * (math.log(scale) - growth)) if scale > 0 else 0.0
    return math.sqrt(total)
