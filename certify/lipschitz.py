"""Upper bounds on Lipschitz constants that a certificate may rest on; every one rounded outward.

Only three things count as an upper bound here: the singular values of the whole matrix, the Gram
iteration with its rounding errors carried along, and the exact symbol of a convolution on a
torus large enough for its zero padding. Power iteration, norms of reshaped kernels and observed
gradients are lower estimates and live in ``analysis.lipschitz_estimates``.

All norms are l2 to l2, in the exact arithmetic of the given weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from certify.errors import InvalidInput, InvalidModel, InvalidSetting

_EPS = 2.0**-52


@dataclass(frozen=True)
class LipschitzBound:
    """An upper bound on |f(x) - f(y)|_2 / |x - y|_2, with the bound of each layer it multiplies."""

    value: float
    layers: tuple[tuple[str, float], ...]


def dense_upper(weight: Tensor, *, method: Literal["svd", "gram"] = "svd", iterations: int = 12) -> float:
    """Upper bound on the spectral norm of a matrix (rows, columns).

    ``svd``: the largest singular value in float64, enlarged by LAPACK's backward error
    8 (rows + columns) 2^-52. ``gram``: |G_k|_F^(1/2^k) for G_0 = W, G_{j+1} = G_j^H G_j, with the
    rounding error of every product added back (no backward-error constant is assumed).
    Reference for the iteration: Delattre et al., "Efficient bound of Lipschitz constant for
    convolutional layers by Gram iteration", ICML 2023, Theorem 2.1. Raises InvalidInput (NaN, not a matrix)
    and InvalidSetting (another method).
    """
    weight = _matrix(weight)
    if weight.numel() == 0:
        return 0.0
    if method == "svd":
        return float(_svd_upper(weight))
    if method == "gram":
        return float(_gram_upper(weight[None], iterations))
    raise InvalidSetting(
        f"method = {method!r} gives no upper bound",
        why="only svd and gram are proved",
        remedy="use 'svd' or 'gram'",
    )


def conv2d_upper(
    weight: Tensor,
    input_size: tuple[int, int],
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    circular: bool = False,
    method: Literal["svd", "gram"] = "svd",
    iterations: int = 8,
) -> float:
    """Upper bound on the norm of a convolution on images of ``input_size``, any zero padding and stride.

    weight (out, in / groups, kh, kw). Zero padding: the operator is a block of the circular
    convolution on a torus of side H + dilation (kh - 1), so its norm is at most the largest singular
    value of the symbol over that torus's frequencies. A stride only drops rows. With
    ``circular=True`` the torus has side H and the value is exact for stride 1.
    Reference: Sedghi, Gupta and Long, ICLR 2019 (circular case). Raises InvalidInput (NaN, another shape).
    """
    if weight.ndim != 4 or not bool(torch.isfinite(weight).all()):
        raise InvalidInput(
            "a convolution's weight must be finite, shape (out, in, kh, kw)",
            why=f"its shape is {tuple(weight.shape)}",
            remedy="pass Conv2d.weight",
        )
    kernel = weight.detach().double().cpu()
    taps = [_tap_positions(kernel.shape[2 + axis], dilation[axis]) for axis in (0, 1)]
    sides = [
        size if circular else size + int(position[-1])
        for size, position in zip(input_size, taps, strict=True)
    ]
    rows = _phases(taps[0], sides[0], half=False)
    columns = _phases(taps[1], sides[1], half=True)
    worst = 0.0
    for part in kernel.chunk(groups, dim=0):
        # Every entry of the symbol is a sum of kh*kw products: its rounding error, as a matrix,
        # has Frobenius norm at most (kh*kw + 8) eps times that of the summed absolute taps.
        error = (part.shape[2] * part.shape[3] + 8) * 4 * _EPS
        error *= float(torch.linalg.matrix_norm(part.abs().sum((2, 3))))
        along = torch.einsum("oiab,vb->voia", part.to(torch.complex128), columns)
        for phases in rows:
            symbol = torch.einsum("voia,a->voi", along, phases)
            top = _svd_upper(symbol) if method == "svd" else _gram_upper(symbol, iterations)
            worst = max(worst, float(top.max()) + error)
    return worst * (1 + 4 * _EPS)


def gradient_step_upper(operator_norm: float, step: float, decay: float, *, slope: float = 1.0) -> float:
    """Lipschitz constant of x -> (1 - step decay) x - step W^T phi(W x + b), phi' in [0, slope].

    The Jacobian is symmetric with eigenvalues between 1 - step (decay + slope |W|^2) and
    1 - step decay: a one-sided (monotone) bound, below 1 for decay > 0 and a small enough step.
    ``operator_norm`` must itself be an upper bound on |W|_2. Raises InvalidSetting (negative, NaN).
    """
    if min(operator_norm, step, decay, slope) < 0 or not math.isfinite(operator_norm + step + decay + slope):
        raise InvalidSetting(
            "a gradient step needs finite, nonnegative numbers",
            why=f"operator_norm={operator_norm}, step={step}, decay={decay}, slope={slope}",
            remedy="pass values >= 0",
        )
    stay = 1.0 - step * decay
    return max(abs(stay), abs(stay - step * slope * operator_norm**2)) * (1 + 16 * _EPS)


def lipschitz_upper(module: nn.Module, input_shape: tuple[int, ...]) -> LipschitzBound:
    """The product of the layers' bounds along a sequential network in evaluation mode.

    ``input_shape`` is one input's shape without the batch. Handles Linear, Conv2d (zero or circular
    padding), BatchNorm, pooling, flattening, dropout and the usual activations, nested in
    nn.Sequential. Raises InvalidModel for anything else: an unknown layer has no bound.
    """
    if module.training:
        raise InvalidModel(
            "a Lipschitz bound needs the network in evaluation mode",
            why="dropout and batch normalisation are other functions in training mode",
            remedy="call model.eval() first",
        )
    layers: list[tuple[str, float]] = []
    probe = torch.zeros(1, *input_shape)
    weight = next(iter(module.parameters()), None)
    _walk(module, probe if weight is None else probe.to(weight), "", layers)
    value = math.prod(bound for _, bound in layers)
    return LipschitzBound(value * (1 + (len(layers) + 1) * _EPS), tuple(layers))


_SLOPES: dict[type[nn.Module], float] = {
    nn.ReLU: 1.0, nn.ReLU6: 1.0, nn.Hardtanh: 1.0, nn.Tanh: 1.0, nn.ELU: 1.0,
    nn.Sigmoid: 0.25, nn.GELU: 1.13, nn.SiLU: 1.1, nn.Identity: 1.0, nn.Flatten: 1.0, nn.Unflatten: 1.0,
    nn.Dropout: 1.0, nn.Dropout2d: 1.0, nn.Softmax: 1.0,
}  # fmt: skip


def _walk(module: nn.Module, x: Tensor, name: str, layers: list[tuple[str, float]]) -> Tensor:
    if type(module) is nn.Sequential and not (module._forward_hooks or module._forward_pre_hooks):
        for key, child in module.named_children():
            x = _walk(child, x, f"{name}.{key}" if name else key, layers)
        return x
    label = f"{name or 'model'}: {type(module).__name__}"
    layers.append((label, _layer_upper(module, x, label)))
    with torch.no_grad():
        return module(x)


def _layer_upper(module: Any, x: Tensor, label: str) -> float:
    kind = parametrize.type_before_parametrizations(module)
    if module._forward_hooks or module._forward_pre_hooks:
        raise _unknown(label + " with hooks")
    if kind in _SLOPES and not (kind is nn.ELU and module.alpha > 1):
        return _SLOPES[kind]
    if kind is nn.LeakyReLU:
        return max(1.0, abs(module.negative_slope))
    if kind is nn.Linear:
        return dense_upper(module.weight)
    if kind is nn.Conv2d and module.padding_mode in ("zeros", "circular"):
        if module.padding_mode == "circular":
            return _circular_upper(module, x)
        return conv2d_upper(
            module.weight, (x.shape[2], x.shape[3]), dilation=_pair(module.dilation), groups=module.groups
        )
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and module.running_var is not None:
        scale = 1.0 / torch.sqrt(module.running_var.double() + module.eps)
        if module.weight is not None:
            scale = scale * module.weight.detach().double().abs()
        return float(scale.max()) * (1 + 8 * _EPS)
    if kind is nn.AdaptiveAvgPool2d:
        return _adaptive_upper(module, x)
    if kind in (nn.AvgPool2d, nn.MaxPool2d):
        return _pool_upper(module, label)
    raise _unknown(label)


def _unknown(label: str) -> InvalidModel:
    return InvalidModel(
        f"no proved Lipschitz bound for {label}",
        why="only layers with a proved bound may enter a certificate",
        remedy="build it in nn.Sequential from Linear, Conv2d, BatchNorm, plain pooling, common activations",
    )


def _pool_upper(module: Any, label: str) -> float:
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    overlap = math.prod(math.ceil(k / s) for k, s in zip(kernel, stride, strict=True))
    if isinstance(module, nn.MaxPool2d) and _pair(module.dilation) == (1, 1):
        # The difference of two maxima is at most the largest difference in the window.
        return math.sqrt(overlap) * (1 + _EPS)
    plain = isinstance(module, nn.AvgPool2d) and not module.ceil_mode and module.divisor_override is None
    if plain and (module.count_include_pad or _pair(module.padding) == (0, 0)):
        # Schur's test: rows sum to at most 1, columns to overlap / (window size).
        return math.sqrt(overlap / math.prod(kernel)) * (1 + 4 * _EPS)
    raise _unknown(label + " with these options")


def _adaptive_upper(module: nn.AdaptiveAvgPool2d, x: Tensor) -> float:
    """Schur's test per axis: rows sum to 1, column j to the sum of 1/|window| over windows holding j."""
    sizes = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
    bound = 1.0
    for side, wanted in zip(x.shape[2:], sizes, strict=True):
        count = side if wanted is None else int(wanted)
        column = [0.0] * side
        for i in range(count):
            begin, end = i * side // count, -((-(i + 1) * side) // count)
            for j in range(begin, end):
                column[j] += 1.0 / (end - begin)
        bound *= math.sqrt(max(column))
    return bound * (1 + 64 * _EPS)


def _circular_upper(module: nn.Conv2d, x: Tensor) -> float:
    padding = _pair(module.padding) if not isinstance(module.padding, str) else (0, 0)
    same = all(
        2 * p == d * (k - 1)
        for p, d, k in zip(padding, module.dilation, module.weight.shape[2:], strict=True)
    )
    size = (x.shape[2], x.shape[3])
    if same or module.padding == "same":
        return conv2d_upper(
            module.weight, size, dilation=_pair(module.dilation), groups=module.groups, circular=True
        )
    # Wrapping copies each pixel at most ceil((H + 2p)/H) times per axis.
    copies = math.prod(math.ceil((s + 2 * p) / s) for s, p in zip(size, padding, strict=True))
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    inner = conv2d_upper(module.weight, padded, dilation=_pair(module.dilation), groups=module.groups)
    return math.sqrt(copies) * inner * (1 + 4 * _EPS)


def _svd_upper(matrices: Tensor) -> Tensor:
    rows, columns = matrices.shape[-2:]
    top = torch.linalg.svdvals(matrices)[..., 0]
    return top * (1 + 8 * (rows + columns) * _EPS)


def _gram_upper(matrices: Tensor, iterations: int) -> Tensor:
    """Gram iteration on a batch (n, rows, columns), forward in floats, unwound with the errors added.

    |G|^2 = |G^H G| <= |fl(G^H G)| + gamma |G|_F^2, and the last norm is at most its Frobenius norm.
    Scalings are powers of two, so they round nothing.
    """
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = matrices.mH
    g, frobenius, shifts = matrices, [], []
    gammas = []
    for _ in range(iterations):
        size = torch.linalg.matrix_norm(g)
        exponent = torch.frexp(size.clamp_min(torch.finfo(torch.float64).tiny)).exponent
        g = g * torch.ldexp(torch.ones_like(size), -exponent)[..., None, None]
        shifts.append(exponent)
        frobenius.append(torch.linalg.matrix_norm(g))
        gammas.append(8 * (g.shape[-2] + 2) * _EPS)
        g = g.mH @ g
    slack = 1 + 8 * math.log2(g.numel() + 2) * _EPS * g.shape[-1]
    bound = torch.linalg.matrix_norm(g) * slack
    for size, gamma, shift in zip(reversed(frobenius), reversed(gammas), reversed(shifts), strict=True):
        bound = torch.sqrt(bound + gamma * size**2) * (1 + 4 * _EPS)
        bound = torch.ldexp(bound, shift)
    return bound if matrices.ndim == 3 and len(matrices) > 1 else bound.reshape(-1)[0]


def _tap_positions(size: int, dilation: int) -> Tensor:
    return dilation * torch.arange(size)


def _phases(positions: Tensor, side: int, *, half: bool) -> Tensor:
    """exp(-2 pi i u a / side), shape (frequencies, taps); half of them where the rest are conjugates."""
    frequencies = torch.arange(side // 2 + 1 if half else side)
    # Reduce the integer product first: the angle is then exact to one rounding.
    turns = (frequencies[:, None] * positions[None, :]) % side
    angle = -2 * math.pi * turns.double() / side
    return torch.polar(torch.ones_like(angle), angle)


def _matrix(weight: Tensor) -> Tensor:
    if weight.ndim != 2 or not bool(torch.isfinite(weight).all()):
        raise InvalidInput(
            "a spectral norm needs a finite matrix",
            why=f"its shape is {tuple(weight.shape)}, or it holds NaN or infinite values",
            remedy="pass Linear.weight; use conv2d_upper for a convolution",
        )
    return weight.detach().double().cpu()


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if not isinstance(value, tuple) else (int(value[0]), int(value[1]))
