"""The best weights per count: a linear programme on the pilot's law of the counts.

Wanted are weights c_0..c_n <= 1 with P_c <= 0 on [0, p*]. Then P_c(p) <= 1{p > p*} for every p, and the
share of inputs with p > p* is at least the mean weight. What m inputs prove about that mean falls
short of it by a width that grows with the weights' spread. So the programme maximises the expected
logarithm of a bet on the weights, (concave, by tangents), and not their mean alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from certify.population.mixing import support
from certify.population.polynomial import chances, lowered

_ROUNDS = 5
#: A round that gains no more than this is the last.
_ENOUGH = 1e-4
#: A bet that knows when the game ends needs this share of the logarithm that a fixed bet needs.
_SHARE = 0.81
#: A bet may lose this share of the capital on one input, if it can be helped; or else the second.
_REACH = (0.35, 0.95)
#: Counts further than this from n p* share their weight with neighbours, the more the further.
_SINGLE = 24
_LARGEST_BET = 20.0
_TANGENTS = 32


@dataclass(frozen=True)
class _Guess:
    """What the next round starts from: the mean that will be refuted, and the bet that does it."""

    mean: float
    bet: float


def best_weights(law: np.ndarray, p_target: float, inputs: int, alpha: float) -> tuple[np.ndarray, float]:
    """(weights (n + 1,) with P_c <= 0 proved on [0, p_target], the bound to expect); zeros where none helps.

    ``law``: (n + 1,) probability of each count. ``inputs``: how many will be counted, at level ``alpha``.
    """
    best = np.zeros(len(law)), 0.0
    for reach in _REACH:
        found = _search(law, p_target, -_SHARE * math.log(alpha) / inputs, reach)
        # Weights far below -1 bind the gambler's hands: they must be worth it.
        if found[1] > best[1] * 1.01 + 1e-3:
            best = found
    return best


def anticipated(law: np.ndarray, weights: np.ndarray, inputs: int, alpha: float) -> float:
    """The bound on the mean weight to expect from ``inputs`` counts at level ``alpha``."""
    return _anticipated(law, weights, -_SHARE * math.log(alpha) / inputs).mean


def _search(law: np.ndarray, p_target: float, goal: float, reach: float) -> tuple[np.ndarray, float]:
    n = len(law) - 1
    cells, points = _cells(n, p_target), support(n, p_target)
    guess = _Guess(float(law[math.ceil(n * p_target) :].sum()) / 2, math.sqrt(2 * goal) / 0.7)
    best = np.zeros(n + 1), 0.0
    for _ in range(_ROUNDS):
        solved = _solve(law, cells, points, guess, reach)
        if solved is None:
            break
        weights = lowered(solved, p_target)
        guess = _anticipated(law, weights, goal)
        settled = guess.mean <= best[1] + _ENOUGH
        if guess.mean > best[1]:
            best = weights, guess.mean
        if settled:
            break
        points = np.append(points, _peaks(solved, p_target))
    return best


def _cells(n: int, p: float) -> np.ndarray:
    """(cells, n + 1) of 0 and 1: which counts share a weight."""
    edges = [0]
    while edges[-1] <= n:
        edges.append(min(n + 1, edges[-1] + 1 + int(abs(edges[-1] - n * p) // _SINGLE)))
    member = np.zeros((len(edges) - 1, n + 1))
    for row, (first, end) in zip(member, pairwise(edges), strict=True):
        row[first:end] = 1.0
    return member


def _solve(
    law: np.ndarray, cells: np.ndarray, points: np.ndarray, guess: _Guess, reach: float
) -> np.ndarray | None:
    """Weights (n + 1,) that maximise E log(1 + bet (c_K - mean)) with P_c <= 0 at ``points``."""
    from scipy import optimize, sparse

    size, bet = len(cells), min(guess.bet, _LARGEST_BET)
    low = min(guess.mean - reach / bet, -1e-3)
    held = np.pad(chances(len(law) - 1, points) @ cells.T, ((0, 0), (0, size)))
    at = 1 - (1 - low) * np.linspace(0, 1, _TANGENTS) ** 2
    # The logarithm from above, by its tangents: t_k <= log(room) + slope (c_k - at), for every one.
    room = np.maximum(1 + bet * (at - guess.mean), 1e-3)
    slope, row, k = bet / room, np.arange(size * _TANGENTS), np.tile(np.arange(size), _TANGENTS)
    values = np.concatenate([-np.repeat(slope, size), np.ones(len(row))])
    where = np.concatenate([row, row]), np.concatenate([k, size + k])
    tangents = sparse.csr_matrix((values, where), shape=(len(row), 2 * size))
    solved = optimize.linprog(
        np.concatenate([np.zeros(size), -(cells @ law)]),
        A_ub=sparse.vstack([sparse.csr_matrix(held), tangents]),
        b_ub=np.concatenate([np.zeros(len(points)), np.repeat(np.log(room) - slope * at, size)]),
        bounds=[(low, 1.0)] * size + [(None, None)] * size,
        method="highs",
    )
    return None if solved.x is None else solved.x[:size] @ cells


def _anticipated(law: np.ndarray, weights: np.ndarray, goal: float) -> _Guess:
    """The largest mean whose best bet grows by ``goal`` per input on average, and that bet."""
    low, high = 0.0, max(float(law @ weights), 0.0)
    for _ in range(30):
        middle = (low + high) / 2
        if _growth(law, weights - middle)[0] > goal:
            low = middle
        else:
            high = middle
    return _Guess(low, max(_growth(law, weights - low)[1], 1e-3))


def _growth(law: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """(E log(1 + bet gain), bet) for the best bet; the expectation is concave in the bet."""
    low, high = 0.0, 0.999 / max(-float(gains.min()), 1e-9)
    for _ in range(30):
        middle = (low + high) / 2
        if law @ (gains / (1 + middle * gains)) > 0:
            low = middle
        else:
            high = middle
    return float(law @ np.log1p(low * gains)), low


def _peaks(c: np.ndarray, p: float) -> np.ndarray:
    """Where P_c comes out highest between the points that held it down."""
    fine = support(16 * (len(c) - 1), p)
    values = chances(len(c) - 1, fine) @ c
    inner = values[1:-1]
    return fine[1:-1][(inner >= values[:-2]) & (inner >= values[2:]) & (inner > -1e-7)]
