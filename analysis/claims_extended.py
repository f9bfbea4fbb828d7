"""T6-T10: soft scores, score distributions, internal noise, trained diffusion, other norms."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from scipy import special

from analysis.evidence import Claim, Evidence, LedgerRow
from certify.inside.effective_sigma import effective_sigma, effective_sigma_sde

_DISTANCE = {"2": "distance_l2", "inf": "distance_linf"}


class _RunClaim(Claim):
    """A claim about the run's own certificates, where the run is of the kind the claim speaks about."""

    @abstractmethod
    def applies(self, evidence: Evidence) -> bool: ...

    def exact(self, evidence: Evidence) -> list[LedgerRow]:
        """Cases solved without sampling."""
        return []

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        quantity = "the run's certified radii beside the nearest confirmed attacks"
        if not self.applies(evidence):
            rows = [self.undetermined(quantity, "this run is of another kind")]
        else:
            rows = [certificate_row(self, evidence, quantity)]
        return rows + self.exact(evidence)


class SoftScores(_RunClaim):
    name = "T6"
    statement = "T2-T5 hold for expected probabilities instead of votes"
    assumption = "a valid confidence bound for the mean of scores in [0, 1]"
    reference = "Waudby-Smith and Ramdas 2024 (betting); Maurer and Pontil 2009; Hoeffding 1963"
    verdict = "sound with a bound for bounded means; not with a binomial bound on rounded sums"
    sound = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.settings.get("scores") == "soft"

    def exact(self, evidence: Evidence) -> list[LedgerRow]:
        # A score of 1/2 with probability 2 p has mean p; rounded up it looks like a success, and
        # the binomial bound from 1 success in 1 trial is alpha itself, above p for p < alpha.
        alpha, mean = 0.05, 0.048
        missed = 2 * mean
        return [
            self.row(
                "failure rate of Clopper-Pearson on rounded soft sums, n = 1 (exact)", "violated",
                theory=alpha, measured=missed, low=missed, high=missed, slack=alpha - missed, violations=1,
                checked=1, sound=False, verdict="not a confidence bound: scores are not coin flips",
                example={"score": "1/2 with probability 0.096, else 0", "mean": mean, "alpha": alpha},
            )
        ]  # fmt: skip


class ScoreDistribution(_RunClaim):
    name = "T7"
    statement = "the radius from the distribution of soft scores is certified"
    assumption = "one-sided confidence bands (DKW, or Clopper-Pearson on a grid with a union bound)"
    reference = "Kumar, Levine, Feizi and Goldstein, NeurIPS 2020"
    verdict = "sound with bands, unsound as a plug-in of the empirical distribution"
    sound = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.settings.get("scores") == "distribution"

    def exact(self, evidence: Evidence) -> list[LedgerRow]:
        # Half-space at two sigma: all of 10 samples agree with probability Phi(2)^10, and the plug-in
        # radius is then infinite while the class changes at 2 sigma.
        alpha, failing = 0.05, float(special.ndtr(2.0)) ** 10
        return [
            self.row(
                "failure rate of the plug-in radius, half-space at 2 sigma, 10 samples (exact)", "violated",
                theory=alpha, measured=failing, low=failing, high=failing, slack=alpha - failing,
                violations=1, checked=1, sound=False, verdict="not a certificate without bands",
                example={"classifier": "half-space at 2 sigma", "samples": 10, "radius": "infinite"},
            )
        ]  # fmt: skip


class InternalNoise(_RunClaim):
    name = "T8"
    statement = "noise inside the network smooths the input with s_eff^2 = sum s_k^2 prod_{j<=k} lambda_j^-2"
    assumption = "certified Lipschitz bounds lambda_k of the maps between injections"
    reference = "shifted interpolation: Bok, Su and Altschuler, ICML 2024; Feldman et al., FOCS 2018"
    verdict = "sound and attained by Ornstein-Uhlenbeck processes; sqrt(sum s_k^2) is not sound"
    sound = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.settings.get("noise") == "internal"

    def exact(self, evidence: Evidence) -> list[LedgerRow]:
        rate, time, sigma = 0.7, 1.0, 0.5
        deviation = math.sqrt(sigma**2 * (1 - math.exp(-2 * rate * time)) / rate)
        truth = deviation * math.exp(rate * time)
        claimed = effective_sigma_sde([time], [sigma], [-rate])
        # Two expanding layers in one dimension: the true effective sigma is s_eff.
        scales, bounds = [0.5, 0.5], [1.0, 2.0]
        naive, real = math.hypot(*scales), effective_sigma(scales, bounds)
        return [
            self.row(
                "s_eff of an Ornstein-Uhlenbeck process (exact)",
                "holds" if claimed <= truth * (1 + 1e-12) else "violated",
                theory=claimed, measured=truth, low=truth, high=truth, slack=truth - claimed, checked=1,
                violations=int(claimed > truth * (1 + 1e-12)),
            ),
            self.row(
                "sqrt(sum s_k^2) for x -> 2 (x + .5 xi) + .5 xi in one dimension (exact)", "violated",
                theory=naive, measured=real, low=real, high=real, slack=real - naive, violations=1, checked=1,
                sound=False, verdict="not an effective sigma: it ignores that the second layer expands",
                example={"scales": scales, "gains": bounds, "naive": naive, "true": real},
            ),
        ]  # fmt: skip


class TrainedDiffusion(Claim):
    name = "T9"
    statement = "a network trained to satisfy the diffusion residual is the smoothed network"
    assumption = "the residual vanishes everywhere on [T-1, T]"
    reference = "maximum principle; arXiv 2307.12333, section 4"
    verdict = "conditional: a residual seen at sample points bounds nothing elsewhere"
    sound = False

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        quantity = "largest |u(x, T) - E u(x + sigma Z, T-1)| over inputs and classes"
        gap = evidence.documents.get("residual_gap")
        if not gap:
            why = "`certify bounds RUN` measures it, for a network with a diffusion phase"
            return [self.undetermined(quantity, f"no residual gap was measured on this run: {why}")]
        status = "violated" if gap["low"] > 0 else "undetermined"
        return [
            self.row(
                quantity, status, theory=0.0, measured=gap["largest"], low=gap["low"], high=gap["high"],
                slack=-gap["largest"], violations=gap["beyond"], checked=gap["inputs"],
                note=_gap_note(gap),
            )
        ]  # fmt: skip


def _gap_note(gap: dict[str, Any]) -> str:
    parts = [f"median {gap['median']:.3g}"]
    if path := gap.get("attack_path"):
        parts.append(f"largest along attack paths {path['largest']:.3g}")
    if "radius_if_bounded" in gap:
        parts.append(
            f"if the largest gap seen were a bound, {gap['certified_if_bounded']:.0%} of the inputs would "
            f"have a radius, in the median {gap['radius_if_bounded']:.3g} instead of "
            f"{gap['radius_without_gap']:.3g}; nothing proves that it is"
        )
    return "; ".join([*parts, "certify by sampling noise, never from this network alone"])


class OtherNorms(_RunClaim):
    name = "T10"
    statement = "an l2 radius R gives the lp radius R d^-max(0, 1/2 - 1/p); R/sqrt(d) for linf"
    assumption = "inclusion of balls; own noise for l1 (uniform, Laplace)"
    reference = "norm inequalities; Yang et al., ICML 2020; Levine and Feizi, ICML 2021; Teng et al. 2020"
    verdict = "sound, optimal given only an l2 ball"
    sound = True

    def applies(self, evidence: Evidence) -> bool:
        return str(evidence.settings.get("norm", "2")) != "2"

    def exact(self, evidence: Evidence) -> list[LedgerRow]:
        rows = []
        dim = evidence.dim or 784
        # The half-space with normal (1, ..., 1) at l2 distance 1 has linf distance exactly 1/sqrt(d).
        radius, truth = 1 / math.sqrt(dim), 1 / math.sqrt(dim)
        rows.append(
            self.row(
                f"linf radius of a half-space along the diagonal, d = {dim} (exact)", "holds",
                theory=radius, measured=truth, low=truth, high=truth, slack=truth - radius, checked=1,
            )
        )  # fmt: skip
        if str(evidence.settings.get("norm", "2")) == "2" and evidence.dim:
            scaled = 1 / math.sqrt(evidence.dim)
            rows.append(
                certificate_row(
                    self, evidence, "linf radius R/sqrt(d) beside the nearest confirmed attack in linf",
                    key="distance_linf", rescale=lambda r: r * scaled,
                )
            )  # fmt: skip
        return rows


def certificate_row(
    claim: Claim,
    evidence: Evidence,
    quantity: str,
    *,
    key: str | None = None,
    rescale: Callable[[float], float] = lambda radius: radius,
) -> LedgerRow:
    """The run's own certificates beside the nearest confirmed attack in their norm."""
    certified = [r for r in evidence.records if r.certified]
    if not certified:
        return claim.undetermined(quantity, "no certified input")
    field = key or _DISTANCE.get(str(evidence.settings.get("norm", "2")), "distance")
    nearest = evidence.distances(field)
    cases = [
        (rescale(r.radius), float(nearest[r.index][field]), r.index) for r in certified if r.index in nearest
    ]
    if not cases:
        return claim.undetermined(quantity, "no confirmed attack to compare with")
    refuted = [case for case in cases if case[0] >= case[1]]
    radius, distance, index = max(cases, key=lambda case: case[0] / max(case[1], 1e-300))
    return claim.row(
        quantity, "violated" if refuted else "holds", theory=radius, measured=distance,
        low=distance, high=distance, slack=distance - radius,
        violations=len(refuted), checked=len(cases),
        example={"index": index, "radius": radius, "distance": distance},
        note="the input where the radius comes closest to the attack's distance",
    )  # fmt: skip
