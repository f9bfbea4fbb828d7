"""The few numbers of a classical denoiser, matched to the noise on images that nobody certifies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certify import registry
from certify.calls import checked
from certify.checkpoints.header import Header
from certify.data.dataset import Dataset
from certify.denoising import takes_sigma
from certify.errors import InvalidSetting
from pdenets.denoisers.building import build_denoiser, described

#: Held-out images that matching looks at, drawn from the whole set.
_IMAGES = 512


@dataclass(frozen=True)
class Match:
    """The denoiser with its matched numbers, and the decibels of all that were tried."""

    denoiser: nn.Module
    header: Header
    arguments: dict[str, Any]
    psnr: float
    tried: tuple[tuple[dict[str, Any], float], ...]


@checked
def match_denoiser(
    name: str,
    data: Dataset,
    *,
    sigma: float,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Match:
    """The denoiser ``name`` with those of its numbers that ``arguments`` leave open matched to ``sigma``.

    Chosen by the mean squared error on at most 512 images of ``data`` under fresh noise, among the values
    that its class lists as ``matched``. Give training images: what is chosen on the inputs that are
    certified would make their certified accuracy an optimistic estimate. The result carries a header,
    like a checkpoint.

    Raises InvalidSetting for a sigma that is not positive, ArchitectureMismatch as ``build_denoiser``.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise InvalidSetting(
            f"nothing can be matched to sigma = {sigma!r}",
            why="the noise's standard deviation must be positive and finite",
            remedy="give the sigma of the smoothing, such as 0.25",
        )
    arguments = dict(arguments or {})
    to_match = open_values(name, arguments)
    images, noisy = _held_out(data, sigma, seed)
    tried = []
    for values in itertools.product(*(values for _, values in to_match)):
        chosen = arguments | dict(zip((key for key, _ in to_match), values, strict=True))
        tried.append(
            (chosen, _psnr(build_denoiser(name, chosen, data.input_shape), images, noisy, sigma, data))
        )
    best, psnr = max(tried, key=lambda row: row[1])
    record = {"sigma": sigma, "psnr": psnr, "images": len(images), "seed": seed, "data": data.digest()}
    denoiser, header = described(name, best, data, record)
    return Match(denoiser, header, best, psnr, tuple(tried))


def open_values(name: str, arguments: Mapping[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
    """The numbers of the denoiser ``name`` that are left to matching, each with the values to try."""
    matched = getattr(registry.denoiser(name), "matched", ())
    return [(key, values) for key, values in matched if key not in arguments]


def _held_out(data: Dataset, sigma: float, seed: int) -> tuple[Tensor, Tensor]:
    """Images drawn by key, and a noisy copy of each."""
    generator = torch.Generator().manual_seed(seed)
    images = data.x[torch.randperm(len(data), generator=generator)[:_IMAGES]]
    return images, images + sigma * torch.randn(images.shape, generator=generator)


@torch.no_grad()
def _psnr(denoiser: nn.Module, images: Tensor, noisy: Tensor, sigma: float, data: Dataset) -> float:
    found = denoiser(noisy, sigma=sigma) if takes_sigma(denoiser) else denoiser(noisy)
    error = float((found - images).double().square().mean())
    return 10 * math.log10((data.high - data.low) ** 2 / max(error, 1e-30))
