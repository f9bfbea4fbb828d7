"""Norm-based generalization bounds for linear models and ReLU networks, post-hoc norms paid for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from analysis.given import check_delta, check_points
from analysis.layers import NetworkNorms, network_norms, with_constant
from analysis.margins import MarginDistribution, lipschitz_complexity, margin_bound, margin_distribution
from analysis.rademacher import as_points
from analysis.rademacher_bounds import covering_corrected, massart_data
from analysis.result import BoundResult
from certify.calls import checked
from certify.errors import InvalidModel

GOLOWICH = "Golowich, Rakhlin and Shamir, COLT 2018"


@checked
def norm_bounds(
    model: nn.Module, x: Tensor, y: Tensor, delta: float = 0.05, *, num_classes: int
) -> list[BoundResult]:
    """Every norm-based bound on the risk that covers ``model``, from its training points.

    Linear models: l2 (exact class), l1 by Massart and by the corrected covering bound. ReLU networks:
    product of Frobenius norms, l1 path norm, spectral bound with Dudley's integral. An empty list for
    networks that no theorem here covers (other activations, residual or normalisation layers).
    """
    check_points(model, x)
    check_delta(delta)
    try:
        norms = network_norms(model, tuple(x.shape[1:]))
    except InvalidModel:
        return []
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(1000)])
    num_classes = max(num_classes, logits.shape[1])  # a sample need not show every class
    margins = margin_distribution(logits.cpu(), y.cpu())
    points = with_constant(as_points(x), norms.biased)
    if norms.depth == 1:
        layer = next((m for m in model.modules() if isinstance(m, nn.Linear)), None)
        if layer is None:  # one convolution: linear, but no class with a bound of its own here
            return [frobenius_bound(margins, points, norms, delta, num_classes=num_classes)]
        return _linear(layer, margins, points, norms, delta, num_classes)
    return [
        frobenius_bound(margins, points, norms, delta, num_classes=num_classes),
        path_bound(margins, points, norms, delta, num_classes=num_classes),
        spectral_bound(margins, points, norms, delta),
    ]


def golowich_frobenius(points: Tensor, depth: int, product: float = 1.0) -> float:
    """(sqrt(2 L ln 2) + 1) product |X|_F / N for ReLU networks with prod |W_l|_F <= product.

    Golowich, Rakhlin and Shamir 2018, Theorem 1 (scalar output, data-dependent form).
    """
    size = float(torch.linalg.matrix_norm(points))
    return (math.sqrt(2 * depth * math.log(2)) + 1) * product * size / len(points)


def golowich_path(points: Tensor, depth: int, path: float = 1.0) -> float:
    """(2/N) path sqrt((L + 1 + ln d) max_j sum_i x_ij^2) for ReLU networks of l1 path norm <= path.

    Golowich et al. 2018, Theorem 2, on the rebalanced network: for ReLU the l1 path norm is the least
    product of row norms over all rescalings (Neyshabur, Tomioka and Srebro, COLT 2015).
    """
    n, dim = points.shape
    column = float((points**2).sum(0).max())
    return 2.0 / n * path * math.sqrt((depth + 1 + math.log(dim)) * column)


def frobenius_bound(
    margins: MarginDistribution, points: Tensor, norms: NetworkNorms, delta: float, *, num_classes: int
) -> BoundResult:
    """Margin bound with the product of Frobenius norms."""
    return margin_bound(
        margins, lipschitz_complexity(golowich_frobenius(points, norms.depth), _factor(num_classes)),
        norms.frobenius_product, delta,
        name="Frobenius norms (Golowich, Rakhlin, Shamir)", reference=f"{GOLOWICH}, Theorem 1",
        assumptions=("ReLU network, biases absorbed",),
    )  # fmt: skip


def path_bound(
    margins: MarginDistribution, points: Tensor, norms: NetworkNorms, delta: float, *, num_classes: int
) -> BoundResult:
    """Margin bound with the l1 path norm."""
    return margin_bound(
        margins, lipschitz_complexity(golowich_path(points, norms.depth), _factor(num_classes)),
        norms.path, delta, name="l1 path norm",
        reference=f"{GOLOWICH}, Theorem 2; Neyshabur, Tomioka and Srebro, COLT 2015",
        assumptions=("ReLU network, biases absorbed",),
    )  # fmt: skip


def spectral_bound(
    margins: MarginDistribution, points: Tensor, norms: NetworkNorms, delta: float
) -> BoundResult:
    """Spectral norms and Dudley's integral: Bartlett, Foster and Telgarsky 2017, union over post-hoc norms.

    By homogeneity only the ratios b_l / s_l (row sum over spectral norm) matter; each is rounded up to
    a power sqrt(2), at the price of its own factor 3 (|k|+1)^2 in delta. The class of networks with unit
    spectral norms has covering entropy |X|^2 ln(2 W^2) tau^2 / eps^2 (Theorem 3.3) with
    tau = (sum (b/s)^{2/3})^{3/2}; the margin is sqrt(2)-Lipschitz in l2.
    """
    indices = [math.ceil(2 * math.log2(layer.rows / layer.spectral)) for layer in norms.layers]
    tau = sum(2.0 ** (k / 3) for k in indices) ** 1.5
    price = math.prod(3.0 * (abs(k) + 1) ** 2 for k in indices)
    entropy = float(torch.linalg.matrix_norm(points)) * math.sqrt(2 * math.log(2 * norms.width**2)) * tau
    n = len(points)
    return margin_bound(
        margins, lambda gamma: 2 * min(1.0, dudley(entropy / gamma, n)), norms.spectral_product,
        delta / price, name="spectral norms with Dudley (Bartlett, Foster, Telgarsky)",
        reference="Bartlett, Foster and Telgarsky, NeurIPS 2017, Theorems 1.1 and 3.3",
        assumptions=("ReLU network, biases absorbed", "post-hoc norms by union bound"),
    )  # fmt: skip


def dudley(constant: float, n: int) -> float:
    """inf over a of 4 a / sqrt(n) + (12 / n) constant ln(sqrt(n) / a): complexity of values in [0, 1].

    For covering entropy (constant/eps)^2 in l2 on n points; Bartlett et al. 2017, Lemma A.5.
    """
    a = min(3 * constant / math.sqrt(n), math.sqrt(n))
    return 4 * a / math.sqrt(n) + 12 * constant / n * math.log(math.sqrt(n) / a)


def _linear(
    layer: nn.Linear,
    margins: MarginDistribution,
    points: Tensor,
    norms: NetworkNorms,
    delta: float,
    num_classes: int,
) -> list[BoundResult]:
    matrix = layer.weight.detach().double()
    if norms.biased:
        matrix = torch.cat([matrix, layer.bias.detach().double()[:, None]], dim=1)
    if len(matrix) == 2:
        matrix = matrix[1:] - matrix[:1]
    n, dim = points.shape
    widest = float(matrix.abs().sum(1).max())
    reach = float(points.abs().max())
    # l2: the vector-valued class has complexity at most sqrt(K) |X|_F / N per unit Frobenius norm.
    outputs = len(matrix)
    frobenius = math.sqrt(outputs) * float(torch.linalg.matrix_norm(points)) / n
    note = ("linear model, biases absorbed",)
    return [
        margin_bound(
            margins, lipschitz_complexity(frobenius, 2.0 if num_classes == 2 else 4.0),
            float(torch.linalg.matrix_norm(matrix)), delta, name="Rademacher, l2 linear class",
            reference="Maurer, ALT 2016; Bartlett and Mendelson 2002", assumptions=note,
        ),
        margin_bound(
            margins, lipschitz_complexity(massart_data(points, 1.0), _factor(num_classes)), widest, delta,
            name="Rademacher, l1 linear class (Massart)",
            reference="Mohri et al. 2018, Theorem 9.2; Massart 2000", assumptions=note,
        ),
        margin_bound(
            margins, lipschitz_complexity(covering_corrected(dim, n, 1.0, reach), _factor(num_classes)),
            widest, delta, name="Rademacher, l1 linear class (covering, corrected)",
            reference="arXiv 2307.12333, Theorem 3.4 with sup |f| restored", assumptions=note,
        ),
    ]  # fmt: skip


def _factor(num_classes: int) -> float:
    return 2.0 if num_classes == 2 else 4.0 * num_classes
