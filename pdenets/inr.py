"""Implicit neural representations: an image as a function of position.

A sine network has derivatives as rich as itself, so it can be fitted to an image's
gradient or Laplacian alone and still recover the image, up to what the operator
forgets: a constant, or a harmonic function.

Reference: Sitzmann, Martel, Bergman, Lindell and Wetzstein (2020).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from certify.calls import checked
from certify.errors import InvalidSetting
from certify.limits import alike, within

TARGETS = ("values", "gradient", "laplacian")


class SineNetwork(nn.Module):
    """Positions (n, inputs) in [-1, 1] -> values (n, outputs); ``depth`` hidden layers of sines.

    ``frequency`` scales the first layer's and every hidden layer's argument. Without
    ``bias`` a 2-4-4-4-4-3 network (width 4, depth 4) has 68 parameters.
    """

    def __init__(
        self,
        inputs: int = 2,
        outputs: int = 1,
        *,
        width: int = 64,
        depth: int = 3,
        frequency: float = 30.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        linear = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(linear)
        self.head = nn.Linear(width, outputs, bias=bias)
        self.frequency = frequency
        with torch.no_grad():  # keeps every layer's argument at unit variance
            for index, layer in enumerate([*linear, self.head]):
                fan = layer.in_features
                bound = 1 / fan if index == 0 else math.sqrt(6 / fan) / frequency
                layer.weight.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(self.frequency * layer(x))
        return self.head(x)


@checked
def differential(network: nn.Module, x: Tensor, *, target: str) -> Tensor:
    """What is compared at the positions x (n, 2): values (n, 1), gradient (n, 2) or Laplacian (n, 1).

    For networks with one output; differentiable in the weights. Raises InvalidSetting.
    """
    if target not in TARGETS:
        raise InvalidSetting(
            f"a network cannot be fitted to {target!r}",
            why=f"the targets are {', '.join(TARGETS)}",
            remedy="choose one of them",
        )
    if target == "values":
        return network(x)
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    if target == "gradient":
        return gradient
    parts = [
        torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])
    ]
    return torch.stack(parts, dim=1).sum(1, keepdim=True)


@checked
def fit(
    network: nn.Module, x: Tensor, wanted: Tensor, *, target: str, steps: int = 1000, lr: float = 1e-3
) -> list[float]:
    """Fit the network to ``wanted`` (as returned by ``differential``) in mean square; the relative losses."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scale = wanted.square().mean()
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (differential(network, x, target=target) - wanted).square().mean() / scale
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@checked
def pixel_grid(height: int, width: int) -> Tensor:
    """Pixel positions (height * width, 2) as (row, column) in [-1, 1]."""
    for name, value in (("height", height), ("width", width)):
        within(name, value, 1, 2**31, "a number of pixels")
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.cartesian_prod(rows, columns)


@checked
def psnr(image: Tensor, reference: Tensor, *, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB."""
    alike("image", image, "reference", reference)
    within("peak", peak, 1e-100, 1e100, "the largest value of a pixel")
    return 10 * math.log10(peak**2 / max(float((image - reference).square().mean()), 1e-30))
