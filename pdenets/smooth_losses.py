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
        return {
            "classification": F.cross_entropy(logits, target),
            "consistency": self.weight * _disagreement(logits, self.copies, eta=self.eta),
        }


def _disagreement(logits: Tensor, copies: int, *, eta: float) -> Tensor:
    """Spread of the copies' probabilities around their mean, plus ``eta`` times the mean's entropy.

    ``logits``: (copies * batch, classes, ...), copy by copy. The regulariser of ``Consistency``.
    """
    log_p = logits.log_softmax(1).unflatten(0, (copies, len(logits) // copies))
    mean = log_p.exp().mean(0)
    log_mean = mean.clamp_min(1e-12).log()
    spread = (mean * (log_mean - log_p)).sum(2).mean()
    return spread - eta * (mean * log_mean).sum(1).mean()


@dataclass(frozen=True)
class SmoothAdversarial:
    """Cross-entropy on noisy copies of an attacked input.

    ``steps`` projected gradient steps of length ``2 radius / steps`` raise the loss of
    the *mean* softmax over the copies, inside the l2 ball of ``radius`` (input units).
    ``consistency`` > 0 adds that weight times the disagreement of the attacked copies
    (``eta`` as in ``Consistency``).

    References: Salman et al., Provably Robust Deep Learning via Adversarially Trained
    Smoothed Classifiers, NeurIPS 2019; with consistency Jeong and Shin, NeurIPS 2020.
    """

    sigma: float
    radius: float = 0.5
    steps: int = 2
    copies: int = 2
    consistency: float = 0.0
    eta: float = 0.5

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
        losses = {"classification": F.cross_entropy(logits, target)}
        if self.consistency:
            losses["consistency"] = self.consistency * _disagreement(logits, self.copies, eta=self.eta)
        return losses


@dataclass(frozen=True)
class Macer:
    """Cross-entropy of the mean softmax over noisy copies, and a hinge on a soft certified radius.

    For inputs whose mean over the copies of softmax(beta * logits) is right, the soft radius is
    sigma / 2 * (z(p1) - z(p2)): p1 and p2 are the two largest means, z is the normal quantile. The loss
    adds weight * sigma / 2 * (gamma - z(p1) + z(p2)), while that is positive, averaged over the
    batch. Means that are 0 or 1 to rounding have no gradient and are left out.

    Reference: Zhai et al., MACER: Attack-free and Scalable Robust Training via Maximizing Certified
    Radius, ICLR 2020.
    """

    sigma: float
    weight: float = 16.0
    gamma: float = 8.0
    beta: float = 16.0
    copies: int = 16

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        logits = _on_copies(model, x, _noise(x, self.sigma, self.copies, generator))
        logits = logits.unflatten(0, (self.copies, len(x)))
        mean = logits.softmax(2).mean(0)
        (p1, p2), first = _two_largest((self.beta * logits).softmax(2).mean(0))
        usable = (first == y) & (p1 < 1) & (p2 > 0)
        gap = torch.special.ndtri(torch.where(usable, p1, 0.75)) - torch.special.ndtri(
            torch.where(usable, p2, 0.25)
        )
        lost = torch.where(usable, (self.gamma - gap).clamp_min(0), 0.0)
        return {
            "classification": F.nll_loss(mean.clamp_min(1e-12).log(), y),
            "radius": self.weight * self.sigma / 2 * lost.mean(),
        }


def _two_largest(p: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest of each row, shape (2, batch), and the place of the largest."""
    values, places = p.topk(2, dim=1)
    return values.T, places[:, 0]


def _noise(x: Tensor, sigma: float, copies: int, generator: torch.Generator) -> Tensor:
    shape = (copies, *x.shape)
    return sigma * torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)


def _on_copies(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """Logits of all noisy copies, shape (copies * batch, classes, ...)."""
    return model((x[None] + noise).flatten(0, 1))


def _norm(z: Tensor) -> Tensor:
    """l2 norm of every input, shaped to divide it."""
    return z.flatten(1).norm(dim=1).view(-1, *[1] * (z.dim() - 1))
