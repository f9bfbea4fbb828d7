"""Upper bounds on Lipschitz constants that a certificate may rest on; every one rounded outward.

A layer's bound follows from its class, its options and its tensors, so each layer must be one of the
listed classes exactly, compute what its class says (``certify.altered``) and be in evaluation mode. All
else is refused by name: a subclass, a hook, training mode, an option without a proof. Power
iteration, norms of reshaped kernels and observed gradients are lower estimates and live in
``analysis.lipschitz_estimates``; the norms of matrices and convolutions in ``certify.operator_norms``.

All norms are l2 to l2, from one input to its output, in the exact arithmetic of the given weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from certify.altered import altered, class_of
from certify.calls import checked
from certify.errors import CertifyError, InvalidModel, InvalidSetting
from certify.operator_norms import EPS, conv2d_upper, dense_upper, gradient_step_upper, scaled_up

__all__ = ["LipschitzBound", "conv2d_upper", "dense_upper", "gradient_step_upper", "lipschitz_upper"]

#: Rows of the batch that is passed through the layers to learn their shapes; layers must keep their number.
_ROWS = 3
#: Containers inside containers: one that holds itself would never end.
_DEEPEST = 60
_UNKNOWN = "only layers with a proved bound may enter a certificate"


@dataclass(frozen=True)
class LipschitzBound:
    """An upper bound on |f(x) - f(y)|_2 / |x - y|_2, with the bound of each layer it multiplies."""

    value: float
    layers: tuple[tuple[str, float], ...]


@checked
def lipschitz_upper(module: nn.Module, input_shape: tuple[int, ...]) -> LipschitzBound:
    """The product of the layers' bounds along a sequential network in evaluation mode.

    ``input_shape`` is one input's shape without the batch. Handles Linear, Conv2d (zero or circular
    padding), BatchNorm, pooling, flattening, dropout and the usual activations, nested in nn.Sequential;
    a layer that is used twice counts twice. Raises InvalidModel for anything else: an unknown layer, a
    subclass of a known one, a hook, a layer in training mode, weights that are not finite, a layer that
    mixes the rows of a batch. Raises InvalidSetting for a shape that is none.
    """
    for name, part in module.named_modules():
        if part.training:
            raise InvalidModel(
                f"a Lipschitz bound needs evaluation mode, and {_label(name, part)} is in training mode",
                why="dropout and batch normalisation are other functions in training mode",
                remedy="call model.eval() first",
            )
    layers: list[tuple[str, float]] = []
    _walk(module, _probe(module, tuple(int(size) for size in input_shape)), "", layers)
    value = product_up(bound for _, bound in layers)
    if not math.isfinite(value):
        raise _refused(_label("", module), "the product of the layers' bounds is too large for a number")
    return LipschitzBound(value, tuple(layers))


def product_up(factors: Iterable[float]) -> float:
    """The product of nonnegative numbers, rounded up; no partial product overflows or vanishes."""
    value, exponent, count = 1.0, 0, 0
    for factor in factors:
        part, shift = math.frexp(factor)
        value, extra = math.frexp(value * part)
        exponent, count = exponent + shift + extra, count + 1
    return scaled_up(value * (1 + (count + 1) * EPS), exponent)


def _probe(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    if not input_shape or any(int(side) != side or side < 1 for side in input_shape):
        raise InvalidSetting(
            f"input_shape = {input_shape!r} is no input's shape",
            why="it has at least one dimension, each of at least 1, and no batch",
            remedy="pass for example (3, 32, 32)",
        )
    tensors = (*module.parameters(), *module.buffers())
    weight = next((t for t in tensors if t.is_floating_point()), None)
    probe = torch.zeros(_ROWS, *map(int, input_shape))
    return probe if weight is None or weight.is_meta else probe.to(weight)


def _walk(module: nn.Module, x: Tensor, name: str, layers: list[tuple[str, float]]) -> Tensor:
    label = _label(name, module)
    if (changed := altered(module)) is not None:
        raise _refused(label, f"{changed} makes it compute something else than its class does")
    if type(module) is nn.Sequential:
        if name.count(".") > _DEEPEST:
            raise _refused(label, "its containers are nested without end")
        for key, child in module._modules.items():
            if child is None:
                raise _refused(label, f"its part {key} is missing")
            x = _walk(child, x, f"{name}.{key}" if name else key, layers)
        return x
    layers.append((label, _layer_upper(module, x, label)))
    return _applied(module, x, label)


def _layer_upper(module: Any, x: Tensor, label: str) -> float:
    if (kind := class_of(module)) is None:
        raise _refused(label, "its parametrization may give other weights at every call")
    if (rule := _RULES.get(kind)) is None:
        raise _refused(label)
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    if parametrize.is_parametrized(module):
        tensors |= {name: getattr(module, name) for name in module.parametrizations}
    strange = [
        k for k, t in tensors.items() if t.is_complex() or t.is_meta or not bool(torch.isfinite(t).all())
    ]
    if strange:
        raise _refused(label, f"its {strange[0]} is not made of finite real numbers")
    try:
        bound = rule(module, x)
    except (TypeError, ValueError, AttributeError, CertifyError) as error:
        raise _refused(label, f"its options make no layer ({_first_line(error)})") from error
    if bound is None or not math.isfinite(bound):
        raise _refused(label + " with these options")
    return bound


def _real(tensor: Tensor) -> bool:
    """Whether a tensor holds finite real numbers."""
    return not tensor.is_complex() and not tensor.is_meta and bool(torch.isfinite(tensor).all())


def _applied(module: nn.Module, x: Tensor, label: str) -> Tensor:
    """The layer's output for the rows ``x``; refused where it is none, or does not keep them apart."""
    try:
        with torch.no_grad():
            out = module(x)
    except Exception as error:  # whatever a layer says of an input that is not for it
        shape = tuple(x.shape[1:])
        why = f"it cannot be applied to rows of shape {shape} ({_first_line(error)})"
        raise _refused(label, why) from error
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
        raise _refused(label, "it mixes the rows of a batch, or gives no rows")
    return out


def _label(name: str, module: nn.Module) -> str:
    return f"{name or 'model'}: {type(module).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refused(label: str, why: str = _UNKNOWN) -> InvalidModel:
    return InvalidModel(
        f"no proved Lipschitz bound for {label}",
        why=why,
        remedy="build it in nn.Sequential from Linear, Conv2d, BatchNorm, plain pooling, common activations, "
        "as torch made them",
    )


# -- the rules: (module, rows) -> bound, None where these options have no proof -------------------


def _constant(value: float) -> Callable[[Any, Tensor], float]:
    return lambda module, x: value


def _hardtanh(module: nn.Hardtanh, x: Tensor) -> float | None:
    return 1.0 if module.min_val <= module.max_val else None


def _elu(module: nn.ELU, x: Tensor) -> float | None:
    return _kinked(float(module.alpha))


def _leaky(module: nn.LeakyReLU, x: Tensor) -> float | None:
    return _kinked(float(module.negative_slope))


def _prelu(module: nn.PReLU, x: Tensor) -> float | None:
    return _kinked(float(module.weight.detach().double().abs().max()))


def _kinked(slope: float) -> float | None:
    """Slope 1 on one side of zero and at most ``slope`` on the other."""
    return max(1.0, abs(slope)) if math.isfinite(slope) else None


def _softmax(module: nn.Softmax, x: Tensor) -> float | None:
    """1/2: the Jacobian D = diag(p) - p p^T is positive semidefinite, and v^T D v, the variance of v under p,
    is at most (max v - min v)^2 / 4 <= |v|^2 / 2 (Popoviciu). Attained at two equal probabilities."""
    dim = module.dim
    return None if dim is None or dim % x.ndim == 0 else 0.5


def _linear(module: nn.Linear, x: Tensor) -> float:
    return dense_upper(module.weight)


def _conv2d(module: nn.Conv2d, x: Tensor) -> float | None:
    if x.ndim != 4 or module.padding_mode not in ("zeros", "circular"):
        return None
    size, options = (x.shape[2], x.shape[3]), {"dilation": _pair(module.dilation), "groups": module.groups}
    if module.padding_mode == "zeros":
        return conv2d_upper(module.weight, size, **options)
    # What forward pads with, last axis first: (left, right, top, bottom).
    left, right, top, bottom = module._reversed_padding_repeated_twice
    pads = (top + bottom, left + right)
    reach = [d * (k - 1) for d, k in zip(options["dilation"], module.weight.shape[2:], strict=True)]
    if list(pads) == reach:
        return conv2d_upper(module.weight, size, circular=True, **options)
    # Wrapping copies each pixel at most ceil((H + pads)/H) times per axis.
    copies = math.prod(math.ceil((side + pad) / side) for side, pad in zip(size, pads, strict=True))
    inner = conv2d_upper(module.weight, (size[0] + pads[0], size[1] + pads[1]), **options)
    return math.sqrt(copies) * inner * (1 + 4 * EPS)


def _batch_norm(module: Any, x: Tensor) -> float | None:
    if module.running_mean is None or module.running_var is None:
        return None  # it then uses the statistics of the batch
    scale = module.running_var.detach().double() + float(module.eps)
    if not bool((scale > 0).all()):
        return None
    scale = 1.0 / torch.sqrt(scale)
    if module.weight is not None:
        scale = scale * module.weight.detach().double().abs()
    return float(scale.max()) * (1 + 8 * EPS)


def _max_pool(module: nn.MaxPool2d, x: Tensor) -> float | None:
    if x.ndim != 4 or _pair(module.dilation) != (1, 1) or module.return_indices:
        return None
    # The difference of two maxima is at most the largest difference in the window.
    return math.sqrt(_overlap(module)) * (1 + EPS)


def _average_pool(module: nn.AvgPool2d, x: Tensor) -> float | None:
    plain = x.ndim == 4 and not module.ceil_mode and module.divisor_override is None
    if not plain or not (module.count_include_pad or _pair(module.padding) == (0, 0)):
        return None
    # Schur's test: rows sum to at most 1, columns to overlap / (window size).
    return math.sqrt(_overlap(module) / math.prod(_pair(module.kernel_size))) * (1 + 4 * EPS)


def _overlap(module: Any) -> int:
    """The most windows that hold one pixel."""
    kernel = _pair(module.kernel_size)
    stride = kernel if module.stride is None else _pair(module.stride)
    return math.prod(math.ceil(k / s) for k, s in zip(kernel, stride, strict=True))


def _adaptive_pool(module: nn.AdaptiveAvgPool2d, x: Tensor) -> float | None:
    """Schur's test per axis: rows sum to 1, column j to the sum of 1/|window| over windows holding j."""
    if x.ndim != 4:
        return None
    sizes = module.output_size if isinstance(module.output_size, tuple | list) else (module.output_size,) * 2
    bound = 1.0
    for side, wanted in zip(x.shape[2:], sizes, strict=True):
        count = side if wanted is None else int(wanted)
        column = [0.0] * side
        for i in range(count):
            begin, end = i * side // count, -((-(i + 1) * side) // count)
            for j in range(begin, end):
                column[j] += 1.0 / (end - begin)
        bound *= math.sqrt(max(column))
    return bound * (1 + 64 * EPS)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)


_ONE = _constant(1.0)
#: Exact classes only. Not here because they have no bound at all: Softplus (its switch to the identity is a
#: jump), Threshold and Hardshrink (jumps), GLU and LayerNorm (slopes grow without limit).
_RULES: dict[type, Callable[[Any, Tensor], float | None]] = {
    **dict.fromkeys((nn.ReLU, nn.Tanh, nn.Identity, nn.Flatten, nn.Unflatten), _ONE),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout), _ONE),
    nn.ReLU6: _hardtanh, nn.Hardtanh: _hardtanh, nn.ELU: _elu, nn.LeakyReLU: _leaky, nn.PReLU: _prelu,
    nn.Sigmoid: _constant(0.25), nn.GELU: _constant(1.13), nn.SiLU: _constant(1.1), nn.Softmax: _softmax,
    nn.Linear: _linear, nn.Conv2d: _conv2d, nn.BatchNorm1d: _batch_norm, nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool, nn.AvgPool2d: _average_pool, nn.AdaptiveAvgPool2d: _adaptive_pool,
}  # fmt: skip
