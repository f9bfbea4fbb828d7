"""A small strided U-Net that predicts the noise in an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from pdenets.denoisers.levels import Levels, check_images

#: Images are padded to a multiple of this: they are halved three times.
_MULTIPLE = 8


class DenoisingUNet(nn.Module):
    """x minus the noise that a U-Net sees in it; images (batch, channels, height, width) of any size.

    The first halving rearranges 2x2 pixels into channels, which loses nothing, and most work is done at
    half and a quarter of the resolution: a network that sees the whole of a small image for little work.
    There is no normalisation, so evaluation and training are the same function.

    References: O. Ronneberger, P. Fischer and T. Brox, "U-Net" (MICCAI 2015); K. Zhang, W. Zuo and L. Zhang,
    "FFDNet" (IEEE TIP 2018), for the rearranged pixels and the noise level as a channel.
    """

    learned = True

    def __init__(
        self, *, input_shape: tuple[int, ...], sigmas: Sequence[float] = (0.25,), width: int = 64
    ) -> None:
        super().__init__()
        check_images("unet", input_shape)
        channels = input_shape[0]
        self.levels = Levels(sigmas)
        self.sigmas = self.levels.sigmas
        self.head = nn.Conv2d(4 * (channels + self.levels.channels), width, 3, padding=1)
        self.fine_in, self.fine_out = Block(width), Block(width)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.coarse_in, self.coarse_out = Block(2 * width), Block(2 * width)
        self.down2 = nn.Conv2d(2 * width, 2 * width, 2, stride=2)
        self.middle = nn.Sequential(Block(2 * width), Block(2 * width))
        self.up2 = nn.ConvTranspose2d(2 * width, 2 * width, 2, stride=2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.tail = nn.Conv2d(width, 4 * channels, 3, padding=1)
        # The untrained network is the identity, which is where a residual starts best.
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised images. ``sigma``: of the noise, one number or one per image (batch,)."""
        height, width = x.shape[2:]
        padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        z = F.pad(self.levels(x, sigma), padding, mode="replicate") if any(padding) else self.levels(x, sigma)
        fine = self.fine_in(self.head(F.pixel_unshuffle(z, 2)))
        coarse = self.coarse_in(self.down(fine))
        coarse = self.coarse_out(coarse + self.up2(self.middle(self.down2(coarse))))
        fine = self.fine_out(fine + self.up(coarse))
        noise = F.pixel_shuffle(self.tail(fine), 2)
        return x - noise[:, :, :height, :width]


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))
