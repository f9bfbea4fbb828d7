"""The networks of the Global layer's experiments: three of about 524 parameters for MNIST, CIFAR nets.

Reference: Kag and Saligrama, Condensing CNNs with Partial Differential Equations, CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.calls import checked
from certify.errors import InvalidSetting
from pdenets.diffusion_advection import GlobalLayer, dufort_frankel
from pdenets.normalisation import Normalise
from pdenets.resnet import CIFAR_MEAN, CIFAR_STD, BasicBlock

BACKBONES = ("convolution", "residual", "global")


@checked
def tiny_global(
    *, num_classes: int, input_shape: tuple[int, ...], backbone: str = "global", steps: int | None = None
) -> nn.Module:
    """One-channel network: a 3x3 convolution, the backbone, 4x4 average pooling, a linear layer.

    On MNIST 524 parameters with backbone "residual" (K = 1) or "global" (K = 5), 522
    with "convolution", which has no batch norm at its end. Raises InvalidSetting.
    """
    if len(input_shape) != 3 or input_shape[0] != 1 or backbone not in BACKBONES:
        raise InvalidSetting(
            f"tiny-global has no form {backbone!r} for inputs of shape {tuple(input_shape)}",
            why=f"it takes images of one channel; its backbones are {', '.join(BACKBONES)}",
            remedy="use --data mnist, or another architecture",
        )
    return TinyGlobal(num_classes, input_shape, backbone=backbone, steps=steps)


class TinyGlobal(nn.Module):
    """See ``tiny_global``. Here one signed convolution gives both velocities, u = v, and D = 1."""

    def __init__(
        self, num_classes: int, input_shape: tuple[int, ...], *, backbone: str, steps: int | None
    ) -> None:
        super().__init__()
        _, height, width = input_shape
        self.backbone = backbone
        self.steps = steps or (5 if backbone == "global" else 1)
        self.normalise = Normalise((0.1307,), (0.3081,))
        self.norm_in = nn.BatchNorm2d(1)
        self.first = _OneChannel(1, 1, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.second = _OneChannel(1, 1, 3, padding=1, bias=False)
        self.norm_out = None if backbone == "convolution" else nn.BatchNorm2d(1)
        self.head = nn.Linear((height // 4) * (width // 4), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self._features(x)
        if self.backbone == "convolution":
            h = self._second(h)
        elif self.backbone == "residual":
            for _ in range(self.steps):
                h = h + self._second(h)
        else:
            speed, one = self._second(h), h.new_ones(())
            h = dufort_frankel(h, speed, speed, one, one, source=h, steps=self.steps, dt=0.2, dx=1.0)
        if self.norm_out is not None:
            h = self.norm_out(h)
        return self.head(F.avg_pool2d(F.relu(h), 4).flatten(1))

    def coefficients(self, x: Tensor) -> dict[str, Tensor]:
        """The coefficients of the diffusion-advection equation on the inputs x: u, v, Dx, Dy."""
        h = self._features(x)
        speed, one = self._second(h), h.new_ones(())
        return {"u": speed, "v": speed, "Dx": one, "Dy": one}

    def _features(self, x: Tensor) -> Tensor:
        return self.first(F.relu(self.norm_in(self.normalise(x))))

    def _second(self, h: Tensor) -> Tensor:
        return self.second(F.relu(self.norm(h)))


class _OneChannel(nn.Conv2d):
    """A 3x3 convolution of one channel as nine shifted products: several times faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2:]
        padded = F.pad(input, (1, 1, 1, 1))
        terms = [
            self.weight[0, 0, i, j] * padded[:, :, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        ]
        return sum(terms[1:], start=terms[0])


@checked
def global_cifar(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    steps: int = 1,
    diffusion: str = "learned",
    advection: bool = True,
    max_speed: float | None = None,
    coef_bn_eps: float = 1e-5,
    mean: Sequence[float] = CIFAR_MEAN,
    std: Sequence[float] = CIFAR_STD,
) -> nn.Module:
    """A residual network of four blocks (16, 32, 64, 64 channels), a Global layer after the first three.

    161,850 parameters on CIFAR-10 with K = ``steps`` = 1 and learned diffusion, 159,162
    with constant diffusion, with no advection, or with no diffusion.
    """
    settings = {"steps": steps, "diffusion": diffusion, "advection": advection,
                "max_speed": max_speed, "coef_bn_eps": coef_bn_eps}  # fmt: skip
    channels = input_shape[0]
    normalise = (
        Normalise(mean, std) if channels == len(mean) else Normalise([0.5] * channels, [0.25] * channels)
    )
    stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks: list[nn.Module] = []
    for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        blocks += [BasicBlock(inputs, outputs, stride=stride), GlobalLayer(outputs, **settings)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)]
    return nn.Sequential(normalise, stem, *blocks, BasicBlock(64, 64, stride=2), *head)


@checked
def coefficient_maps(network: nn.Module, x: Tensor) -> list[dict[str, Tensor]]:
    """The maps u, v, Dx, Dy of every diffusion-advection layer of ``network`` on the inputs x, in order."""
    found: list[dict[str, Tensor]] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, GlobalLayer | TinyGlobal)
        found.append({name: value.detach() for name, value in layer.coefficients(inputs[0]).items()})

    handles = [m.register_forward_pre_hook(look) for m in network.modules() if _has_equation(m)]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _has_equation(module: nn.Module) -> bool:
    return isinstance(module, GlobalLayer) or (isinstance(module, TinyGlobal) and module.backbone == "global")
