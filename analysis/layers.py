"""A sequential network seen as matrices: the norms that generalization bounds are made of.

Biases are absorbed: with a constant unit 1 appended to the input and carried along, a layer
x -> W x + b is the matrix [[W, b], [0, 1]] (the last layer [W, b]), and the network is homogeneous.
A convolution is the matrix it stands for: every tap counts once per position it is applied at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.altered import altered, class_of
from certify.errors import InvalidModel
from certify.lipschitz import conv2d_upper, dense_upper

#: Layers that change no value or are 1-Lipschitz, positively homogeneous and elementwise.
_HOMOGENEOUS = (nn.ReLU, nn.Flatten, nn.Dropout, nn.Identity)
_WEIGHTED = (nn.Linear, nn.Conv2d)
#: Above the rounding of a float64 sum of squares or products.
_UP = 1 + 1e-12


@dataclass(frozen=True)
class LayerNorms:
    """One weight layer, as its (bias-augmented) matrix.

    ``spectral``: upper bound on the l2 operator norm; ``frobenius``; ``rows``: the sum of the rows' l2
    norms (the (2,1) norm of the transpose); ``row``: the largest of them; ``width``: output coordinates.
    """

    spectral: float
    frobenius: float
    rows: float
    row: float
    width: int


@dataclass(frozen=True)
class NetworkNorms:
    """What bounds need to know about a ReLU network on a sample.

    ``layers`` from the input side; ``path``: the l1 path norm of the worst output (biases included);
    ``biased``: whether a constant coordinate was appended to the data; ``width``: the widest layer.
    """

    layers: tuple[LayerNorms, ...]
    path: float
    biased: bool
    width: int

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def frobenius_product(self) -> float:
        """Of the worst single output: its row stands for the last matrix."""
        return math.prod(layer.frobenius for layer in self.layers[:-1]) * self.layers[-1].row

    @property
    def spectral_product(self) -> float:
        return math.prod(layer.spectral for layer in self.layers)


def network_norms(model: nn.Module, input_shape: tuple[int, ...]) -> NetworkNorms:
    """The norms of a network made of Linear, Conv2d, ReLU, Flatten and Dropout in nn.Sequential.

    A layer that is used twice is two layers. Two-class networks are taken as the scalar score difference of
    their outputs, so that the last matrix has one row. Raises InvalidModel for other layers (subclasses and
    changed ones too), dropout in training mode, a linear layer on more than a vector, a layer of zeros,
    two outputs that are not those of a last linear layer: the bounds' theorems do not cover them.
    """
    modules = list(_flatten(model))
    kinds = [_covered(module) for module in modules]
    last = max((k for k, kind in enumerate(kinds) if kind in _WEIGHTED), default=None)
    if last is None:
        raise _uncovered(model)
    weighted: list[Any] = [m for m, kind in zip(modules, kinds, strict=True) if kind in _WEIGHTED]
    biased = any(m.bias is not None for m in weighted)
    x = torch.zeros(1, *input_shape).to(weighted[0].weight)
    path = torch.ones(1, *input_shape, dtype=torch.float64)
    layers: list[LayerNorms] = []
    width = math.prod(input_shape) + biased
    with torch.no_grad():
        for k, (module, kind) in enumerate(zip(modules, kinds, strict=True)):
            before, x = x, module(x)
            if kind is nn.Linear:
                if before.ndim != 2:
                    raise _uncovered(module, "it is applied at every position of its input, not to a vector")
                layers.append(_dense(module, biased, last=k == last))
            elif kind is nn.Conv2d:
                layers.append(_convolution(module, before, x, biased, last=k == last))
            path = _paths(module, kind, path, last=k == last)
            width = max(width, layers[-1].width if layers else 0)
    plain = kinds[last] is nn.Linear and not any(kind is nn.ReLU for kind in kinds[last:])
    if x[0].numel() == 2 and not plain:
        raise _uncovered(
            modules[last], "two classes are one score difference, which needs a last linear layer"
        )
    if min(layer.spectral for layer in layers) == 0:
        raise _uncovered(
            weighted[[layer.spectral for layer in layers].index(0)], "all of its weights are zero"
        )
    return NetworkNorms(tuple(layers), float(path.max()) * _UP, biased, width)


def with_constant(points: Tensor, biased: bool) -> Tensor:
    """The points (N, d), with a coordinate 1 appended where biases were absorbed."""
    return torch.cat([points, points.new_ones(len(points), 1)], dim=1) if biased else points


def _dense(module: Any, biased: bool, *, last: bool) -> LayerNorms:
    weight = module.weight.detach().double()
    bias = module.bias.detach().double() if module.bias is not None else weight.new_zeros(len(weight))
    matrix = torch.cat([weight, bias[:, None]], dim=1) if biased else weight
    if last and len(matrix) == 2:
        matrix = matrix[1:] - matrix[:1]
    if biased and not last:
        carry = matrix.new_zeros(1, matrix.shape[1])
        carry[0, -1] = 1.0
        matrix = torch.cat([matrix, carry])
    rows = torch.linalg.vector_norm(matrix, dim=1) * _UP
    size = float(torch.linalg.matrix_norm(matrix)) * _UP
    return LayerNorms(dense_upper(matrix), size, float(rows.sum()), float(rows.max()), len(matrix))


def _convolution(module: Any, before: Tensor, after: Tensor, biased: bool, *, last: bool) -> LayerNorms:
    positions = after.shape[2] * after.shape[3]
    weight = module.weight.detach().double()
    squares = (weight**2).flatten(1).sum(1)
    bias = module.bias.detach().double() if module.bias is not None else weight.new_zeros(len(weight))
    carried = 1.0 if biased and not last else 0.0
    row = torch.sqrt(squares + bias**2) * _UP
    conv = conv2d_upper(
        module.weight, (before.shape[2], before.shape[3]), groups=module.groups,
        dilation=(module.dilation[0], module.dilation[1]),
    )  # fmt: skip
    # Appending a column b and a row (0, 1) raises the squared norm by at most |b|^2 + 1.
    offset = positions * float((bias**2).sum()) + carried
    return LayerNorms(
        math.sqrt(conv**2 + offset) * _UP if biased else conv,
        math.sqrt(positions * float(squares.sum()) + offset) * _UP,
        positions * float(row.sum()) + carried,
        max(float(row.max()), carried),
        after[0].numel() + int(carried),
    )


def _paths(module: Any, kind: type, x: Tensor, *, last: bool) -> Tensor:
    """One step of the sum over all paths of the product of absolute weights, biases included."""
    if kind not in _WEIGHTED:
        return module(x)
    weight = module.weight.detach().double()
    bias = None if module.bias is None else module.bias.detach().double()
    if kind is nn.Linear:
        if last and len(weight) == 2:
            weight, bias = weight[1:] - weight[:1], None if bias is None else bias[1:] - bias[:1]
        return F.linear(x, weight.abs(), None if bias is None else bias.abs())
    bias = None if bias is None else bias.abs()
    return F.conv2d(x, weight.abs(), bias, module.stride, module.padding, module.dilation, module.groups)


def _flatten(model: nn.Module) -> Iterator[nn.Module]:
    """The layers in the order in which they are applied; one that is used twice comes twice."""
    if type(model) is not nn.Sequential:
        yield model
        return
    if altered(model) is not None:
        raise _uncovered(model, f"{altered(model)} changes what it computes")
    for child in model._modules.values():
        yield from _flatten(child) if child is not None else ()


def _covered(module: nn.Module) -> type:
    """The module's class where the theorems cover it. Raises InvalidModel."""
    kind = class_of(module)
    if kind not in (*_HOMOGENEOUS, *_WEIGHTED):
        raise _uncovered(module)
    if (changed := altered(module)) is not None:
        raise _uncovered(module, f"{changed} changes what it computes")
    if any(part.training for part in module.modules()) and (kind is nn.Dropout or kind is not type(module)):
        raise _uncovered(module, "in training mode it is another function at every call")
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        raise _uncovered(module, f"its padding mode is {module.padding_mode}")
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        raise _uncovered(module, "it does not flatten one input to a vector")
    if not all(bool(torch.isfinite(p).all()) and not p.is_complex() for p in module.parameters()):
        raise _uncovered(module, "its weights are not finite real numbers")
    return kind


def _uncovered(module: nn.Module, why: str | None = None) -> InvalidModel:
    return InvalidModel(
        f"norm-based bounds do not cover {type(module).__name__}",
        why=why or "their theorems are about chains of linear and convolutional layers with ReLU",
        remedy="use the test-set or PAC-Bayes bounds, which hold for every network",
    )
