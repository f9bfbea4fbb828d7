"""Upper bounds on the norms of single linear operators; every one rounded outward.

Only three things count as an upper bound here: the singular values of the whole matrix, the Gram
iteration with its rounding errors carried along, and the exact symbol of a convolution on a torus
large enough for its zero padding. All norms are l2 to l2, in the exact arithmetic of the given weights.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Literal

import torch
from torch import Tensor

from certify.calls import checked
from certify.errors import InvalidInput, InvalidSetting

EPS = 2.0**-52

Method = Literal["svd", "gram"]


@checked
def dense_upper(weight: Tensor, *, method: Method = "svd", iterations: int = 12) -> float:
    """Upper bound on the spectral norm of a matrix (rows, columns).

    ``svd``: the largest singular value in float64, enlarged by LAPACK's backward error
    8 (rows + columns) 2^-52. ``gram``: |G_k|_F^(1/2^k) for G_0 = W, G_{j+1} = G_j^H G_j, with the
    rounding error of every product added back (no backward-error constant is assumed).
    Reference for the iteration: Delattre et al., "Efficient bound of Lipschitz constant for
    convolutional layers by Gram iteration", ICML 2023, Theorem 2.1. Raises InvalidInput (NaN, complex
    numbers, not a matrix) and InvalidSetting (another method).
    """
    matrix, exponent = _prepared(weight, 2, "a spectral norm needs a matrix (rows, columns)", "Linear.weight")
    top = _largest(_check_method(method), iterations)
    return 0.0 if matrix.numel() == 0 else scaled_up(float(top(matrix[None]).max()), exponent)


def conv2d_upper(
    weight: Tensor,
    input_size: tuple[int, int],
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    circular: bool = False,
    method: Method = "svd",
    iterations: int = 8,
) -> float:
    """Upper bound on the norm of a convolution on images of ``input_size``, any zero padding and stride.

    weight (out, in / groups, kh, kw). Zero padding: the operator is a block of the circular
    convolution on a torus of side H + dilation (kh - 1), so its norm is at most the largest singular
    value of the symbol over that torus's frequencies. A stride only drops rows. With
    ``circular=True`` the torus has side H and the value is exact for stride 1.
    Reference: Sedghi, Gupta and Long, ICLR 2019 (circular case). Raises InvalidInput (NaN, complex
    numbers, another shape) and InvalidSetting (another method, sizes that no convolution has).
    """
    kernel, exponent = _prepared(
        weight, 4, "a convolution's weight must have shape (out, in, kh, kw)", "Conv2d.weight"
    )
    top = _largest(_check_method(method), iterations)
    sizes = _whole("input_size", input_size, 2)
    taps = [
        d * torch.arange(k) for d, k in zip(_whole("dilation", dilation, 2), kernel.shape[2:], strict=True)
    ]
    [groups] = _whole("groups", (groups,), 1)
    if len(kernel) % groups or min(kernel.shape[2:]) < 1:
        raise InvalidSetting(
            f"a kernel of shape {tuple(kernel.shape)} has no {groups} groups",
            why="every group has the same number of output channels, and a kernel at least one tap",
            remedy="pass Conv2d.weight and Conv2d.groups",
        )
    sides = [
        size if circular else size + int(position[-1]) for size, position in zip(sizes, taps, strict=True)
    ]
    rows, columns = _phases(taps[0], sides[0], half=False), _phases(taps[1], sides[1], half=True)
    worst = 0.0
    for part in kernel.chunk(groups, dim=0) if kernel.numel() else ():
        # Every entry of the symbol is a sum of kh*kw products: its rounding error, as a matrix,
        # has Frobenius norm at most (kh*kw + 8) eps times that of the summed absolute taps.
        error = (part.shape[2] * part.shape[3] + 8) * 4 * EPS
        error *= float(torch.linalg.matrix_norm(part.abs().sum((2, 3))))
        along = torch.einsum("oiab,vb->voia", part.to(torch.complex128), columns)
        for phases in rows:
            symbol = torch.einsum("voia,a->voi", along, phases)
            worst = max(worst, float(top(symbol).max()) + error)
    return scaled_up(worst * (1 + 4 * EPS), exponent)


@checked
def gradient_step_upper(operator_norm: float, step: float, decay: float, *, slope: float = 1.0) -> float:
    """Lipschitz constant of x -> (1 - step decay) x - step W^T phi(W x + b), phi' in [0, slope].

    The Jacobian is symmetric with eigenvalues between 1 - step (decay + slope |W|^2) and
    1 - step decay: a one-sided (monotone) bound, below 1 for decay > 0 and a small enough step.
    ``operator_norm`` must itself be an upper bound on |W|_2. Raises InvalidSetting (negative, NaN).
    """
    numbers = (operator_norm, step, decay, slope)
    if not all(math.isfinite(v) and v >= 0 for v in numbers):
        raise InvalidSetting(
            "a gradient step needs finite, nonnegative numbers",
            why=f"operator_norm={operator_norm}, step={step}, decay={decay}, slope={slope}",
            remedy="pass values >= 0",
        )
    shrink, pull = step * decay, step * slope * operator_norm**2
    # Where the terms cancel their rounding does not: it is added at the size of what was subtracted.
    return max(abs(1.0 - shrink), abs(1.0 - shrink - pull)) + 16 * EPS * (1.0 + shrink + pull)


def scaled_up(value: float, exponent: int) -> float:
    """value * 2^exponent, rounded up where a float64 cannot hold it exactly."""
    if value == 0.0:
        return 0.0
    try:
        out = math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
    return out if out >= 2.0**-1021 else math.nextafter(out, math.inf)


def _prepared(weight: Tensor, dims: int, what: str, example: str) -> tuple[Tensor, int]:
    """(float64 tensor, exponent): their product tensor * 2^exponent is the weight, its peak in [1/2, 1)."""
    if not isinstance(weight, Tensor) or weight.ndim != dims or weight.is_complex() or weight.is_meta:
        raise InvalidInput(
            what,
            why=f"it is {_described(weight)}",
            remedy=f"pass real numbers, such as {example}",
        )
    values = weight.detach().to_dense().double().cpu()
    if not bool(torch.isfinite(values).all()):
        raise InvalidInput(
            "a norm needs finite numbers",
            why="the weight holds NaN or infinite values",
            remedy="check how the network was trained; such weights bound nothing",
        )
    exponent = math.frexp(float(values.abs().max()))[1] if values.numel() else 0
    # In two steps: a power of two beyond 2^1023 is no float64.
    half = -exponent // 2
    return values * 2.0**half * 2.0 ** (-exponent - half), exponent


def _described(weight: Any) -> str:
    return (
        f"{weight.dtype} of shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else repr(weight)[:80]
    )


def _check_method(method: str) -> str:
    if method not in ("svd", "gram"):
        raise InvalidSetting(
            f"method = {method!r} gives no upper bound",
            why="only svd and gram are proved",
            remedy="use 'svd' or 'gram'",
        )
    return method


def _whole(name: str, values: Any, count: int) -> tuple[int, ...]:
    try:
        found = tuple(operator.index(v) for v in values)
    except TypeError:
        found = ()
    if len(found) != count or min(found) < 1:
        raise InvalidSetting(
            f"{name} = {values!r} belongs to no convolution",
            why=f"{'whole numbers' if count > 1 else 'a whole number'} of at least 1 must be given",
            remedy=f"pass the convolution's own {name}",
        )
    return found


def _largest(method: str, iterations: int):
    """Matrices (n, rows, columns) -> upper bounds on their norms (n,)."""
    return _svd_upper if method == "svd" else lambda matrices: _gram_upper(matrices, iterations)


def _svd_upper(matrices: Tensor) -> Tensor:
    rows, columns = matrices.shape[-2:]
    top = torch.linalg.svdvals(matrices)[..., 0]
    return top * (1 + 8 * (rows + columns) * EPS)


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
        gammas.append(8 * (g.shape[-2] + 2) * EPS)
        g = g.mH @ g
    slack = 1 + 8 * math.log2(g.numel() + 2) * EPS * g.shape[-1]
    bound = torch.linalg.matrix_norm(g) * slack
    for size, gamma, shift in zip(reversed(frobenius), reversed(gammas), reversed(shifts), strict=True):
        bound = torch.sqrt(bound + gamma * size**2) * (1 + 4 * EPS)
        bound = torch.ldexp(bound, shift)
    return bound


def _phases(positions: Tensor, side: int, *, half: bool) -> Tensor:
    """exp(-2 pi i u a / side), shape (frequencies, taps); half of them where the rest are conjugates."""
    frequencies = torch.arange(side // 2 + 1 if half else side)
    # Reduce the integer product first: the angle is then exact to one rounding.
    turns = (frequencies[:, None] * positions[None, :]) % side
    angle = -2 * math.pi * turns.double() / side
    return torch.polar(torch.ones_like(angle), angle)
