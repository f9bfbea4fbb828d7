"""A sequential network seen as matrices: the norms that generalization bounds are made of.

Biases are absorbed: with a constant unit 1 appended to the input and carried along, a layer
x -> W x + b is the matrix [[W, b], [0, 1]] (the last layer [W, b]), and the network is homogeneous.
A convolution is the matrix it stands for: every tap counts once per position it is applied at.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certify.errors import InvalidModel
from certify.lipschitz import conv2d_upper, dense_upper

#: Layers that change no value or are 1-Lipschitz, positively homogeneous and elementwise.
_HOMOGENEOUS = (nn.ReLU, nn.Flatten, nn.Dropout, nn.Identity)


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

    Two-class networks are taken as the scalar score difference of their outputs, so that the last
    matrix has one row. Raises InvalidModel for other layers: the bounds' theorems do not cover them.
    """
    modules = list(_flatten(model))
    weighted = [m for m in modules if isinstance(m, nn.Linear | nn.Conv2d)]
    if not weighted:
        raise _uncovered(model)
    for module in modules:
        if not isinstance(module, (*_HOMOGENEOUS, nn.Linear, nn.Conv2d)) or (
            isinstance(module, nn.Conv2d) and module.padding_mode != "zeros"
        ):
            raise _uncovered(module)
    biased = any(m.bias is not None for m in weighted)
    x = torch.zeros(1, *input_shape).to(weighted[0].weight)
    layers: list[LayerNorms] = []
    width = math.prod(input_shape) + biased
    with torch.no_grad():
        for module in modules:
            before, x = x, module(x)
            if isinstance(module, nn.Linear):
                layers.append(_dense(module, biased, last=module is weighted[-1]))
            elif isinstance(module, nn.Conv2d):
                layers.append(_convolution(module, before, x, biased, last=module is weighted[-1]))
            width = max(width, layers[-1].width if layers else 0)
    return NetworkNorms(tuple(layers), _path_norm(model, input_shape), biased, width)


def with_constant(points: Tensor, biased: bool) -> Tensor:
    """The points (N, d), with a coordinate 1 appended where biases were absorbed."""
    return torch.cat([points, points.new_ones(len(points), 1)], dim=1) if biased else points


def _dense(module: nn.Linear, biased: bool, *, last: bool) -> LayerNorms:
    weight = module.weight.detach().double()
    bias = module.bias.detach().double() if module.bias is not None else weight.new_zeros(len(weight))
    matrix = torch.cat([weight, bias[:, None]], dim=1) if biased else weight
    if last and len(matrix) == 2:
        matrix = matrix[1:] - matrix[:1]
    if biased and not last:
        carry = matrix.new_zeros(1, matrix.shape[1])
        carry[0, -1] = 1.0
        matrix = torch.cat([matrix, carry])
    rows = torch.linalg.vector_norm(matrix, dim=1)
    size = float(torch.linalg.matrix_norm(matrix))
    return LayerNorms(dense_upper(matrix), size, float(rows.sum()), float(rows.max()), len(matrix))


def _convolution(module: nn.Conv2d, before: Tensor, after: Tensor, biased: bool, *, last: bool) -> LayerNorms:
    positions = after.shape[2] * after.shape[3]
    weight = module.weight.detach().double()
    squares = (weight**2).flatten(1).sum(1)
    bias = module.bias.detach().double() if module.bias is not None else weight.new_zeros(len(weight))
    carried = 1.0 if biased and not last else 0.0
    row = torch.sqrt(squares + bias**2)
    conv = conv2d_upper(
        module.weight, (before.shape[2], before.shape[3]), groups=module.groups,
        dilation=(module.dilation[0], module.dilation[1]),
    )  # fmt: skip
    # Appending a column b and a row (0, 1) raises the squared norm by at most |b|^2 + 1.
    offset = positions * float((bias**2).sum()) + carried
    return LayerNorms(
        math.sqrt(conv**2 + offset) if biased else conv,
        math.sqrt(positions * float(squares.sum()) + offset),
        positions * float(row.sum()) + carried,
        max(float(row.max()), carried),
        after[0].numel() + int(carried),
    )


def _path_norm(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Sum over all paths of the product of absolute weights, for the worst output."""
    absolute = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
        last = [m for m in absolute.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        original = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
        if isinstance(last, nn.Linear) and last.out_features == 2:
            _difference(last, original)
        return float(absolute(torch.ones(1, *input_shape, dtype=torch.float64)).max())


def _difference(last: Any, original: Any) -> None:
    """Both outputs of ``last`` become |w_1 - w_0|: the score difference's paths."""
    last.weight.copy_((original.weight[1] - original.weight[0]).abs().expand(2, -1))
    if last.bias is not None:
        last.bias.copy_((original.bias[1] - original.bias[0]).abs().expand(2))


def _flatten(model: nn.Module):
    if isinstance(model, nn.Sequential):
        for child in model:
            yield from _flatten(child)
    else:
        yield model


def _uncovered(module: nn.Module) -> InvalidModel:
    return InvalidModel(
        f"norm-based bounds do not cover {type(module).__name__}",
        why="their theorems are about chains of linear and convolutional layers with ReLU",
        remedy="use the test-set or PAC-Bayes bounds, which hold for every network",
    )
