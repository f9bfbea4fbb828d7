"""Radii from class probabilities: five theorems and one formula that is not one.

Notation: the smoothed classifier has scores u_c(x) = E f_c(x + sigma Z), Z ~ N(0, I_d), with
f_c in [0, 1]; A is the top class, pA = u_A, pB the largest other score, gap = pA - pB. ``sigma``
is the standard deviation of the noise; the diffusion coefficient of the convection-diffusion
equation is sigma / sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certify.calls import checked

if TYPE_CHECKING:
    from certify.errors import InvalidSetting
from certify.errors import InvalidSetting
from certify.records import Record

#: Relative step towards zero after evaluating a radius: more than the error of ndtri.
_DOWN = 1e-12
#: Relative error of one value of ndtri, with room: what a difference of two may have lost.
_LOST = 2.0**-48


@dataclass(frozen=True)
class RadiusFormula:
    """One formula for a radius, with what it claims and whether that claim is proved."""

    name: str
    title: str
    expression: str
    claim: str
    reference: str
    sound: bool
    _value: Callable[..., np.ndarray]

    def radius(self, p_a: ArrayLike, p_b: ArrayLike, sigma: ArrayLike, dim: ArrayLike) -> Any:
        """The radius for class probabilities p_a, p_b (numpy broadcasting), in input units.

        Sound formulas are rounded down and give 0 where p_a <= p_b. A float for scalar
        arguments, else a float64 array.
        """
        args = [np.asarray(v, dtype=np.float64) for v in (p_a, p_b, sigma, dim)]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.asarray(self._value(*args))
        return float(value) if value.ndim == 0 else value


@checked
def radius_down(p_lower: float, sigma: float) -> float:
    """Certified l2 radius sigma * Phi^-1(p_lower) for p_B <= 1 - p_lower, rounded down.

    Theorem 1 of Cohen, Rosenfeld and Kolter (2019) in its one-sided form. 0 for p_lower <= 1/2.
    """
    if not p_lower > 0.5:
        return 0.0
    return max(0.0, sigma * float(special.ndtri(float(p_lower))) * (1 - _DOWN))


@checked
def radius_between(p_lower: float, pb_upper: float, sigma: float) -> float:
    """Certified l2 radius where the leader has at least p_lower and no other class more than pb_upper.

    Theorem 1 of Cohen, Rosenfeld and Kolter (2019), sigma / 2 (Phi^-1(p_A) - Phi^-1(p_B)), with the smaller
    of p_B <= pb_upper and p_B <= 1 - p_lower; rounded down. Both bounds must hold together. 0 where neither
    shows that the leader leads.
    """
    both = float(RADII["cohen"].radius(p_lower, pb_upper, sigma, 1))
    return max(radius_down(p_lower, sigma), both)


@checked
def target_probability(radius: float, sigma: float) -> float:
    """The class probability that proves ``radius``: Phi(radius / sigma), rounded up.

    Raises InvalidSetting for a sigma that is no noise level.
    """
    if not sigma > 0:
        raise InvalidSetting(
            f"sigma = {sigma!r} is not a noise level",
            why="the standard deviation of the noise must be finite and positive",
            remedy="use for example sigma=0.25",
        )
    return min(1.0, float(special.ndtr(radius / sigma)) * (1 + _DOWN))


@checked
def formula_table(record: Record, sigma: float, dim: int) -> list[dict[str, Any]]:
    """The record's radius by every formula, with its Monte Carlo interval.

    ``radius`` is what the formula would claim: for a theorem the lower end, which is the
    certificate; for a formula without proof its value at the observed frequencies. ``low`` and
    ``high`` are its values over the record's intervals of pA and pB.
    """
    total = sum(record.counts)
    p_hat = max(record.counts) / total if total else 0.5
    rest = sorted(record.counts)[-2] / total if total and len(record.counts) > 1 else 1 - p_hat
    rows = []
    for formula in RADII.values():
        worst = formula.radius(record.p_lower, record.pb_upper, sigma, dim)
        best = formula.radius(record.p_upper, record.pb_lower, sigma, dim)
        low, high = min(worst, best), max(worst, best)
        observed = formula.radius(p_hat, rest, sigma, dim)
        rows.append(
            {
                "name": formula.name,
                "title": formula.title,
                "expression": formula.expression,
                "radius": low if formula.sound else observed,
                "low": low,
                "high": high,
                "sound": formula.sound,
                "claim": formula.claim,
            }
        )
    return rows


def _down(value: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, value * (1 - _DOWN))


def _cohen(p_a, p_b, sigma, dim):
    top, other = special.ndtri(p_a), special.ndtri(p_b)
    # Near a tie the difference keeps the rounding of both, and loses their size.
    lost = np.where(np.isfinite(top - other), _LOST * (np.abs(top) + np.abs(other)), 0.0)
    return _down(np.where(p_a > p_b, sigma / 2 * (top - other - lost), 0.0) + 0.0 * dim)


def _one_sided(p_a, p_b, sigma, dim):
    return _down(np.where((p_a > 0.5) & (p_a > p_b), sigma * special.ndtri(p_a), 0.0) + 0.0 * dim)


def _margin(p_a, p_b, sigma, dim):
    # Phi^-1((1 + gap) / 2): from the gap itself where it is small, from what is missing to 1 where that is.
    gap, rest = np.nextafter(p_a - p_b, -1.0), np.nextafter((1 - p_a) + p_b, 2.0)
    value = np.where(gap < 0.5, math.sqrt(2) * special.erfinv(gap), -special.ndtri(rest / 2))
    return _down(np.where(p_a > p_b, sigma * value, 0.0) + 0.0 * dim)


def _lipschitz(p_a, p_b, sigma, dim):
    return _down(sigma * math.sqrt(math.pi / 2) * (p_a - p_b) + 0.0 * dim)


def _dimension(p_a, p_b, sigma, dim):
    return _down(sigma * (p_a - p_b) / (2 * np.sqrt(dim)))


def _as_printed(p_a, p_b, sigma, dim):
    gap = p_a - p_b
    return np.where(gap > 0, sigma * np.sqrt(dim) / gap, np.where(gap == 0, np.inf, 0.0))


#: Every formula by name, the sharpest theorem first.
RADII: dict[str, RadiusFormula] = {
    f.name: f
    for f in (
        RadiusFormula(
            "cohen",
            "Cohen et al.",
            "sigma/2 (Phi^-1(pA) - Phi^-1(pB))",
            "the smoothed class is constant on the l2 ball of this radius; tight given pA and pB",
            "Cohen, Rosenfeld, Kolter, ICML 2019, Theorem 1 (Neyman-Pearson)",
            True,
            _cohen,
        ),
        RadiusFormula(
            "one_sided",
            "Cohen et al., one bound",
            "sigma Phi^-1(pA)",
            "the same with pB <= 1 - pA in place of a bound on pB: the radius of published tables",
            "Cohen, Rosenfeld, Kolter, ICML 2019, Theorem 1 with pB := 1 - pA, as their code certifies",
            True,
            _one_sided,
        ),
        RadiusFormula(
            "margin",
            "Margin",
            "sigma Phi^-1((1 + pA - pB)/2)",
            "the smoothed class is constant on the l2 ball of this radius; equals cohen at pA + pB = 1",
            "Cohen et al. 2019 applied to the score (1 + f_A - f_c)/2; Salman et al., NeurIPS 2019",
            True,
            _margin,
        ),
        RadiusFormula(
            "lipschitz",
            "Lipschitz",
            "sigma sqrt(pi/2) (pA - pB)",
            "the smoothed class is constant on the l2 ball of this radius; best constant linear in the gap",
            "each smoothed score is 1/(sigma sqrt(2 pi))-Lipschitz: Salman et al., NeurIPS 2019, Lemma 1",
            True,
            _lipschitz,
        ),
        RadiusFormula(
            "dimension",
            "Dimension form",
            "sigma (pA - pB) / (2 sqrt(d))",
            "the smoothed class is constant on the l2 ball of this radius; loose by sqrt(2 pi d) at least",
            "weakening of the Lipschitz radius: arXiv 2307.12333, Theorem 3.1 with the gap in the numerator",
            True,
            _dimension,
        ),
        RadiusFormula(
            "as_printed",
            "As printed",
            "sigma sqrt(d) / (pA - pB)",
            "not a certificate: it grows as the classes tie, so a half-space at a small distance refutes it",
            "arXiv 2307.12333, Theorem 3.1 as printed, with sigma = sqrt(2) sigma_p",
            False,
            _as_printed,
        ),
    )
}
