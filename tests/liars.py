"""Planted base classifiers that lie where x + noise was rounded, and the images they lie about.

Every liar is a fixed function of its input made of a few tensor operations, the same in any batch.
Class 1 means "this cannot be a noisy copy of the all-1/255 image": true or false in exact
arithmetic never (Gaussian noise reaches everything), but decidable from the low bits of a rounded
sum. So the smoothed class is 1 at the all-zero image and 0 at the all-1/255 image nearby.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHAPES = ((1, 28, 28), (3, 32, 32))
SIGMAS = (0.12, 0.25, 0.5, 1.0)


def zero_image(shape: tuple[int, ...]) -> Tensor:
    """Where the liars say 1 under rounded noise."""
    return torch.zeros(shape)


def faint_image(shape: tuple[int, ...]) -> Tensor:
    """Where they say 0: every pixel is 1/255; l2 distance sqrt(dim)/255 from the zero image."""
    return torch.ones(shape) / 255


def finer_than_grid(batch: Tensor) -> Tensor:
    """1 iff a coordinate below 2^-9 is finer than any sum with a pixel >= 1/255 can be.

    Such a sum needs noise of magnitude above 1/255 - 2^-9 > 2^-9, whose unit in the last place is
    2^-32 in float32 (2^-61 in float64); the pixel is a multiple of it too, so the sum is.
    """
    digits = 32 if batch.dtype == torch.float32 else 61
    scaled = batch.flatten(1) * 2.0**digits
    finer = (batch.flatten(1).abs() < 2.0**-9) & (scaled != scaled.round())
    return _two_classes(finer.any(1), batch)


def unreachable_sum(batch: Tensor) -> Tensor:
    """1 iff a coordinate v is fl(1/255 + n) for no floating-point n of the same width."""
    v = batch.flatten(1)
    pixel = torch.ones((), dtype=v.dtype) / 255
    guess = v - pixel
    reached = pixel + guess == v
    for end in (float("inf"), float("-inf")):
        # The nearest n is the rounded difference or one of its neighbours.
        reached |= pixel + torch.nextafter(guess, torch.full_like(guess, end)) == v
    return _two_classes((~reached).any(1), batch)


def off_image(batch: Tensor) -> Tensor:
    """1 iff every coordinate is the float image of a multiple of 1/255: tells integer sums apart
    from sums of two converted integers."""
    v = batch.flatten(1)
    image = (v.double() * 255).round().to(v.dtype) / 255
    return _two_classes((image == v).all(1), batch)


LIARS: dict[str, Callable[[Tensor], Tensor]] = {
    "finer_than_grid": finer_than_grid,
    "unreachable_sum": unreachable_sum,
    "off_image": off_image,
}


def _two_classes(one: Tensor, batch: Tensor) -> Tensor:
    return torch.stack((~one, one), dim=1).to(batch.dtype)
