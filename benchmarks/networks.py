"""Networks of the cost benchmark that the package itself does not offer."""

from __future__ import annotations

from torch import nn


def small_cnn(*, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """Two 3x3 convolutions with pooling: the textbook's network, 105,866 parameters at 1x28x28."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 64), nn.ReLU(), nn.Linear(64, num_classes),
    )  # fmt: skip
