"""The last look where no other class comes near: all of alpha for one class, not half of it.

At a target near 1/2 two classes can be wrong at once: with probabilities t and 1 - t either may
reach the boundary, and a test that is to err with probability alpha must give about alpha / 2 to
each. But two such classes share all votes, and then both counts are near n / 2. Where at the last
look every other class has at most ``rival`` votes, a little less than half, the leader is judged
by ``votes``, a boundary of nearly the one-sided test at the full alpha.

Why this is sound
-----------------
Let U be the mirrored boundary, u its error, n the number of samples at the last look, and m a
number a little below 1/2. Let p_1 >= p_2 >= ... be the classes' probabilities.

1. All p_c < t and p_2 <= m. Whatever is claimed, some class reached U at an early look or
   ``votes`` at the last one. Both exceed half of the samples, so the probability of that is
   Schur-convex in (p_c) (certify.sequential), hence largest at (t, m, 1 - t - m), and there at most
   the sum of the three classes' own probabilities: ``error``, computed exactly.
2. All p_c < t and p_2 > m. A claim by way of U has probability at most u. A claim by way of
   ``votes`` needs at most ``rival`` votes for one of the two leading classes, whose probabilities
   exceed m: at most 2 P(Bin(n, m) <= rival) =: ``slip``.
3. p_1 >= t: the first class may be claimed. Another one needs U, as before, or ``votes`` while
   the first has at most ``rival``: at most P(Bin(n, p_1) <= rival) more (``overtaken``), and less
   than ``slip``, as p_1 > m.

So the error is at most max(error, u + slip). Samples without a class change nothing: vectors of a
smaller sum are bounded in the same way, and the rivals in 2 and 3 are classes that are counted.
Every number is computed by the exact dynamic programme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from certify.sequential.boundaries import accept_boundary
from certify.sequential.walks import SAFETY, Walk, crossing

#: The share of alpha that is kept for ``slip``.
RESERVE = 1e-3
#: Where the split m is looked for, in standard deviations below 1/2.
_SPLITS = (1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Uncontested:
    """``votes`` certify the target at the last look if no other class has more than ``rival``.

    ``split`` is m and ``error`` and ``slip`` the bounds of the module's text.
    """

    votes: int
    rival: int
    split: float
    error: float
    slip: float

    def certifies(self, top: int, second: int) -> bool:
        """True where the two largest counts at the last look certify the leader."""
        return top >= self.votes and second <= self.rival

    def overtaken(self, n: int, p: float) -> float:
        """P(a class of probability p has at most ``rival`` of n votes), rounded up."""
        return crossing(np.array([n]), np.array([n - self.rival]), 1 - p)


def mirrored_boundary(
    looks: np.ndarray, p_target: float, spent_by: np.ndarray
) -> tuple[np.ndarray, float, Uncontested | None]:
    """The boundary of one target for any number of classes, its error, and the rule beside it.

    ``spent_by`` is the error that may be spent by each look, alpha at the last (see
    ``boundaries.accept_boundary``); the error, rounded up, is that of boundary and rule together.
    """
    accept, error = accept_boundary(looks, p_target, spent_by)
    alpha = float(spent_by[-1])
    if crossing(looks, accept, 1 - p_target) <= RESERVE * alpha:
        return accept, error, None  # only one class can err, and it has all of alpha already
    reserved, with_slip = accept_boundary(looks, p_target, spent_by * (1 - RESERVE))
    rule = uncontested(looks, reserved, p_target, alpha)
    if rule is None:
        return accept, error, None
    return reserved, max(with_slip + rule.slip, rule.error), rule


def uncontested(looks: np.ndarray, accept: np.ndarray, p_target: float, alpha: float) -> Uncontested | None:
    """The rule with the fewest votes beside the mirrored boundary ``accept``, or None where none helps."""
    n = int(looks[-1])
    found = [_rule(looks, accept, p_target, alpha, 0.5 - s / (2 * math.sqrt(n))) for s in _SPLITS]
    return min((rule for rule in found if rule), key=lambda rule: (rule.votes, -rule.rival), default=None)


def loosest(accept: np.ndarray, rule: Uncontested | None) -> np.ndarray:
    """The fewest votes that may certify at each look: ``accept``, and the rule's at the last."""
    return accept if rule is None else np.append(accept[:-1], rule.votes)


def second_largest(counts: np.ndarray) -> int:
    """The second largest of the class counts (0 for one class)."""
    return int(np.partition(counts, -2)[-2]) if len(counts) > 1 else 0  # linear in the classes


def _rule(
    looks: np.ndarray, accept: np.ndarray, p_target: float, alpha: float, split: float
) -> Uncontested | None:
    third = max(1 - p_target - split, 0.0)
    if not third <= split < 1 - p_target:
        return None
    walks = [_until_last(looks, accept, p) for p in (p_target, split, third)]
    early = sum(crossed + walk.lost for crossed, walk in walks)
    votes, late = _fewest(walks, int(looks[-1]), int(accept[-1]), alpha / (1 + 2 * SAFETY) - early)
    rival, slip = _rival(int(looks[-1]), split, RESERVE * alpha)
    if votes >= int(accept[-1]) or rival < 0:
        return None
    return Uncontested(votes, rival, split, (early + late) * (1 + SAFETY), slip)


def _until_last(looks: np.ndarray, accept: np.ndarray, p: float) -> tuple[float, Walk]:
    """(P(``accept`` is reached before the last look), the count's law at the last one)."""
    walk, crossed = Walk(p), 0.0
    for n, bound in zip(looks[:-1].tolist(), accept[:-1].tolist(), strict=True):
        walk.step(n)
        crossed += walk.absorb_above(bound)
    walk.step(int(looks[-1]))
    return crossed, walk


def _fewest(walks: list[tuple[float, Walk]], n: int, most: int, budget: float) -> tuple[int, float]:
    """The fewest votes > n / 2 that all classes together reach with probability <= budget; that."""
    votes, late = most, sum(walk.tail(most) for _, walk in walks)
    while votes - 1 > n // 2:
        more = sum(walk.tail(votes - 1) for _, walk in walks)
        if more > budget:
            break
        votes, late = votes - 1, more
    return votes, late


def _rival(n: int, split: float, most: float) -> tuple[int, float]:
    """The largest count with 2 P(Bin(n, split) <= count) <= most, and that; -1 if there is none."""
    walk = Walk(split)
    walk.step(n)
    twice = 2 * (np.cumsum(walk.mass) + walk.lost) * (1 + SAFETY)
    inside = int(np.searchsorted(twice, most, side="right"))
    return (walk.low + inside - 1, float(twice[inside - 1])) if inside else (-1, 0.0)
