"""The convection-diffusion network: a residual network followed by a diffusion phase.

The model equation is ``u_t = v . grad u`` on [0, T-1], which residual blocks solve
along characteristics, and ``u_t = sigma_p^2 Laplacian u`` on [T-1, T]. One network
g(x, t) stands for the whole second phase: t is joined to the input, and training
penalises the diffusion residual (``pdenets.residual``).

Called with x alone the network returns its logits at t = T-1, the end of the
transport phase. That is the function to smooth: its average under noise of standard
deviation sqrt(2) sigma_p solves the diffusion phase exactly, whereas g(x, T) only
imitates the solution as well as training made it.

Reference: arXiv 2307.12333 (An axiomatized PDE model of deep neural networks), section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import InvalidSetting

#: T. The transport phase lasts T - 1, the diffusion phase 1.
HORIZON = 2.0


def convection_diffusion(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: int | None = None,
    blocks: int | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """The network for vectors (input_shape of length 1) or for images (channels, height, width).

    Defaults: 4 blocks of width 64 for vectors; for images two convolutions of 16 and
    32 channels that reduce the resolution, then 2 residual blocks. ``dropout`` acts
    before the last layer, in training only. Raises InvalidSetting for any other shape.
    """
    if len(input_shape) == 1:
        return VectorConvectionDiffusion(
            num_classes, input_shape[0], width=width or 64, blocks=blocks or 4, dropout=dropout
        )
    if len(input_shape) == 3:
        return ImageConvectionDiffusion(
            num_classes, input_shape, width=width or 16, blocks=blocks or 2, dropout=dropout
        )
    raise InvalidSetting(
        f"convection-diffusion has no form for inputs of shape {tuple(input_shape)}",
        why="it is defined for vectors (d,) and for images (channels, height, width)",
        remedy="reshape the data, or choose another architecture (certify train --list)",
    )


class VectorConvectionDiffusion(nn.Module):
    """g(x, t) for x of shape (batch, d): logits (batch, num_classes)."""

    horizon = HORIZON

    def __init__(
        self, num_classes: int, dim: int, *, width: int = 64, blocks: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.lift = nn.Linear(dim + 1, width)
        self.blocks = nn.ModuleList(_VectorBlock(width) for _ in range(blocks))
        self.head = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(dropout)
        # One Euler step of the transport phase per block.
        self.step = (HORIZON - 1) / blocks

    def forward(self, x: Tensor, t: Tensor | float | None = None) -> Tensor:
        z = self.lift(torch.cat([x, _diffusion_time(x, t)[:, None]], dim=1))
        for block in self.blocks:
            z = z + self.step * block(z)
        return self.head(self.dropout(z))


class ImageConvectionDiffusion(nn.Module):
    """g(x, t) for x of shape (batch, channels, height, width): logits (batch, num_classes).

    No normalisation layer: the residual compares g at neighbouring points of one
    input, so g must not depend on the other inputs of the batch.
    """

    horizon = HORIZON

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        *,
        width: int = 16,
        blocks: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        # Small images (8 x 8 digits) keep their resolution in the first layer.
        stride = 2 if min(height, breadth) >= 16 else 1
        self.lift = nn.Conv2d(channels + 1, width, 5, stride=stride, padding=2)
        self.down = nn.Conv2d(width, 2 * width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(_ImageBlock(2 * width) for _ in range(blocks))
        cells = math.ceil(math.ceil(height / stride) / 2) * math.ceil(math.ceil(breadth / stride) / 2)
        self.head = nn.Linear(2 * width * cells, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.step = (HORIZON - 1) / blocks

    def forward(self, x: Tensor, t: Tensor | float | None = None) -> Tensor:
        time = _diffusion_time(x, t)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        # Channels-last convolutions of this size run about twice as fast on a CPU.
        z = torch.cat([x, time], dim=1).contiguous(memory_format=torch.channels_last)
        z = F.relu(self.down(F.relu(self.lift(z))))
        for block in self.blocks:
            z = z + self.step * block(z)
        return self.head(self.dropout(F.relu(z).flatten(1)))


class _VectorBlock(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))


class _ImageBlock(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )


def _diffusion_time(x: Tensor, t: Tensor | float | None) -> Tensor:
    """Time elapsed in the diffusion phase, shape (batch,): 0 at t = T-1 (the default), 1 at T."""
    if t is None:
        return x.new_zeros(x.shape[0])
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device) - (HORIZON - 1)
    return time.expand(x.shape[0])
