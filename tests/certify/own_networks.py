"""Networks as users write them: classes with arguments of their own."""

import torch
from torch import nn

import certify


class Table(nn.Module):
    """Takes its own arguments only."""

    def __init__(
        self, features: int = 4, hidden: int = 8, classes: int = 3, *, activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.body = nn.Linear(features, hidden)
        self.head = nn.Linear(hidden, classes)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(getattr(torch, self.activation)(self.body(x)))


def factory(*, num_classes: int, input_shape: tuple[int, ...], hidden: int = 8) -> nn.Module:
    """Follows the protocol of registered networks."""
    return Table(input_shape[0], hidden, num_classes)


def needs_packages(num_classes: int) -> nn.Module:
    raise RuntimeError("boom")


class Pixels(nn.Module):
    """A small network for images (3, 8, 8) with a batch norm, as published ones have."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=4)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


def wrapped_pixels() -> nn.Module:
    """The same behind normalisation."""
    return certify.wrap(Pixels(), mean=(0.5, 0.4, 0.3), std=0.25)


class Behind(nn.Module):
    """The same as a part of another module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Pixels()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x - 0.5) / 0.25)


def pixels_behind_a_norm() -> nn.Module:
    return Behind()
