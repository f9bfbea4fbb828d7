"""Certificates for networks with Gaussian noise *inside*: the effective sigma of the input.

A network x_{k+1} = g_k(x_k) + s_k xi_k with Lip(g_k) <= lambda_k, followed by any classifier, is as
smooth as a network with input noise of standard deviation

    s_eff = sqrt( sum_k s_k^2 prod_{j <= k} lambda_j^-2 ),      k counted from the input.

Proof. Run the network from x and from y with the same noise, and after stage k move the second
path towards the first by a_k. The distance obeys D_{k+1} = lambda_k D_k - a_k at most, so with
P_k = prod_{j <= k} lambda_j the paths meet if sum a_k / P_k = |x - y|. The shifts cost, as a test
between the two laws, no more than one between N(0, 1) and N(mu, 1) with mu^2 = sum (a_k / s_k)^2;
by Cauchy-Schwarz the cheapest shifts give mu = |x - y| / s_eff. Hence Phi^-1 of every class
probability is (1/s_eff)-Lipschitz and each radius from class probabilities holds with s_eff for
sigma. The root of the summed squares, sqrt(sum s_k^2), is not a substitute: it is too large as soon as
a block expands.

References: Feldman, Mironov, Talwar and Thakurta, FOCS 2018 (privacy amplification by iteration);
Bok, Su and Altschuler, ICML 2024 (shifted interpolation, Gaussian form); Lecuyer et al., S&P 2019
(one noise layer). All statements are about exact arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from certify.errors import InvalidSetting

_DOWN = 1e-12


@dataclass(frozen=True)
class NoiseStage:
    """One injection of isotropic noise of deviation ``scale`` on all ``size`` coordinates of the state.

    ``lipschitz`` is the certified l2 bound of the map from the whole state after the previous injection to
    the whole state before this one (1 where nothing lies in between).
    """

    scale: float
    lipschitz: float
    size: int


def effective_sigma(scales: Sequence[float], lipschitz: Sequence[float]) -> float:
    """s_eff of stages with noise ``scales`` after maps with bounds ``lipschitz``; rounded down.

    Raises InvalidSetting for negative or infinite numbers, or where a constant map (bound 0) makes
    the network independent of its input.
    """
    if len(scales) != len(lipschitz) or not scales:
        raise InvalidSetting(
            f"{len(scales)} noise scales and {len(lipschitz)} Lipschitz bounds do not pair up",
            why="each injection needs the bound of the map before it",
            remedy="use 1.0 where nothing lies before an injection",
        )
    if any(not (math.isfinite(v) and v >= 0) for v in (*scales, *lipschitz)) or min(lipschitz) == 0:
        raise InvalidSetting(
            "noise scales must be finite and >= 0, Lipschitz bounds finite and > 0",
            why=f"got scales {list(scales)} and bounds {list(lipschitz)}",
            remedy="check the network's weights; a bound of 0 means that the output ignores the input",
        )
    # In logarithms: a product of many bounds would overflow, or vanish and make its stage worth too much.
    growth, size, logs = 0.0, 1.0, []
    for scale, bound in zip(scales, lipschitz, strict=True):
        growth += math.log(bound)
        size += abs(math.log(bound))
        if scale > 0:
            logs.append(math.log(scale) - growth)
            size += abs(math.log(scale))
    if not logs:
        return 0.0
    top = max(logs)
    found = top + math.log(math.fsum(math.exp(2 * (v - top)) for v in logs)) / 2
    if found > 700:
        raise _too_large("the contraction")
    # Each logarithm is rounded at its own size, and all of that ends in the exponent.
    return math.exp(found) * (1 - _DOWN - 2.0**-50 * (len(scales) + size))


def effective_sigma_sde(
    durations: Sequence[float], diffusion: Sequence[float], growth: Sequence[float]
) -> float:
    """s_eff of dX = v dt + sqrt(2) sigma_t dW with <v(x) - v(y), x - y> <= L_t |x - y|^2; rounded down.

    sigma and L are constant on consecutive intervals of the given durations, from the input side:
    s_eff^2 = int 2 sigma_t^2 exp(-2 int_0^t L). L may be negative (contraction). For constants
    s_eff = sigma sqrt((1 - exp(-2 L T)) / L), attained by the Ornstein-Uhlenbeck process.
    """
    if not len(durations) == len(diffusion) == len(growth) > 0:
        raise InvalidSetting(
            f"{len(durations)} durations, {len(diffusion)} diffusions and {len(growth)} rates do not pair up",
            why="each interval has one of each, and there is at least one",
            remedy="give one finite number per interval",
        )
    total, gained = 0.0, 0.0
    for duration, sigma, rate in zip(durations, diffusion, growth, strict=True):
        if not (duration >= 0 and sigma >= 0 and math.isfinite(duration + sigma + abs(rate))):
            raise InvalidSetting(
                "durations and diffusion must be finite and >= 0, growth rates finite",
                why=f"got duration {duration}, sigma {sigma}, rate {rate}",
                remedy="give one finite number per interval",
            )
        x = 2 * rate * duration
        if max(-x, -2 * gained, -2 * gained - x) > 700:
            raise _too_large("the contraction")
        mean = 1.0 if x == 0 else -math.expm1(-x) / x
        total += 2 * sigma * sigma * duration * mean * math.exp(-2 * gained)
        gained += rate * duration
    if not math.isfinite(total):
        raise _too_large("the noise")
    return math.sqrt(total) * (1 - _DOWN)


def _too_large(what: str) -> InvalidSetting:
    return InvalidSetting(
        "the effective sigma is too large for a number",
        why=f"{what} adds up to more than a float64 holds",
        remedy="check the Lipschitz bounds, growth rates and noise scales",
    )
