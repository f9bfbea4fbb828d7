"""DnCNN: a plain convolutional network that predicts the noise in an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from certify.errors import InvalidSetting
from pdenets.denoisers.levels import Levels, check_images


class DnCNN(nn.Module):
    """x minus the noise that ``depth`` 3x3 convolutions see in it; images of any size.

    Between the first and the last layer stand batch norm and ReLU. Every pixel sees 2 * depth + 1 pixels.

    Reference: K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, "Beyond a Gaussian Denoiser" (IEEE TIP 2017).
    """

    learned = True

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        sigmas: Sequence[float] = (0.25,),
        depth: int = 8,
        width: int = 32,
    ) -> None:
        super().__init__()
        check_images("dncnn", input_shape)
        if depth < 3 or width < 1:
            raise InvalidSetting(
                f"DnCNN has no form of depth {depth} and width {width}",
                why="it has a first, a last and at least one layer between, of one channel or more",
                remedy="use a depth of 8 to 17 and a width of 32 to 64",
            )
        self.levels = Levels(sigmas)
        self.sigmas = self.levels.sigmas
        channels = input_shape[0]
        layers: list[nn.Module] = [
            nn.Conv2d(channels + self.levels.channels, width, 3, padding=1), nn.ReLU(inplace=True)
        ]  # fmt: skip
        for _ in range(depth - 2):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised images. ``sigma``: of the noise, one number or one per image (batch,)."""
        return x - self.layers(self.levels(x, sigma))
