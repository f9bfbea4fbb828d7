"""Residual networks for CIFAR: ResNet-20, -32, -110.

Reference: He, Zhang, Ren and Sun (2016), section 4.2, with projections (their option B)
where the shape changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import InvalidSetting
from pdenets.normalisation import Normalise

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


def resnet(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    depth: int = 20,
    mean: Sequence[float] = CIFAR_MEAN,
    std: Sequence[float] = CIFAR_STD,
) -> nn.Module:
    """ResNet of ``depth`` = 6 n + 2 layers; 466,906 parameters at depth 32 on CIFAR-10.

    ``mean`` and ``std`` normalise three-channel images inside the network; other
    images are centred at 1/2.
    """
    if len(input_shape) != 3 or depth < 8 or (depth - 2) % 6:
        raise InvalidSetting(
            f"resnet has no form of depth {depth} for inputs of shape {tuple(input_shape)}",
            why="it takes images (channels, height, width) and has 6 n + 2 layers",
            remedy="use a depth of 20, 32 or 110",
        )
    channels, blocks = input_shape[0], (depth - 2) // 6
    if channels != len(mean):
        mean, std = [0.5] * channels, [0.25] * channels
    layers: list[nn.Module] = [
        Normalise(mean, std),
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    inputs = 16
    for width in (16, 32, 64):
        for index in range(blocks):
            layers.append(BasicBlock(inputs, width, stride=2 if index == 0 and width > 16 else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a skip connection, 1x1 projected where shapes change."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(z)) + self.skip(x))
