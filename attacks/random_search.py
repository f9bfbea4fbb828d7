"""Black-box random search: change one window at a time, keep what lowers the margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attacks.apgd import decided
from attacks.geometry import clip, project, unit
from attacks.losses import margin
from attacks.problem import Problem

#: The share of coordinates in a window is halved after so many queries (Andriushchenko et al. 2020).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Margins closer than this share of the scores' spread are one margin.
_SAME = 1e-6
#: Random signs drawn at a time for each input.
_SIGNS = 50_000


@dataclass(frozen=True)
class Window:
    """Flat coordinates (groups, size) that change together, and the shape (size,) of an l2 change.

    Every input gives every group its own random sign.
    """

    index: Tensor
    pattern: Tensor


class Windows(Protocol):
    """Where to change an input of a given shape."""

    #: Largest number of groups a window has.
    groups: int

    def start(self, noise: Tensor, p: float) -> Tensor:
        """(rows, d) first perturbation direction from uniform noise (rows, d)."""
        ...

    def draw(self, share: float, p: float, rng: np.random.Generator) -> Window:
        """A random window over about ``share`` of the coordinates."""
        ...


def random_search(
    problem: Problem, windows: Windows, *, queries: int, purpose: str, share: float = 0.8
) -> Tensor:
    """The lowest-margin point found with ``queries`` forward passes per input.

    Windows are common to all inputs (keyed by the seed), signs are each input's own. linf: a
    window moves to a face of the ball. Otherwise a window receives its pattern and the mass of a
    second window, so that the norm stays eps. An input whose margin never changes is noted as a
    plateau with the oracle. Returns (rows, *shape).
    """
    device, p = problem.x.device, problem.p
    best = problem.x.flatten(1).clone()
    lowest = torch.full_like(problem.eps, math.inf)
    rng = problem.streams.shared(purpose)
    left = torch.arange(len(problem), device=device)
    state = _State.begin(problem, windows, purpose)
    ahead = min(max(_SIGNS // windows.groups, 10), 250)
    for query in range(queries):
        turn = query % ahead
        if turn == 0:
            signs = state.part.streams.uniform((ahead, windows.groups), f"{purpose}/{query}") >= 0.5
            plan = _plan(windows, range(query, query + ahead), share, p, rng, device)
        index, pattern, second = plan[turn]
        state.propose(index, pattern, second, signs[:, turn, : len(index)])
        if query % 50 == 49 or query == queries - 1:
            best[left], lowest[left] = state.best, state.lowest
            problem.oracle.plateau[state.part.samples.cpu().numpy()] = (~state.moved).cpu().numpy()
            keep = (~state.won).nonzero().squeeze(1)
            if not len(keep):
                break
            if len(keep) < len(left):
                left, signs = left[keep], signs[keep]
                state = state.take(keep)
    problem.oracle.focus(None)
    return best.view_as(problem.x)


def _plan(
    windows: Windows, queries: range, share: float, p: float, rng: np.random.Generator, device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Windows of the next queries as (index, pattern, second index), moved to the device all at once."""
    pairs = []
    for query in queries:
        fraction = share / 2 ** sum(query > h for h in HALVINGS)
        first = windows.draw(fraction, p, rng)
        pairs.append((first, first if math.isinf(p) else windows.draw(fraction, p, rng)))
    indices = torch.cat([w.index.flatten() for pair in pairs for w in pair]).to(device)
    patterns = torch.cat([first.pattern for first, _ in pairs]).to(device)
    parts = indices.split([w.index.numel() for pair in pairs for w in pair])
    shapes = patterns.split([len(first.pattern) for first, _ in pairs])
    return [
        (parts[2 * i].view(first.index.shape), shape, parts[2 * i + 1].view(second.index.shape))
        for i, ((first, second), shape) in enumerate(zip(pairs, shapes, strict=True))
    ]


@dataclass
class _State:
    """The rows still searching; ``low`` and ``high`` are the faces of ball and box."""

    part: Problem
    best: Tensor
    lowest: Tensor
    won: Tensor
    low: Tensor
    high: Tensor
    first: Tensor
    moved: Tensor

    @classmethod
    def begin(cls, problem: Problem, windows: Windows, purpose: str) -> _State:
        flat, eps = problem.x.flatten(1), problem.eps[:, None]
        noise = problem.streams.uniform(flat.shape[1:], f"{purpose}/start").to(flat)
        there = flat + windows.start(noise, problem.p) * eps
        start = project(flat, there, problem.eps, problem.p, problem.box)
        problem.oracle.focus(problem.samples)
        scores = problem.oracle.scores(start.view_as(problem.x))
        value = margin(scores, problem.y)
        low, high = clip(flat - eps, problem.box), clip(flat + eps, problem.box)
        won = decided(value, scores)
        return cls(problem, start, value, won, low, high, value, torch.zeros_like(won))

    def take(self, rows: Tensor) -> _State:
        part = self.part.take(rows)
        part.oracle.focus(part.samples)
        others = (getattr(self, f.name)[rows] for f in fields(self)[1:])
        return _State(part, *others)

    def propose(self, index: Tensor, pattern: Tensor, second: Tensor, signs: Tensor) -> None:
        """Evaluate one change per row and keep it where the margin falls."""
        p = self.part.p
        if math.isinf(p):
            face = torch.where(signs[:, :, None], self.high[:, index], self.low[:, index])
            tried = self.best.index_copy(1, index.flatten(), face.flatten(1))
        else:
            tried = self._moved_mass(index, pattern, second, signs)
        scores = self.part.oracle.scores(tried.view_as(self.part.x))
        value = margin(scores, self.part.y)
        better = value < self.lowest
        self.best = torch.where(better[:, None], tried, self.best)
        self.lowest = torch.where(better, value, self.lowest)
        self.won = self.won | decided(value, scores)
        self.moved = self.moved | ((value - self.first).abs() > _SAME * (scores.amax(1) - scores.amin(1)))

    def _moved_mass(self, index: Tensor, pattern: Tensor, second: Tensor, signs: Tensor) -> Tensor:
        center, eps, p = self.part.x.flatten(1), self.part.eps[:, None], self.part.p
        delta = self.best - center
        power = delta.abs() ** p
        mask = torch.zeros(center.shape[1], dtype=torch.bool, device=center.device)
        mask[second.flatten()] = True
        mask[index.flatten()] = True
        spare = (eps**p - power.sum(1, keepdim=True)).clamp_min(0.0) / len(index)
        old = delta[:, index]
        # What the new window may take: its own mass, the second window's, and what the box had cut off.
        held = (power * mask).sum(1, keepdim=True) / len(index)
        fresh = torch.where(signs, 1.0, -1.0).to(center)[:, :, None] * pattern
        shape = unit(fresh.flatten(0, 1), p) + unit(old.flatten(0, 1), p)
        new = unit(shape, p).view_as(old) * ((spare + held) ** (1 / p))[:, :, None]
        delta = delta.index_fill(1, second.flatten(), 0.0)
        delta = delta.index_copy(1, index.flatten(), new.flatten(1))
        return clip(center + unit(delta, p) * eps, self.part.box)
