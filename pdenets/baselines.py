"""Ordinary classifiers to compare with: linear, multilayer perceptron, small convolutional network.

Every factory is called as ``factory(num_classes=, input_shape=, **arguments)`` and
returns a module from inputs (batch, *input_shape) to logits (batch, num_classes).
"""

from __future__ import annotations

import math

from torch import nn

from certify.errors import InvalidSetting


def linear(*, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """One affine map of the flattened input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


def mlp(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: int = 128,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """``depth`` hidden layers of ReLU units; dropout (training only) after each."""
    layers: list[nn.Module] = [nn.Flatten()]
    size = math.prod(input_shape)
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout)]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, num_classes))


def cnn(
    *, num_classes: int, input_shape: tuple[int, ...], width: int = 16, dropout: float = 0.0
) -> nn.Module:
    """Two strided 5x5 convolutions and one hidden layer, for images (channels, height, width)."""
    if len(input_shape) != 3:
        raise InvalidSetting(
            f"cnn has no form for inputs of shape {tuple(input_shape)}",
            why="a convolutional network needs images (channels, height, width)",
            remedy="use mlp, linear or convection-diffusion for vectors",
        )
    channels, height, width_px = input_shape
    cells = math.ceil(height / 4) * math.ceil(width_px / 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width * cells, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )
