"""R2 and R3: what transport and diffusion do to complexity, and the oracles everything is checked by."""

from __future__ import annotations

import math

import torch

from analysis.classes import Finite, Linear
from analysis.evidence import Claim, Evidence, LedgerRow
from analysis.rademacher import as_points, empirical_rademacher
from analysis.rademacher_bounds import l2_bound
from analysis.transported import Transported, euler_flow

_HALF_SPACES = 200


class EvolvedClass(Claim):
    """Refuted exactly by one point and a constant velocity; diffusion alone is looked at on the data."""

    name = "R2"
    statement = "R_S(G_sigma) <= R_S(F): evolving a class never raises its complexity"
    assumption = "as printed"
    reference = "arXiv 2307.12333, Theorem 3.4, first inequality"
    verdict = (
        "false in general, even for a fixed velocity; true for diffusion alone and translation-invariant F"
    )
    sound = False

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        velocity = torch.tensor([1.0, -2.0], dtype=torch.float64)
        flow = euler_flow(lambda z: velocity.expand_as(z))
        origin = torch.zeros(1, 2, dtype=torch.float64)
        before = empirical_rademacher(Linear(1, 1.0), origin).value
        after = empirical_rademacher(Transported(Linear(1, 1.0), flow, sigma=0.0), origin).value
        rows = [
            self.row(
                "R_S(G) of |w|_1 <= 1 moved by the constant velocity (1, -2), one point at 0 (exact)",
                "violated", theory=before, measured=after, low=after, high=after, slack=before - after,
                violations=1, checked=1, example={"velocity": [1.0, -2.0], "point": [0.0, 0.0]},
            )
        ]  # fmt: skip
        if evidence.points is not None:
            rows.append(self._diffusion(evidence))
        return rows

    def _diffusion(self, evidence: Evidence) -> LedgerRow:
        assert evidence.points is not None
        points = as_points(evidence.points)
        sigma = evidence.sigma or 0.25
        g = evidence.generator()
        weights = torch.randn(_HALF_SPACES, points.shape[1], generator=g, dtype=torch.float64)
        picks = torch.randint(0, len(points), (_HALF_SPACES,), generator=g)
        offsets = -(weights * points[picks]).sum(1)
        plain, smooth = (
            empirical_rademacher(
                Finite.half_spaces(weights, offsets, sigma=s), points, method="mc", draws=evidence.draws,
                generator=evidence.generator(),
            )
            for s in (0.0, sigma)
        )  # fmt: skip
        status = (
            "holds" if smooth.high <= plain.low else "violated" if smooth.low > plain.high else "undetermined"
        )
        return self.row(
            f"R_S of {_HALF_SPACES} half-spaces smoothed with sigma {sigma:g}, beside the same unsmoothed",
            status, theory=plain.value, measured=smooth.value, low=smooth.low, high=smooth.high,
            slack=plain.value - smooth.value, checked=1, violations=int(status == "violated"),
            verdict="expected: diffusion lowers the complexity of nonlinear classes",
        )  # fmt: skip


class Oracles(Claim):
    name = "R3"
    statement = "closed forms: orthogonal points W R/N, W R/sqrt(N), W R; Khinchine's bracket for l2"
    assumption = "none"
    reference = "duality of norms; Haagerup 1981 (Khinchine's constant 1/sqrt(2))"
    verdict = "exact"
    sound = True

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        n, rows = 8, []
        for norm, power in ((1, 0.0), (2, 0.5), (math.inf, 1.0)):
            truth = n**power / n
            got = empirical_rademacher(Linear(norm, 1.0), torch.eye(n)).value
            wrong = abs(got - truth) > 1e-12
            rows.append(
                self.row(
                    f"R_S of |w|_{norm:g} <= 1 on {n} orthonormal points (exact)",
                    "violated" if wrong else "holds", theory=truth, measured=got, low=got, high=got,
                    slack=0.0 if not wrong else truth - got, checked=1, violations=int(wrong),
                )
            )  # fmt: skip
        if evidence.points is not None:
            points = as_points(evidence.points)
            upper = l2_bound(points, 1.0)
            got = empirical_rademacher(
                Linear(2, 1.0), points, draws=evidence.draws, interval="guaranteed",
                generator=evidence.generator(),
            )  # fmt: skip
            outside = got.low > upper or got.high < upper / math.sqrt(2)
            rows.append(
                self.row(
                    f"R_S of |w|_2 <= 1 on {len(points)} points, between |X|/(sqrt(2) N) and |X|/N",
                    "violated" if outside else "holds", theory=upper, measured=got.value, low=got.low,
                    high=got.high, slack=upper - got.value, checked=1, violations=int(outside),
                )
            )  # fmt: skip
        return rows
