"""What a denoiser is trained for: to restore the input, or the answer of a classifier behind it.

Each loss has the form of a regulariser (``pdenets.regularisers``), so the one training loop takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Restoration:
    """Mean squared error between D(x + noise) and x, at a level drawn from ``sigmas`` for every input."""

    sigmas: Sequence[float]

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        noisy, sigma = noised(x, self.sigmas, generator)
        return {"mse": F.mse_loss(model(noisy, sigma), x)}


@dataclass(frozen=True)
class Stability:
    """Cross-entropy of f(D(x + noise)) to f's own answer on the clean x; f is frozen.

    Labels play no part: what is kept is what the classifier already says. Segmenters answer per pixel.

    Reference: H. Salman, M. Sun, G. Yang, A. Kapoor and J. Z. Kolter, "Denoised Smoothing" (NeurIPS 2020),
    the objective STAB.
    """

    classifier: nn.Module
    sigmas: Sequence[float]

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        noisy, sigma = noised(x, self.sigmas, generator)
        with torch.no_grad():
            answer = self.classifier(x).argmax(1)
        return {"stability": F.cross_entropy(self.classifier(model(noisy, sigma)), answer)}


def noised(x: Tensor, sigmas: Sequence[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x + sigma * normal noise, and the sigma of every input (batch,), drawn evenly from ``sigmas``."""
    levels = torch.tensor(list(sigmas), device=x.device, dtype=x.dtype)
    which = torch.randint(len(levels), (len(x),), generator=generator, device=x.device)
    sigma = levels[which]
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + sigma.reshape(-1, *[1] * (x.dim() - 1)) * noise, sigma
