"""Training losses for smoothed classifiers: agreement under noise, and attacks on the noisy average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy on ``copies`` noisy copies, plus weight * (their spread + eta * their entropy).

    The spread is the mean Kullback-Leibler divergence of every copy's probabilities
    from their mean: a smoothed classifier is confident where its votes agree.

    Reference: Jeong and Shin, Consistency Regularization for Certified Robustness of
    Smoothed Classifiers, NeurIPS 2020.
    """

    sigma: float
    weight: float = 10.0
    eta: float = 0.5
    copies: int = 2

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        logits = _on_copies(model, x, _noise(x, self.sigma, self.copies, generator))
        target = y.repeat(self.copies, *[1] * (y.dim() - 1))
        log_p = logits.log_softmax(1).unflatten(0, (self.copies, len(x)))
        mean = log_p.exp().mean(0)
        log_mean = mean.clamp_min(1e-12).log()
        spread = (mean * (log_mean - log_p)).sum(2).mean()
        entropy = -(mean * log_mean).sum(1).mean()
        return {
            "classification": F.cross_entropy(logits, target),
            "consistency": self.weight * (spread + self.eta * entropy),
        }


@dataclass(frozen=True)
class SmoothAdversarial:
    """Cross-entropy on noisy copies of an attacked input.

    ``steps`` projected gradient steps of length ``2 radius / steps`` raise the loss of
    the *mean* softmax over the copies, inside the l2 ball of ``radius`` (input units).

    Reference: Salman et al., Provably Robust Deep Learning via Adversarially Trained
    Smoothed Classifiers, NeurIPS 2019.
    """

    sigma: float
    radius: float = 0.5
    steps: int = 2
    copies: int = 2

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        noise = _noise(x, self.sigma, self.copies, generator)
        delta = torch.zeros_like(x)
        for _ in range(self.steps):
            delta.requires_grad_()
            p = _on_copies(model, x + delta, noise).softmax(1).unflatten(0, (self.copies, len(x))).mean(0)
            loss = F.nll_loss(p.clamp_min(1e-12).log(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, delta)
            step = 2 * self.radius / self.steps * gradient / _norm(gradient).clamp_min(1e-12)
            delta = (delta + step).detach()
            delta = delta * (self.radius / _norm(delta).clamp_min(1e-12)).clamp_max(1)
        logits = _on_copies(model, x + delta.detach(), noise)
        target = y.repeat(self.copies, *[1] * (y.dim() - 1))
        return {"classification": F.cross_entropy(logits, target)}


def _noise(x: Tensor, sigma: float, copies: int, generator: torch.Generator) -> Tensor:
    shape = (copies, *x.shape)
    return sigma * torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)


def _on_copies(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logits of all noisy copies, shape (copies * batch, classes, ...)."""
    return model((x[None] + noise).flatten(0, 1))


def _norm(z: Tensor) -> Tensor:
    """l2 norm of every input, shaped to divide it."""
    return z.flatten(1).norm(dim=1).view(-1, *[1] * (z.dim() - 1))
