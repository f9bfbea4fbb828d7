"""U-Net for segmentation, optionally trained through an inverse evolution layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import InvalidInput, InvalidSetting
from pdenets.evolution import inverse_evolution, with_inverse_evolution


def unet(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: int = 16,
    depth: int = 3,
    evolution: str | None = None,
    dt: float = 0.1,
    steps: int = 20,
    boundary: str = "zero",
) -> nn.Module:
    """Images (batch, channels, height, width) -> logits (batch, num_classes, height, width).

    ``evolution`` names the inverse evolution layer used in training (none by default);
    dt, steps and boundary are its settings. Height and width may be any size of at
    least 2 * 2^depth. Raises InvalidSetting for other shapes; the network raises InvalidInput for
    smaller images.
    """
    least = 2 * 2**depth
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise InvalidSetting(
            f"unet of depth {depth} has no form for inputs of shape {tuple(input_shape)}",
            why=f"it halves images (channels, height, width) {depth} times, and its norm needs more than one "
            f"pixel at the end: sides of at least {least}",
            remedy="use a smaller depth, or images of a larger size",
        )
    network = UNet(input_shape[0], num_classes, width=width, depth=depth)
    if evolution is None:
        return network
    layer = inverse_evolution(evolution, dt=dt, steps=steps, boundary=boundary)
    return with_inverse_evolution(network, layer)


class UNet(nn.Module):
    """Encoder and decoder with skip connections; instance norm, so that images stay independent.

    Reference: Ronneberger, Fischer and Brox (2015).
    """

    def __init__(self, channels: int, num_classes: int, *, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.least = 2 * 2**depth
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.merge = nn.ModuleList(_block(2 * b, b) for b in widths[-2::-1])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.least:
            raise InvalidInput(
                f"images of {x.shape[2]}x{x.shape[3]} are too small for this U-Net",
                why=f"it halves them {len(self.up)} times, and its norm needs more than one pixel "
                f"at the end: sides of at least {self.least}",
                remedy="use larger images, or a U-Net of a smaller depth",
            )
        skips: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            skip = skips.pop()
            x = up(x)
            # Odd sizes lose a row or column when halved.
            x = F.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]))
            x = merge(torch.cat([skip, x], dim=1))
        return self.head(x)


def _block(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        layers += [
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.InstanceNorm2d(width, affine=True),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers)
