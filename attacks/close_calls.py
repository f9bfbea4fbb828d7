"""Many short climbs, spent where the margin has nearly vanished."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.apgd import ascend, decided, ranked_targets
from attacks.geometry import column, random_start
from attacks.losses import lost_margin, margin, targeted, targeted_margin
from attacks.problem import Problem

#: In place of a target class: this row descends the margin.
UNTARGETED = -1


@dataclass(frozen=True)
class Round:
    """``starts`` climbs of ``steps`` steps where the lowest margin is at most ``share`` of the clean one."""

    starts: int
    steps: int
    share: float


#: Many short climbs find more than few long ones at the same cost; a few breaks need long ones.
ROUNDS = (Round(16, 25, 0.25), Round(24, 25, 0.15), Round(24, 100, 0.1))


def close_calls(
    problem: Problem, *, rounds: tuple[Round, ...] = ROUNDS, targets: int = 9, purpose: str = "close"
) -> Tensor:
    """Short APGD climbs from random points, side by side, most of them on inputs that came close to breaking.

    Some inputs break from a few random starts only. They give themselves away: the lowest margin
    found on them is a small share of the margin at the input. First every input climbs once towards
    each of ``targets`` classes and once down the margin, 25 steps each. Every round then aims at the
    three classes that brought the margin lowest and at the margin itself, half of it with the DLR
    loss and half with the plain margin: each finds what the others miss. Returns candidates
    (rows, *shape).
    """
    search = _Search.begin(problem, targets)
    wanted = search.likeliest
    free = torch.full_like(wanted[:, :1], UNTARGETED)
    everyone = torch.arange(len(problem), device=problem.x.device)
    search.climb(everyone, torch.cat([wanted, free], 1), 25, f"{purpose}/first")
    for number, turn in enumerate(rounds):
        left = search.within(turn.share)
        if len(left):
            search.climb(left, search.aims(left, turn.starts), turn.steps, f"{purpose}/{number}")
    return search.best


@dataclass
class _Search:
    """Per input the best point, its margin, and the lowest margin reached by aiming at each class."""

    problem: Problem
    likeliest: Tensor
    clean: Tensor
    scores: Tensor
    best: Tensor
    lowest: Tensor
    reached: Tensor

    @classmethod
    def begin(cls, problem: Problem, targets: int) -> _Search:
        problem.oracle.focus(problem.samples)
        scores = problem.oracle.scores(problem.x)
        problem.oracle.focus(None)
        clean = margin(scores, problem.y)
        likeliest = ranked_targets(scores, problem.y, targets)
        never = torch.full_like(scores, torch.inf)
        return cls(problem, likeliest, clean, scores, problem.x.clone(), clean.clone(), never)

    def within(self, share: float) -> Tensor:
        """Positions of inputs that still stand and whose margin has sunk to ``share`` of the clean one."""
        standing = ~decided(self.lowest, self.scores)
        return (standing & (self.lowest <= share * self.clean)).nonzero().squeeze(1)

    def aims(self, rows: Tensor, starts: int) -> Tensor:
        """(rows, starts) the three classes that brought the margin lowest, and UNTARGETED, by turns."""
        near = self.reached[rows].argsort(1)[:, : min(3, self.likeliest.shape[1])]
        four = torch.cat([near, torch.full_like(near[:, :1], UNTARGETED)], 1)
        return four.repeat(1, -(-starts // four.shape[1]))[:, :starts]

    def climb(self, rows: Tensor, aims: Tensor, steps: int, purpose: str) -> None:
        """One climb per entry of ``aims`` (rows, starts), ``problem.rows`` at a time."""
        size = max(self.problem.rows // aims.shape[1], 1)
        for some, wanted in zip(rows.split(size), aims.split(size), strict=True):
            point, value = _climbs(self.problem.take(some), wanted, steps, purpose)
            first = value.argmin(1)
            lowest = value.gather(1, first[:, None]).squeeze(1)
            better = lowest < self.lowest[some]
            found = point[torch.arange(len(some), device=some.device), first]
            self.best[some] = torch.where(column(better, found), found, self.best[some])
            self.lowest[some] = torch.where(better, lowest, self.lowest[some])
            aimed = torch.where(wanted == UNTARGETED, torch.inf, value)
            self.reached[some] = self.reached[some].scatter_reduce(1, wanted.clamp_min(0), aimed, "amin")


def _climbs(part: Problem, aims: Tensor, steps: int, purpose: str) -> tuple[Tensor, Tensor]:
    """The lowest-margin point (rows, starts, *shape) of each climb, and its margin (rows, starts)."""
    rows, starts = aims.shape
    each = part.take(torch.arange(rows, device=aims.device).repeat_interleave(starts))
    noise = torch.stack([part.noise(f"{purpose}/{s}") for s in range(starts)], 1).flatten(0, 1)
    begin = random_start(each.x, noise, each.eps, part.p, part.box)
    # The second half of the starts swaps DLR for the plain margin.
    plain = (torch.arange(starts, device=aims.device) >= starts // 2).repeat(rows)
    code = aims.flatten() * 2 + plain
    owner = torch.arange(len(each), device=aims.device)
    point, value = ascend(each, begin, owner, code, _loss, steps)
    return point.view(rows, starts, *part.shape), value.view(rows, starts)


def _loss(scores: Tensor, label: Tensor, code: Tensor) -> Tensor:
    """``code`` = 2 * target + whether the plain margin is used."""
    target = code.div(2, rounding_mode="floor")
    aim, free, plain = target.clamp_min(0), target == UNTARGETED, code % 2 == 1
    aimed = torch.where(plain, targeted_margin(scores, label, aim), targeted(scores, label, aim))
    return torch.where(free, lost_margin(scores, label), aimed)
