"""Attacks on a smoothed classifier, where a gradient is an average over noise.

The attack follows -log of the *mean softmax* over noise draws (Salman et al. 2019, "Provably robust
deep learning via adversarially trained smoothed classifiers", eq. 10): the gradient of the mean,
not the mean of gradients. What it finds is only a candidate: few draws fool the attacker more
easily than the classifier. ``attacks.confirmation`` decides with fresh noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.geometry import clip, column, norm, project, steepest
from attacks.losses import margin
from attacks.pgd import keep
from attacks.problem import Problem
from attacks.under_attack import slope


@dataclass(frozen=True)
class Blur:
    """The noise of a smoothed classifier as the attack sees it: Gaussian, standard deviation ``sigma``."""

    sigma: Tensor
    problem: Problem

    def ascend(self, point: Tensor, label: Tensor, draws: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Mean softmax (rows, classes) at ``point`` and the gradient of its -log at ``label``."""
        problem, rows = self.problem, len(point)
        noise = problem.streams.normal((draws, *problem.shape), purpose).to(point)
        means, gradients = [], []
        size = max(problem.rows // draws, 1)
        for first in range(0, rows, size):
            part = slice(first, first + size)
            problem.oracle.focus(problem.samples[part].repeat_interleave(draws))
            with torch.enable_grad():
                leaf = point[part].detach().requires_grad_()
                cloud = (leaf[:, None] + self.sigma * noise[part]).flatten(0, 1)
                logs = problem.oracle.differentiable(cloud).log_softmax(1).unflatten(0, (-1, draws))
                mean = logs.logsumexp(1) - math.log(draws)
                loss = -mean.gather(1, label[part, None])
                gradient = slope(loss, leaf)
            means.append(mean.detach().exp())
            gradients.append(gradient)
        problem.oracle.focus(None)
        return torch.cat(means), torch.cat(gradients)

    def vote_gap(self, point: Tensor, label: Tensor, draws: int, purpose: str) -> Tensor:
        """(rows,) share of the votes for the best other class minus that for ``label``."""
        problem = self.problem
        out = []
        for i in range(len(point)):
            row = torch.tensor([i], device=point.device)
            noise = problem.take(row).streams.normal((draws, *problem.shape), purpose)[0].to(point)
            problem.oracle.focus(problem.samples[row].repeat(draws))
            votes = problem.oracle.scores(point[i] + self.sigma * noise).argmax(1)
            share = torch.bincount(votes, minlength=problem.classes).double() / draws
            out.append(-margin(share[None], label[row]))
        problem.oracle.focus(None)
        return torch.cat(out)


def smoothed_pgd(problem: Problem, sigma: Tensor, *, draws: int, steps: int = 40) -> list[Tensor]:
    """Candidates inside the ball of size ``eps``, most promising first: PGD on the smoothed loss.

    Returns tensors (rows, *shape): the point of lowest margin of the mean softmax, then the last point.
    """
    blur = Blur(sigma, problem)
    point = best = problem.x
    lowest = torch.full_like(problem.eps, math.inf)
    for step in range(steps):
        mean, gradient = blur.ascend(point, problem.y, draws, f"smoothed-pgd/{step}")
        best, lowest = keep(best, lowest, point, margin(mean, problem.y))
        size = column(2.5 * problem.eps / steps, point)
        point = project(
            problem.x, point + size * steepest(gradient, problem.p), problem.eps, problem.p, problem.box
        )
    mean, _ = blur.ascend(point, problem.y, draws, f"smoothed-pgd/{steps}")
    best, _ = keep(best, lowest, point, margin(mean, problem.y))
    return [best, point]


def smoothed_minimal(
    problem: Problem,
    sigma: Tensor,
    *,
    snap: Callable[[Tensor], Tensor],
    draws: int,
    refine_draws: int,
    gap: float,
    stretches: Sequence[float] = (1.0, 1.015, 1.04, 1.12),
    steps: int = 50,
    refine_steps: int = 25,
    votes: int = 1000,
) -> list[Tensor]:
    """Candidates near the smallest perturbation that flips the smoothed class, nearest first.

    Finds a direction with ``draws`` noise draws per gradient and then ``refine_draws``, walks along
    it to where ``votes`` votes at the point moved by ``snap`` put the gap between the new class and
    the old one at ``gap``, and adds the points beyond at the factors ``stretches``: a confirmation
    needs a clear gap.
    """
    blur = Blur(sigma, problem)
    size = torch.full_like(problem.eps, float(sigma.min()))
    point, size = _decoupled(blur, problem.x, size, draws, steps, 0.15, "smoothed-coarse")
    point, size = _decoupled(blur, point, size, refine_draws, refine_steps, 0.04, "smoothed-refine")
    return _along(blur, point - problem.x, snap, gap, stretches, votes)


def _decoupled(
    blur: Blur, start: Tensor, size: Tensor, draws: int, steps: int, pace: float, purpose: str
) -> tuple[Tensor, Tensor]:
    """Ascend the loss on a sphere whose radius shrinks while the class is changed and grows while
    it is not.

    The decoupling of direction and norm of Rony et al. 2019 (DDN), on the smoothed loss.
    """
    problem = blur.problem
    point = start
    for step in range(steps):
        mean, gradient = blur.ascend(point, problem.y, draws, f"{purpose}/{step}")
        decay = 0.5 * (1 + math.cos(math.pi * step / steps))
        changed = margin(mean, problem.y) < 0
        rate = pace * (0.1 + 0.9 * decay)
        size = torch.where(changed, size * (1 - rate), size * (1 + rate))
        stride = column(size * (0.05 + 0.5 * decay), point)
        there = point - problem.x + stride * steepest(gradient, problem.p)
        there = there * column(size / norm(there, problem.p).clamp_min(1e-30), point)
        point = clip(problem.x + there, problem.box)
    return point, size


def _along(
    blur: Blur,
    direction: Tensor,
    snap: Callable[[Tensor], Tensor],
    gap: float,
    stretches: Sequence[float],
    votes: int,
) -> list[Tensor]:
    """Points on the ray, snapped, from where the vote gap reaches ``gap`` (by bisection) outwards."""
    problem = blur.problem

    def at(scale: Tensor) -> Tensor:
        return snap(clip(problem.x + column(scale, direction) * direction, problem.box))

    low, high = torch.full_like(problem.eps, 0.4), torch.full_like(problem.eps, 2.0)
    for _ in range(8):
        mid = (low + high) / 2
        reached = blur.vote_gap(at(mid), problem.y, votes, "smoothed-line") >= gap
        low, high = torch.where(reached, low, mid), torch.where(reached, mid, high)
    return [at(high * stretch) for stretch in stretches]


def on_lattice(
    to_grid: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor, eps: Tensor | None, p: float
) -> Tensor:
    """``x_adv`` snapped to the points where the smoothed classifier is defined, without leaving the ball.

    Rounding to the lattice can lengthen a perturbation; where it does, the largest shorter multiple that
    still rounds into the ball is taken. ``x`` must be on the lattice itself.
    """
    if eps is None:
        return to_grid(x_adv)
    limit, best = eps.double(), x
    low, high = torch.zeros_like(eps), torch.ones_like(eps)
    scale = high
    for _ in range(16):
        snapped = to_grid(x + (x_adv - x) * column(scale, x))
        fits = norm(snapped.double() - x.double(), p) <= limit
        best = torch.where(column(fits, x), snapped, best)
        low, high = torch.where(fits, scale, low), torch.where(fits, high, scale)
        scale = (low + high) / 2
    return best


def sigma_of(g) -> Tensor:
    """The noise's standard deviation as a tensor that broadcasts against one input."""
    return torch.as_tensor(np.asarray(g.sigma), dtype=torch.float32, device=g.device)
