"""Upper bounds on the Rademacher complexity of linear classes, printed and proved.

All are functions of a few numbers (dimension d, sample size N, weight radius W, data radius
R), so that a property test can vary them: R_S(c F) = c R_S(F) is the identity that exposes the
covering bound as it was printed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from analysis.classes import Kernel, Linear, dual
from analysis.rademacher import as_points
from analysis.result import EXACT, UNSOUND, BoundResult
from certify.calls import checked
from certify.errors import InvalidSetting

SEED_PAPER = "arXiv 2307.12333, Theorem 3.4"


def covering_as_printed(dim: int, n: int, weight_radius: float, data_radius: float) -> float:
    """inf over eps of sqrt(2 d ln(3WR/eps)/N) + eps: NOT an upper bound when WR > 1.

    For F = {x -> w.x, |w|_1 <= W} and |x_i|_inf <= R. The missing factor is sup |f| = WR, as
    Massart's lemma needs: at d = N = 1, WR = 10 the complexity is 10 and this says 3.33.
    """
    product = _product(dim, n, weight_radius, data_radius)
    return _infimum(dim, n, product, scale=1.0, top=3.0 * product)


def covering_corrected(
    dim: int, n: int, weight_radius: float, data_radius: float, *, bound: float | None = None
) -> float:
    """inf over 0 < eps <= WR of B sqrt(2 d ln(3WR/eps)/N) + eps, B = sup |f| (WR unless given).

    Proof: an eps-net of the l1 ball has at most (3WR/eps)^d members for eps <= WR; Massart's
    lemma bounds the net by B sqrt(2 ln(size)/N); the net is eps-close. ``bound`` may be given
    where outputs are known to lie in [-B, B].
    """
    product = _product(dim, n, weight_radius, data_radius)
    return _infimum(dim, n, product, scale=product if bound is None else bound, top=product)


def massart_vertices(dim: int, n: int, weight_radius: float, data_radius: float) -> float:
    """W R sqrt(2 ln(2d)/N): the l1 ball is the hull of its 2d vertices.

    Massart's finite-class lemma on the vertices; Shalev-Shwartz and Ben-David 2014, Lemma 26.11.
    """
    return _product(dim, n, weight_radius, data_radius) * math.sqrt(2 * math.log(2 * dim) / n)


def massart_data(points: Tensor, weight_radius: float) -> float:
    """W max_j |X_j|_2 sqrt(2 ln(2d))/N with X_j the j-th column of the data."""
    points = as_points(points)
    n, dim = points.shape
    column = float(torch.linalg.vector_norm(points, dim=0).max())
    return weight_radius * column * math.sqrt(2 * math.log(2 * dim)) / n


def massart_finite(outputs: Tensor) -> float:
    """max_k |v_k|_2 sqrt(2 ln K)/N for K functions with output vectors v_k, shape (K, N)."""
    size, n = outputs.shape
    return float(torch.linalg.vector_norm(outputs.double(), dim=1).max()) * math.sqrt(2 * math.log(size)) / n


def l2_bound(points: Tensor, weight_radius: float) -> float:
    """W sqrt(sum_i |x_i|_2^2)/N for |w|_2 <= W; the truth is at least 1/sqrt(2) of it (Khinchine)."""
    points = as_points(points)
    return weight_radius * float(torch.linalg.matrix_norm(points)) / len(points)


def linf_bound(points: Tensor, weight_radius: float) -> float:
    """W sum_j |X_j|_2/N for |w|_inf <= W, again within 1/sqrt(2) of the truth."""
    points = as_points(points)
    return weight_radius * float(torch.linalg.vector_norm(points, dim=0).sum()) / len(points)


def kernel_bound(points: Tensor, cls: Kernel) -> float:
    """W sqrt(trace K)/N. Bartlett and Mendelson, JMLR 2002, Lemma 22."""
    points = as_points(points)
    return cls.radius * math.sqrt(float(cls.kernel(points, points).trace())) / len(points)


def expected_absolute_sum(n: int) -> float:
    """E |eps_1 + ... + eps_n| = n C(n-1, floor((n-1)/2)) / 2^(n-1), the one-dimensional oracle."""
    return n * math.exp(
        math.lgamma(n) - math.lgamma((n - 1) // 2 + 1) - math.lgamma(n - (n - 1) // 2) - (n - 1) * math.log(2)
    )


@checked
def linear_bounds(cls: Linear, points: Tensor) -> list[BoundResult]:
    """Every bound that applies to a linear class on these points, the printed one included.

    The covering bounds and Massart's belong to l1 weights; l2 and linf weights get their own.
    A bias |b| <= B adds B/sqrt(N) to each (and so to the printed one, which has none).
    """
    points = as_points(points)
    n, dim = points.shape
    width, bias = cls.radius, cls.bias / math.sqrt(n)
    reach = float(points.abs().max()) if points.numel() else 0.0
    shared = {"dim": float(dim), "n": float(n), "weight_radius": width, "data_radius": reach}
    rows: list[tuple[str, str, str, float, tuple[str, ...]]] = []
    if cls.norm == 1 and width > 0 and reach > 0:
        printed = covering_as_printed(dim, n, width, reach)
        corrected = covering_corrected(dim, n, width, reach)
        rows = [
            ("covering bound, as printed", SEED_PAPER, UNSOUND, printed, ("true only where W R <= 1",)),
            (
                "covering bound, corrected",
                SEED_PAPER + " with sup |f| = W R restored",
                EXACT,
                corrected,
                ("|w|_1 <= W, |x_i|_inf <= R",),
            ),
            (
                "Massart, vertices",
                "Shalev-Shwartz and Ben-David 2014, Lemma 26.11",
                EXACT,
                massart_vertices(dim, n, width, reach),
                ("|w|_1 <= W, |x_i|_inf <= R",),
            ),
            (
                "Massart, data",
                "Massart 2000, finite class lemma on the vertices",
                EXACT,
                massart_data(points, width),
                ("|w|_1 <= W, this data",),
            ),
        ]
    elif cls.norm == 2:
        rows = [("l2 bound", "Bartlett and Mendelson 2002", EXACT, l2_bound(points, width), ("|w|_2 <= W",))]
    elif dual(cls.norm) == 1:
        rows = [
            ("linf bound", "Khinchine, by coordinate", EXACT, linf_bound(points, width), ("|w|_inf <= W",))
        ]

    def outward(bound: float, validity: str) -> float:
        return bound * (1 + 1e-12) if validity == EXACT else bound

    return [
        BoundResult(
            name=name,
            reference=reference,
            target="R_S(F)",
            predictor=f"class: {cls.describe()}",
            side="upper",
            validity=validity,
            value=outward(value + bias, validity),
            low=0.0,
            high=outward(value + bias, validity),
            terms=shared,
            data_used="the points' size, dimension and norms",
            assumptions=assumptions,
        )
        for name, reference, validity, value, assumptions in rows
    ]


def _infimum(dim: int, n: int, product: float, *, scale: float, top: float) -> float:
    """inf over 0 < eps <= top of scale sqrt(2 d ln(3 product/eps)/n) + eps, to float accuracy."""

    def value(log_eps: float) -> float:
        entropy = max(0.0, math.log(3.0 * product) - log_eps)
        return scale * math.sqrt(2 * dim * entropy / n) + math.exp(log_eps)

    # The objective may have a second, boundary minimum: scan first, then polish the best cell.
    grid = np.linspace(math.log(top) - 40.0, math.log(top), 801)
    best = int(np.argmin([value(t) for t in grid]))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = optimize.minimize_scalar(value, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return min(float(found.fun), value(grid[best]))


def _product(dim: int, n: int, weight_radius: float, data_radius: float) -> float:
    product = weight_radius * data_radius
    if dim < 1 or n < 1 or not (math.isfinite(product) and product > 0):
        raise InvalidSetting(
            f"dim={dim}, n={n}, W={weight_radius}, R={data_radius} describe no class",
            why="the bound needs d >= 1, N >= 1 and finite W, R > 0",
            remedy="pass the dimension, the sample size and positive radii",
        )
    return product
