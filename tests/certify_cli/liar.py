"""A base classifier that reads rounding, as an architecture with a state dict."""

import torch
from torch import nn

from tests.liars import finer_than_grid


class Liar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unused", torch.zeros(1))

    def forward(self, x):
        return finer_than_grid(x)


def factory(**_: object) -> nn.Module:
    return Liar()
