"""Small networks that the checkpoint tests build by name."""

import torch
from torch import nn


def linear(num_classes: int, input_shape: tuple[int, ...], bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(_size(input_shape), num_classes, bias=bias))


def normed(num_classes: int, input_shape: tuple[int, ...], width: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(width * input_shape[1] * input_shape[2], num_classes),
    )


def shared(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    block = nn.Linear(_size(input_shape), _size(input_shape))
    return nn.Sequential(nn.Flatten(), block, nn.Tanh(), block, nn.Linear(_size(input_shape), num_classes))


def computes_while_building(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    scale = float(torch.ones(3).sum())  # fails on the meta device
    net = linear(num_classes, input_shape)
    net.register_buffer("scale", torch.tensor(scale))
    return net


def giant(num_classes: int, input_shape: tuple[int, ...], width: int = 1) -> nn.Module:
    net = linear(num_classes, input_shape)
    net.register_buffer("unused", torch.zeros(width), persistent=False)
    return net


def not_a_module(num_classes: int, input_shape: tuple[int, ...]) -> object:
    return [num_classes, input_shape]


class Own(nn.Module):
    """A user's class with its own arguments."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.body = nn.Linear(2, hidden)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
