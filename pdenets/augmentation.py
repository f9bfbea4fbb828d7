"""Data augmentation: every image is shown shifted, or mirrored, by another random amount in every epoch.

The draws of an epoch belong to (seed, epoch, row of the data set) and to nothing else. They are the
same for every batch size and number of processes, and a resumed training sees what an
uninterrupted one sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from certify.contract import IGNORE
from certify.data.dataset import Dataset
from certify.errors import InvalidSetting

#: How far an image is shifted at most, in pixels: the padding of 4 that CIFAR is trained with.
PADDING = 4
#: Name -> (largest shift, whether half of the images are mirrored).
AUGMENTATIONS = {
    "none": (0, False), "shift": (2, False), "crop": (PADDING, False), "crop-flip": (PADDING, True),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Random crops of padded images, and horizontal flips, for one training.

    Every image is padded by ``padding`` pixels of value ``fill`` on each side and cut back to its
    size at a random place, which shifts it by up to ``padding`` pixels; with ``flip`` it is mirrored
    left to right with probability 1/2. Label maps go along, ``certify.contract.IGNORE`` coming in from
    outside. K. He et al., "Deep residual learning for image recognition" (CVPR 2016), section 4.2.
    """

    padding: int
    flip: bool
    fill: float
    seed: int

    def epoch(self, epoch: int, rows: int) -> Draws:
        """The draws of one epoch for all ``rows`` of the data set."""
        rng = np.random.default_rng([self.seed % 2**63, epoch, 0x41554721])
        shifts = torch.from_numpy(rng.integers(0, 2 * self.padding + 1, size=(rows, 2)))
        flips = torch.from_numpy(rng.random(rows) < 0.5) & self.flip
        return Draws(self, shifts, flips)


@dataclass(frozen=True, eq=False)
class Draws:
    """Of one epoch: where each row is cut (rows, 2) and whether it is mirrored (rows,)."""

    of: Augmentation
    shifts: Tensor
    flips: Tensor

    def apply(self, x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (batch, channels, height, width) and labels of these rows, augmented.

        ``y``: (batch,) classes, returned as they are, or (batch, height, width) label maps.
        """
        shifts, flips = self.shifts[rows].to(x.device), self.flips[rows].to(x.device)
        image = _cut(x, shifts, flips, self.of.padding, self.of.fill)
        if y.dim() != 3:
            return image, y
        return image, _cut(y[:, None], shifts, flips, self.of.padding, IGNORE)[:, 0]


def augmentation(name: str, data: Dataset, *, seed: int) -> Augmentation | None:
    """The augmentation called ``name`` for ``data``, None for "none".

    Outside of an image lies the lowest value of the declared range (black). Raises InvalidSetting for an
    unknown name and for inputs that are no images.
    """
    if name not in AUGMENTATIONS:
        raise InvalidSetting(
            f"augmentation {name!r} is unknown",
            why=f"the augmentations are {', '.join(AUGMENTATIONS)}",
            remedy="choose one of them, or leave it out for the default of the data set",
        )
    if name == "none":
        return None
    if len(data.input_shape) != 3:
        raise InvalidSetting(
            f"augmentation {name!r} cannot be used with {data.name}",
            why=f"its inputs have shape {data.input_shape}; only images (channels, height, width) move",
            remedy="use --augment none",
        )
    padding, flip = AUGMENTATIONS[name]
    return Augmentation(padding, flip, float(data.low), seed)


def _cut(x: Tensor, shifts: Tensor, flips: Tensor, padding: int, fill: float) -> Tensor:
    """Windows of the padded images at ``shifts`` (batch, 2), mirrored where ``flips``."""
    batch, height, width = len(x), x.shape[2], x.shape[3]
    padded = F.pad(x, (padding,) * 4, value=fill)
    rows = shifts[:, :1] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(batch, width)
    columns = shifts[:, 1:] + torch.where(flips[:, None], width - 1 - columns, columns)
    which = torch.arange(batch, device=x.device)[:, None, None]
    # Indices on both sides of the channels put these last.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1).contiguous()
