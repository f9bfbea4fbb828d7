"""ResNets for CIFAR under the names that published checkpoints use, for weights that others trained.

Reference: He, Zhang, Ren and Sun (2016), section 4.2. The two layouts are those of the networks that are
passed around most: "akamaster" has shortcuts without weights (the paper's option A) and ends in ``linear``;
"cohen", of the randomized smoothing literature, has projections (option B) and ends in ``fc``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

import certify
from certify.errors import InvalidSetting

#: Per layout what the networks were trained behind (for images in [0, 1]), and the name of the last layer.
LAYOUTS: dict[str, tuple[tuple[float, ...], tuple[float, ...], str]] = {
    "akamaster": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "linear"),
    "cohen": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "fc"),
}


def cifar_resnet(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    depth: int = 20,
    layout: str = "akamaster",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """ResNet of ``depth`` = 6 n + 2 layers (20, 32, 44, 56, 110) behind its normalisation.

    ``layout``: "akamaster" or "cohen". ``mean`` and ``std``: per channel, in units of the data; those of the
    layout's own training by default. A published state dict fits the network inside ``certify.wrap``.
    """
    blocks = (depth - 2) // 6
    if len(input_shape) != 3 or depth < 8 or (depth - 2) % 6 or layout not in LAYOUTS:
        raise InvalidSetting(
            f"cifar-resnet has no form of depth {depth}, layout {layout!r}, for inputs {tuple(input_shape)}",
            why=f"it takes images (channels, height, width), has 6 n + 2 layers and a layout of "
            f"{' or '.join(LAYOUTS)}",
            remedy="use a depth of 20, 32, 44, 56 or 110",
        )
    usual_mean, usual_std, last = LAYOUTS[layout]
    channels = input_shape[0]
    if channels != len(usual_mean):
        usual_mean, usual_std = (0.5,) * channels, (0.25,) * channels
    network = CifarResNet(channels, num_classes, blocks, projections=layout == "cohen", last=last)
    return certify.wrap(
        network, mean=usual_mean if mean is None else mean, std=usual_std if std is None else std
    )


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels; ``last`` is the name of the final linear layer."""

    def __init__(self, channels: int, num_classes: int, blocks: int, *, projections: bool, last: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, projections)
        self.layer2 = _stage(16, 32, blocks, projections)
        self.layer3 = _stage(32, 64, blocks, projections)
        self.last = last
        self.add_module(last, nn.Linear(64, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.bn1(self.conv1(x)))
        z = self.layer3(self.layer2(self.layer1(z)))
        return self.get_submodule(self.last)(F.adaptive_avg_pool2d(z, 1).flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: projected, or every second pixel between channels of zeros."""

    def __init__(self, inputs: int, outputs: int, *, projection: bool) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2
        self.downsample = None
        if projection and stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(z + x)


def _stage(inputs: int, outputs: int, blocks: int, projections: bool) -> nn.Sequential:
    rows = [Block(inputs if i == 0 else outputs, outputs, projection=projections) for i in range(blocks)]
    return nn.Sequential(*rows)
