"""How good a denoiser is on held-out inputs: restored decibels, and answers that survive."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certify.data.dataset import Dataset

#: Held-out inputs that are measured: enough to steer by, cheap after every epoch.
_MOST = 1000


@dataclass(frozen=True)
class DenoiserMetrics:
    """Measured after one epoch on at most 1,000 held-out inputs, one noisy copy each.

    ``psnr``: of the denoised copies in dB, per noise level (10 log10 of range squared over mean squared
    error). ``agreement``: the share on which the classifier answers the denoised copy as the clean input,
    per noise level; ``clean_agreement``: the same where the clean input is denoised. None without a
    classifier.
    """

    epoch: int
    stage: str
    psnr: Mapping[str, float]
    agreement: Mapping[str, float] | None = None
    clean_agreement: float | None = None


@torch.no_grad()
def measure(
    denoiser: nn.Module,
    data: Dataset,
    sigmas: Sequence[float],
    classifier: Callable[[Tensor], Any] | None = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> DenoiserMetrics:
    """Metrics of ``denoiser`` at every level of ``sigmas``; a clean input is denoised at the lowest level."""
    found = next((t for t in (*denoiser.parameters(), *denoiser.buffers())), torch.empty(0))
    denoiser.eval()
    images = data.x[:_MOST].to(found.device)
    clean = None if classifier is None else _answers(classifier, images, batch_size)
    psnr: dict[str, float] = {}
    agreement: dict[str, float] = {}
    for index, sigma in enumerate(sigmas):
        generator = torch.Generator(device=images.device).manual_seed(seed + index)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        restored = _denoised(denoiser, images + sigma * noise, sigma, batch_size)
        error = float((restored - images).double().square().mean())
        psnr[f"{sigma:g}"] = 10 * math.log10((data.high - data.low) ** 2 / max(error, 1e-30))
        if classifier is not None and clean is not None:
            agreement[f"{sigma:g}"] = _share(clean, _answers(classifier, restored, batch_size))
    if classifier is None or clean is None:
        return DenoiserMetrics(0, "", psnr)
    restored = _denoised(denoiser, images, min(sigmas), batch_size)
    return DenoiserMetrics(0, "", psnr, agreement, _share(clean, _answers(classifier, restored, batch_size)))


@contextmanager
def frozen(classifier: nn.Module | None) -> Iterator[None]:
    """The classifier takes no gradient and is in eval mode inside; afterwards it is as it was."""
    parameters = [] if classifier is None else [p for p in classifier.parameters() if p.requires_grad]
    training = [] if classifier is None else [part for part in classifier.modules() if part.training]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True


def _denoised(denoiser: nn.Module, images: Tensor, sigma: float, batch_size: int) -> Tensor:
    return torch.cat([denoiser(part, sigma) for part in images.split(batch_size)])


def _answers(classifier: Callable[[Tensor], Any], images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([classifier(part).argmax(1) for part in images.split(batch_size)])


def _share(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())
