"""R1: the complexity bounds of the seed paper, beside enumerated or sampled complexities."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.classes import Linear
from analysis.evidence import Claim, Evidence, LedgerRow
from analysis.rademacher import as_points, empirical_rademacher
from analysis.rademacher_bounds import (
    SEED_PAPER,
    covering_as_printed,
    covering_corrected,
    massart_data,
    massart_vertices,
)
from analysis.result import BoundResult


class CoveringBound(Claim):
    """Printed, corrected, and Massart's bound for l1-bounded linear classifiers.

    On given points the complexity is exactly linear in W while the printed bound grows like
    sqrt(ln W): some W always refutes it. The check finds that W by bisection and reports a
    class just beyond it, besides W = 1 and the smallest exact counterexample.
    """

    name = "R1"
    statement = "R_S(F) <= inf_eps [ sqrt(2 d ln(3WR/eps)/N) + eps ] for |w|_1 <= W, |x_i|_inf <= R"
    assumption = "as printed; it is proved only where W R <= 1"
    reference = SEED_PAPER
    verdict = "false for W R > 1; sound with the factor sup |f| = W R restored"
    sound = False

    def check(self, evidence: Evidence) -> list[LedgerRow]:
        rows = [self._exact_counterexample()]
        if evidence.points is None:
            return rows
        points = as_points(evidence.points)
        reach = float(points.abs().max())
        if reach == 0:
            return rows
        unit = empirical_rademacher(
            Linear(norm=1, radius=1.0), points, draws=evidence.draws, interval="guaranteed",
            generator=evidence.generator(),
        )  # fmt: skip
        for width in (1.0, refuting_width(points, unit.low)):
            rows += self._on_points(points, reach, unit, width)
        return rows

    def _exact_counterexample(self) -> LedgerRow:
        exact = empirical_rademacher(Linear(norm=1, radius=10.0), torch.ones(1, 1)).value
        printed = covering_as_printed(1, 1, 10.0, 1.0)
        return self._compare("R_S, d = N = 1, W R = 10 (exact)", printed, exact, exact, exact, False)

    def _on_points(self, points: Tensor, reach: float, unit: BoundResult, width: float) -> list[LedgerRow]:
        n, dim = points.shape
        value, low, high = (width * v for v in (unit.value, max(0.0, unit.low), unit.high))
        where = f"R_S of |w|_1 <= {width:.4g} on {n} points, d = {dim}"
        bounds = (
            (f"{where}: as printed", covering_as_printed(dim, n, width, reach), False),
            (f"{where}: corrected", covering_corrected(dim, n, width, reach), True),
            (f"{where}: Massart, vertices", massart_vertices(dim, n, width, reach), True),
            (f"{where}: Massart, data", massart_data(points, width), True),
        )
        return [self._compare(label, bound, value, low, high, sound) for label, bound, sound in bounds]

    def _compare(
        self, quantity: str, bound: float, value: float, low: float, high: float, sound: bool
    ) -> LedgerRow:
        status = "violated" if low > bound else "holds" if high <= bound else "undetermined"
        refuted = status == "violated"
        return self.row(
            quantity, status, theory=bound, measured=value, low=low, high=high, slack=bound - value,
            violations=int(refuted), checked=1, sound=sound,
            verdict="sound" if sound else self.verdict,
            example={"quantity": quantity, "bound": bound, "complexity": value} if refuted else None,
        )  # fmt: skip


def refuting_width(points: Tensor, unit_complexity: float) -> float:
    """Twice the W at which W * unit_complexity overtakes the printed bound (1 where it never can)."""
    if unit_complexity <= 0:
        return 1.0
    points = as_points(points)
    n, dim = points.shape
    reach = float(points.abs().max())

    def printed_wins(width: float) -> bool:
        return covering_as_printed(dim, n, width, reach) >= width * unit_complexity

    low, high = 1e-3, 1.0
    while printed_wins(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if printed_wins(middle) else (low, middle)
    return 2 * high
