"""From a class probability to a certified ball: which norm, which shape, how large.

One object per (noise law, norm); which one is the law's own word (``Noise.ball``). Each ``radius`` is the
one-sided form p_B <= 1 - p_A, rounded down; ``needed`` is its inverse, rounded up: the class probability
that proves a given radius. ``between`` takes a bound on p_B beside the one on p_A.

| noise | norm | radius for p = p_A | reference |
|---|---|---|---|
| lattice, gaussian | l2 | sigma Phi^-1(p) | Cohen et al., ICML 2019, Theorem 1 |
| lattice, gaussian | lp | the l2 radius times d^-max(0, 1/2 - 1/p) | Hoelder; optimal given the l2 ball |
| uniform | l1 | lambda (2p - 1) | Lee et al., NeurIPS 2019; Yang et al., ICML 2020 |
| laplace | l1 | -b ln(2 (1 - p)) | Teng et al., 2020; Yang et al., ICML 2020 |
| anisotropic | ellipsoid | min_i sigma_i Phi^-1(p) as an l2 ball | Eiras et al. (ANCER), TMLR 2022 |

With q = p_B, the same theorems (docs/theory.md, T2, T8 and T10): Phi^-1(p) becomes
(Phi^-1(p) - Phi^-1(q)) / 2, also for the ellipsoid and for noise inside a network; lambda (2p - 1) becomes
lambda (p - q), as a change of size r moves every probability by r / (2 lambda) at most; and
-b ln(2 (1 - p)) becomes the larger of -b ln(1 - (p - q)), which is the one-sided theorem on the score
(1 + f_A - f_B) / 2, and (b / 2) ln(p / q), as a density changes by a factor of exp(r / b) at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from certify.errors import InvalidSetting
from certify.radii import radius_between, radius_down, target_probability

_DOWN = 1e-12


class Geometry(Protocol):
    """The shape that a class probability proves. ``norm`` is "1", "2", "inf" or another p >= 1."""

    @property
    def norm(self) -> str: ...

    def radius(self, p_lower: float) -> float:
        """Certified radius in ``norm``, rounded down; 0 for p_lower <= 1/2."""
        ...

    def needed(self, radius: float) -> float:
        """The class probability that proves ``radius``, rounded up."""
        ...

    def between(self, p_lower: float, pb_upper: float) -> float:
        """The same where no other class has more than ``pb_upper``: never less than ``radius(p_lower)``."""
        ...

    def details(self, p_lower: float, pb_upper: float = 1.0) -> dict[str, Any]:
        """Further sizes of the certified set, to be kept in the record."""
        ...


def make_geometry(noise: Any, *, norm: str, dim: int) -> Geometry:
    """The ball that ``noise`` (see ``certify.noise``) proves in ``norm`` for inputs of ``dim`` coordinates.

    Raises InvalidSetting for a norm below 1, one that this noise has no certificate for, and a law without
    a ball of its own: one that draws its noise in its own way must also name what that noise proves.
    """
    p = parse_norm(norm)
    found = noise.ball(p, dim) if _names_its_ball(type(noise)) else None
    if found is None:
        raise InvalidSetting(
            f"noise {getattr(noise, 'name', type(noise).__name__)!r} proves no ball",
            why="its law has no theorem here: another law's radius would be a wrong certificate",
            remedy="give the law a method ball(p, dim) with its own theorem, or use lattice noise",
        )
    return found


def _names_its_ball(kind: type) -> bool:
    """Whether ``ball`` is defined where, or after, the noise's drawing is: not inherited by another law."""
    line = kind.__mro__
    place = {name: next((i for i, k in enumerate(line) if name in vars(k)), len(line)) for name in _DRAWING}
    own = next((i for i, k in enumerate(line) if "ball" in vars(k)), None)
    return own is not None and own <= min(place.values())


#: What decides how a law's noise is drawn.
_DRAWING = ("law", "fill", "_writer")


def parse_norm(norm: str | float) -> float:
    """1 <= p <= infinity from "1", "2", "inf" or any number; InvalidSetting otherwise."""
    try:
        p = float(norm)
    except (TypeError, ValueError):
        p = math.nan
    if not p >= 1:
        raise InvalidSetting(
            f"norm {norm!r} is not a norm",
            why="lp is a norm for 1 <= p <= infinity",
            remedy="use --norm 2, --norm 1 or --norm inf",
        )
    return p


def norm_name(p: float) -> str:
    """ "1", "2", "inf", "2.5": how records and file names write a norm."""
    return "inf" if math.isinf(p) else f"{p:g}"


@dataclass(frozen=True)
class GaussianBall:
    """Isotropic Gaussian noise: an l2 ball, or the largest lp ball inside it."""

    sigma: float
    p: float
    dim: int

    def __post_init__(self) -> None:
        parse_norm(self.p)

    @property
    def norm(self) -> str:
        return norm_name(self.p)

    @property
    def shrink(self) -> float:
        """lp radius per l2 radius: d^-max(0, 1/2 - 1/p)."""
        return self.dim ** -max(0.0, 0.5 - 1 / self.p) * (1 if self.p <= 2 else 1 - _DOWN)

    def radius(self, p_lower: float) -> float:
        return radius_down(p_lower, self.sigma) * self.shrink

    def between(self, p_lower: float, pb_upper: float) -> float:
        return radius_between(p_lower, pb_upper, self.sigma) * self.shrink

    def needed(self, radius: float) -> float:
        return target_probability(radius / self.shrink, self.sigma)

    def details(self, p_lower: float, pb_upper: float = 1.0) -> dict[str, Any]:
        return {} if self.p == 2 else {"radius_l2": radius_between(p_lower, pb_upper, self.sigma)}


@dataclass(frozen=True)
class UniformBall:
    """Uniform[-half_width, half_width]^d: an l1 ball."""

    half_width: float
    norm = "1"

    def radius(self, p_lower: float) -> float:
        return max(0.0, self.half_width * (2 * p_lower - 1) * (1 - _DOWN)) if p_lower > 0.5 else 0.0

    def between(self, p_lower: float, pb_upper: float) -> float:
        return max(self.radius(p_lower), self.half_width * (p_lower - pb_upper) * (1 - _DOWN))

    def needed(self, radius: float) -> float:
        return min(1.0, (1 + radius / self.half_width) / 2 * (1 + _DOWN))

    def details(self, p_lower: float, pb_upper: float = 1.0) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class LaplaceBall:
    """Laplace(scale) in every coordinate: an l1 ball.

    With p_B = 1 - p_A the two published forms are -b ln(2(1 - p)) and (b/2) ln(p / (1 - p)); the
    first is never smaller for p >= 1/2, since 4 p (1 - p) <= 1.
    """

    scale: float
    norm = "1"

    def radius(self, p_lower: float) -> float:
        if not p_lower > 0.5:
            return 0.0
        # A proved probability is below 1; at 1 exactly the noise would tell nothing finite.
        rest = max(1 - p_lower, 2.0**-53)
        return max(0.0, -self.scale * math.log(2 * rest) * (1 - _DOWN))

    def between(self, p_lower: float, pb_upper: float) -> float:
        gap = p_lower - pb_upper
        if not gap > 0:
            return self.radius(p_lower)
        ratio = math.log1p(gap / max(pb_upper, 2.0**-53)) / 2
        margin = -math.log(max(1 - gap, 2.0**-53)) if gap > 0.5 else -math.log1p(-gap)
        return max(self.radius(p_lower), self.scale * max(ratio, margin) * (1 - _DOWN))

    def needed(self, radius: float) -> float:
        return min(1.0, (1 - math.exp(-radius / self.scale) / 2) * (1 + _DOWN))

    def details(self, p_lower: float, pb_upper: float = 1.0) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Ellipsoid:
    """N(0, diag(s_i^2)): sum_i (delta_i / s_i)^2 <= rho^2 with rho = Phi^-1(p).

    ``radius`` is that of the largest l2 ball inside, rho min s_i; ``details`` has rho and the
    radius of the ball of equal volume, rho (prod s_i)^(1/d).
    """

    smallest: float
    geometric_mean: float
    norm = "2"

    @classmethod
    def of(cls, sigma: Any, dim: int) -> Ellipsoid:
        values = np.asarray(sigma, dtype=np.float64)
        if dim % values.size:
            raise InvalidSetting(
                f"{values.size} values of sigma do not fit inputs of {dim} coordinates",
                why="there must be one per feature, or one per channel",
                remedy="give one sigma per feature, or per channel with shape (channels, 1, 1)",
            )
        return cls(float(values.min()), float(np.exp(np.log(values).mean())))

    def radius(self, p_lower: float) -> float:
        return radius_down(p_lower, self.smallest)

    def between(self, p_lower: float, pb_upper: float) -> float:
        return radius_between(p_lower, pb_upper, self.smallest)

    def needed(self, radius: float) -> float:
        return target_probability(radius, self.smallest)

    def details(self, p_lower: float, pb_upper: float = 1.0) -> dict[str, Any]:
        rho = radius_between(p_lower, pb_upper, 1.0)
        return {"rho": rho, "radius_equal_volume": rho * self.geometric_mean * (1 - _DOWN)}


def only_norm(noise: str, p: float, only: float) -> None:
    """Raise InvalidSetting unless p is the one norm that a law has a theorem for."""
    if p != only:
        raise InvalidSetting(
            f"{noise} noise has no certificate in norm {norm_name(p)}",
            why=f"its theorem is about the l{norm_name(only)} norm",
            remedy=f"use --norm {norm_name(only)}, or lattice noise for l2 and every lp",
        )
