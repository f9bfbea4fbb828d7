"""The noise levels a learned denoiser knows: one, or several in one network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from certify.errors import InvalidSetting


class Levels(nn.Module):
    """Inputs (batch, channels, height, width) with a constant channel of sigma, where there are several
    levels.

    A network for one level needs no such channel: it is trained for nothing else. ``sigmas`` are the
    levels it is trained for, as standard deviations in the units of the inputs; between them it
    interpolates.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.sigmas = check_sigmas(sigmas)

    @property
    def channels(self) -> int:
        """How many channels are added."""
        return int(len(self.sigmas) > 1)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """``sigma``: one number, or one per image (batch,)."""
        if not self.channels:
            return x
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
        return torch.cat([x, level.expand(len(x), 1, *x.shape[2:])], dim=1)

    def extra_repr(self) -> str:
        return f"sigmas={self.sigmas}"


def check_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The levels in increasing order, each once. Raises InvalidSetting."""
    try:
        found = tuple(sorted({float(sigma) for sigma in sigmas}))
    except (TypeError, ValueError):
        found = ()
    if not found or not all(math.isfinite(sigma) and sigma > 0 for sigma in found):
        raise InvalidSetting(
            f"the noise levels {sigmas!r} cannot be used",
            why="a denoiser is trained for one or more positive standard deviations",
            remedy="give for example sigmas=[0.25], or --sigma 0.25",
        )
    return found


def check_images(name: str, input_shape: tuple[int, ...]) -> None:
    """Raise InvalidSetting unless inputs are images (channels, height, width)."""
    if len(input_shape) != 3:
        raise InvalidSetting(
            f"the denoiser {name!r} has no form for inputs of shape {tuple(input_shape)}",
            why="it compares neighbouring pixels of images (channels, height, width)",
            remedy="use the denoiser identity, or a module of your own",
        )
