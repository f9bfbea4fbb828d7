"""T1-T5: radii from class probabilities, beside the distances at which attacks succeeded."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from scipy import special

from analysis.evidence import Claim, Evidence, LedgerRow
from certify.radii import RADII, formula_table

#: Distance of the half-space that refutes the printed radius, in units of sigma.
HALF_SPACE = 0.1


class _RadiusClaim(Claim):
    """A radius is refuted by one confirmed adversarial example of the smoothed classifier inside it."""

    formula: ClassVar[str]

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        return [self._on_run(evidence)]

    def _on_run(self, evidence: Evidence) -> LedgerRow:
        quantity = "l2 radius beside the nearest confirmed attack"
        certified = [r for r in evidence.records if r.certified]
        if not evidence.gaussian or not certified or evidence.dim is None:
            return self.undetermined(quantity, "no certified input under isotropic Gaussian noise")
        nearest = evidence.distances()
        cases = []
        for record in certified:
            entry = _entry(record, evidence, self.formula)
            # The least that the formula claims over the Monte Carlo interval: refuting that
            # refutes every value it could have claimed.
            radius = entry["low"]
            if self.formula == "cohen" and evidence.settings.get("norm", "2") in ("2", 2):
                radius = max(radius, record.radius)
            found = nearest.get(record.index)
            distance = None if found is None else float(found["distance_l2"])
            cases.append((record.index, radius, distance, found))
        attacked = [case for case in cases if case[2] is not None]
        if not attacked:
            radii = sorted(case[1] for case in cases)
            return self.row(
                quantity, "undetermined", theory=radii[len(radii) // 2], checked=0,
                note=f"median over {len(radii)} certified inputs; no confirmed attack to compare with",
            )  # fmt: skip
        refuted = [case for case in attacked if case[1] >= case[2]]
        index, radius, distance, found = max(attacked, key=lambda case: case[1] / max(case[2], 1e-300))
        return self.row(
            quantity,
            "violated" if refuted else "holds",
            theory=radius,
            measured=distance,
            low=distance,
            high=distance,
            slack=distance - radius,
            violations=len(refuted),
            checked=len(attacked),
            example={
                "index": index, "radius": radius, "distance": distance,
                "certified_label": next(r.label for r in certified if r.index == index),
                "attack_prediction": found["prediction"], "attack": found.get("by_attack"),
            },
            note="the input where the radius comes closest to (or exceeds) the attack's distance",
        )  # fmt: skip


class PrintedRadius(_RadiusClaim):
    name = "T1"
    formula = "as_printed"
    statement = "sigma sqrt(d) / (pA - pB) is a certified l2 radius"
    assumption = "as printed: bounded solution, Lipschitz velocity"
    reference = "arXiv 2307.12333, Theorem 3.1 as printed"
    verdict = "not a certificate: refuted by every half-space close to the input"
    sound = False

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        sigma = evidence.sigma if evidence.gaussian and evidence.sigma else 1.0
        dim = evidence.dim or 2
        return [self._on_run(evidence), half_space_row(self, sigma, dim)]


class CohenRadius(_RadiusClaim):
    name = "T2"
    formula = "cohen"
    statement = "(sigma/2) (Phi^-1(pA) - Phi^-1(pB)) is a certified l2 radius"
    assumption = "measurable scores in [0, 1], isotropic Gaussian noise"
    reference = RADII["cohen"].reference
    verdict = "sound, tight given pA and pB"
    sound = True


class MarginRadius(_RadiusClaim):
    name = "T3"
    formula = "margin"
    statement = "sigma Phi^-1((1 + pA - pB)/2) is a certified l2 radius"
    assumption = "measurable scores in [0, 1], isotropic Gaussian noise"
    reference = RADII["margin"].reference
    verdict = "sound, at most T2"
    sound = True


class LipschitzRadius(_RadiusClaim):
    name = "T4"
    formula = "lipschitz"
    statement = "sigma sqrt(pi/2) (pA - pB) is a certified l2 radius"
    assumption = "measurable scores in [0, 1], isotropic Gaussian noise"
    reference = RADII["lipschitz"].reference
    verdict = "sound, at most T3"
    sound = True


class DimensionRadius(_RadiusClaim):
    name = "T5"
    formula = "dimension"
    statement = "sigma (pA - pB) / (2 sqrt(d)) is a certified l2 radius"
    assumption = "measurable scores in [0, 1], isotropic Gaussian noise"
    reference = RADII["dimension"].reference
    verdict = "sound, loose: T4 divided by sqrt(2 pi d)"
    sound = True


def half_space_row(claim: Claim, sigma: float, dim: int) -> LedgerRow:
    """The exact counterexample: a half-space at distance 0.1 sigma, where pA and pB are known.

    For the classifier w.x > 0 smoothed with N(0, sigma^2 I), pA = Phi(t/sigma) at distance t, and
    the smoothed class changes at distance t exactly. Nothing is sampled.
    """
    t = HALF_SPACE * sigma
    p_a = float(special.ndtr(t / sigma))
    radius = float(RADII["as_printed"].radius(p_a, 1 - p_a, sigma, dim))
    example: dict[str, Any] = {
        "classifier": "half-space w.x > 0", "distance": t, "sigma": sigma, "dim": dim,
        "p_a": p_a, "p_b": 1 - p_a, "radius": radius,
    }  # fmt: skip
    return claim.row(
        f"half-space at distance {t:g}, sigma {sigma:g}, d = {dim} (exact)",
        "violated" if radius > t else "holds",
        theory=radius,
        measured=t,
        low=t,
        high=t,
        slack=t - radius,
        violations=int(radius > t),
        checked=1,
        example=example,
        note="solved exactly: the true radius of a half-space is its distance",
    )


def _entry(record, evidence: Evidence, formula: str) -> dict[str, Any]:
    sigma, dim = evidence.sigma, evidence.dim
    assert sigma is not None
    assert dim is not None
    row = next(r for r in formula_table(record, sigma, dim) if r["name"] == formula)
    return {**row, "low": row["low"] if math.isfinite(row["low"]) else math.inf}
