"""Log-probabilities of every pixel and their gradient: of a network, or of its smoothed version."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from attacks.oracle import Oracle
from attacks.streams import Streams
from attacks.under_attack import slope

#: Pixels of all images of one evaluation with gradients: 256 images of 32 x 32, one of 512 x 512.
MOST_PIXELS = 1 << 18
#: Maps log-probabilities (rows, classes, height, width) and the rows they belong to, to what is ascended.
Objective = Callable[[Tensor, slice], Tensor]


class Source(Protocol):
    """What is attacked, as the search sees it."""

    def ascend(self, point: Tensor, objective: Objective, purpose: str) -> tuple[Tensor, Tensor]:
        """Log-probabilities (rows, classes, height, width) and the objective's gradient at ``point``."""
        ...


class Network:
    """The base network: log-softmax of its scores."""

    def __init__(self, oracle: Oracle, samples: Tensor) -> None:
        self.oracle, self.samples = oracle, samples

    def ascend(self, point: Tensor, objective: Objective, purpose: str) -> tuple[Tensor, Tensor]:
        self.oracle.focus(self.samples)
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            logs = self.oracle.differentiable(leaf).log_softmax(1)
            gradient = slope(objective(logs, slice(None)), leaf)
        self.oracle.focus(None)
        return logs.detach(), gradient


class Smoothed:
    """The smoothed network: log of the mean softmax over ``draws`` noise draws, fresh in every step.

    The gradient is that of the mean (Salman et al. 2019, eq. 10, pixel by pixel). ``sigma``
    broadcasts against one image.
    """

    def __init__(
        self, oracle: Oracle, samples: Tensor, streams: Streams, *, sigma: Tensor, draws: int
    ) -> None:
        self.oracle, self.samples, self.streams = oracle, samples, streams
        self.sigma, self.draws = sigma, draws

    def ascend(self, point: Tensor, objective: Objective, purpose: str) -> tuple[Tensor, Tensor]:
        size = max(1, min(self.draws, MOST_PIXELS // point[0, 0].numel()))
        found = [self._one(point, row, objective, purpose, size) for row in range(len(point))]
        logs, gradients = zip(*found, strict=True)
        return torch.cat(logs), torch.cat(gradients)

    def _one(
        self, point: Tensor, row: int, objective: Objective, purpose: str, size: int
    ) -> tuple[Tensor, Tensor]:
        position = torch.tensor([row])
        noise = self.streams.subset(position).normal((self.draws, *point.shape[1:]), purpose)[0]
        parts = (self.sigma * noise.to(point)).split(size)
        one = point[row : row + 1].detach()
        if len(parts) == 1:
            return self._together(one, row, parts[0], objective)
        return self._in_parts(one, row, parts, objective)

    def _together(self, one: Tensor, row: int, noise: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = one.clone().requires_grad_()
            logs = self._log_softmax(leaf + noise, row, gradients=True)
            mean = logs.logsumexp(0, keepdim=True) - math.log(self.draws)
            gradient = slope(objective(mean, slice(row, row + 1)), leaf)
        return mean.detach(), gradient

    def _in_parts(
        self, one: Tensor, row: int, parts: tuple[Tensor, ...], objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """The same for images whose draws do not fit at once: first the mean, then its gradient."""
        mean = torch.zeros((), device=one.device)
        for noise in parts:
            mean = mean + self._log_softmax(one + noise, row, gradients=False).exp().sum(0, keepdim=True)
        with torch.enable_grad():
            probability = (mean / self.draws).clamp_min(1e-30).requires_grad_()
            logs = probability.log()
            weight = slope(objective(logs, slice(row, row + 1)), probability)
        total = torch.zeros_like(one)
        for noise in parts:
            with torch.enable_grad():
                leaf = one.clone().requires_grad_()
                softmax = self._log_softmax(leaf + noise, row, gradients=True).exp()
                total += slope(weight * softmax / self.draws, leaf)
        return logs.detach(), total

    def _log_softmax(self, cloud: Tensor, row: int, *, gradients: bool) -> Tensor:
        self.oracle.focus(self.samples[row : row + 1].repeat_interleave(len(cloud)))
        scores = self.oracle.differentiable(cloud) if gradients else self.oracle.scores(cloud)
        self.oracle.focus(None)
        return scores.log_softmax(1)
