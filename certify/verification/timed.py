"""Level 2 for a bound on the mean by planned stakes: every gambler plays again, in separate code.

A record keeps the samples that chose the class and the fresh ones by block. Of every mean below the
claimed bound a gambler must have refuted "the mean is at most this": checked at the upper ends of the
cells below it, and at the bound itself with the stakes of its cell. The rule: ``certify.scores.timed``;
nothing is shared with it. Stakes are predictable whatever their last digit, so small differences do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from certify.records import Record
from certify.verification.gambler import quantile

CLOSE = 1e-7
_NORMAL = NormalDist()
_HEDGED, _MOST, _AIM = 0.95, 0.95, math.log(1.05)
_SHARES = (0.999, *(0.7 * 0.5**k for k in range(9)))


@dataclass(frozen=True)
class _Game:
    """What a record says was played: floors of the bins, selection and blocks as (floors, counts)."""

    alpha: float
    horizon: int
    n_max: int
    selection: tuple[np.ndarray, np.ndarray]
    blocks: Sequence[tuple[np.ndarray, np.ndarray]]


def timed_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """Why p_lower does not follow from the stored blocks, or None. The caller has checked their shape."""
    options = settings["mode_options"]
    fault, game = _read(r, options)
    if fault or not r.certified:
        return fault or (None if r.p_lower <= 0.5 else f"abstained with p_lower = {r.p_lower:.9g}")
    claimed = r.p_lower + float(options.get("tv", 0.0))
    edges = _edges(game)
    below, own = edges[edges < claimed], edges[edges >= claimed][:1]
    played = np.append(below, own)
    hedge, values = _log_capitals(game, played, claimed)
    goal = -math.log(game.alpha)
    for edge, value in zip(played[: len(below)], values, strict=False):
        if value < goal - CLOSE:
            return f"the scores do not refute a mean of {edge:.9g}, which is below the claimed {claimed:.9g}"
    if len(own) == 0:
        return f"no gambler plays against a mean of {claimed:.9g}"
    if _with_fixed(game, claimed, hedge) < goal - CLOSE:
        return f"the scores do not refute a mean of {claimed:.9g} at alpha = {game.alpha:g}"
    return None


def _read(r: Record, options: Mapping[str, Any]) -> tuple[str | None, _Game]:
    bins, n0 = int(options["bins"]), int(options["n0"])
    floors = [0.0, *(math.sin(math.pi / 2 * i / bins) ** 2 for i in range(1, bins)), 1.0]
    alpha, n_max = float(options["alpha"]), int(options["n_max"])
    stored = [r.details["selection"], *r.details["blocks"]]
    if not all(_is_histogram(block, bins) for block in stored):
        raise ValueError("a block is no list of (bin, count) with each bin once and counts above 0")
    read = [
        (np.array([floors[b] for b, _ in block]), np.array([float(k) for _, k in block])) for block in stored
    ]
    game = _Game(alpha, n_max, n_max, read[0], read[1:])
    if int(game.selection[1].sum()) != n0:
        return f"{int(game.selection[1].sum())} samples chose the class, not {n0}", game
    total: dict[int, int] = {}
    for block in r.details["blocks"]:
        for b, k in block:
            total[b] = total.get(b, 0) + k
    if total and total != dict(r.details["histogram"]):
        return "its histogram is not the sum of its blocks", game
    game = _Game(alpha, _horizon(game, float(options["slack"])), n_max, read[0], read[1:])
    done = 0
    for number, (_, counts) in enumerate(game.blocks, start=1):
        size = _planned(done, game)[0]
        if int(counts.sum()) != size:
            return f"block {number} holds {int(counts.sum())} samples, not the planned {size}", game
        done += size
    return None, game


def _is_histogram(pairs: Any, bins: int) -> bool:
    whole = all(type(b) is int and type(k) is int and 0 <= b <= bins and k > 0 for b, k in pairs)
    return whole and len({b for b, _ in pairs}) == len(pairs)


def _planned(done: int, game: _Game) -> tuple[int, int]:
    """(samples of the next block, samples left to the horizon)."""
    horizon = game.horizon
    while done >= horizon:
        if horizon == game.n_max:
            return 0, 1
        horizon = min(game.n_max, 2 * horizon)
    left = horizon - done
    size = max(-(-left // 6), -(-horizon // 24), 8)
    return (left if left - size < 8 else size), left


def _moments(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """(mean, standard deviation) of all these scores together."""
    total = math.fsum(float(k.sum()) for _, k in parts)
    mean = math.fsum(float(x @ k) for x, k in parts) / total
    spread = math.fsum(float((x - mean) ** 2 @ k) for x, k in parts)
    return mean, math.sqrt((spread + 0.02) / (total + 1))


def _width(deviation: float, n: int, alpha: float) -> float:
    return -_NORMAL.inv_cdf(min(alpha, 0.4)) * 1.15 * deviation / math.sqrt(n) - math.log(alpha) / (4 * n)


def _horizon(game: _Game, slack: float) -> int:
    mean, deviation = _moments([game.selection])

    def score(n: int) -> float:
        return _NORMAL.inv_cdf(min(1 - 1e-15, max(1e-15, mean - _width(deviation, n, game.alpha))))

    best = score(game.n_max)
    if slack == 0 or best <= 0:
        return game.n_max
    few, enough = 0, game.n_max
    while enough - few > 1:
        half = (few + enough) // 2
        if score(half) >= (1 - slack) * best:
            enough = half
        else:
            few = half
    return max(enough, min(game.n_max, 32))


def _edges(game: _Game) -> np.ndarray:
    """The upper ends of the cells whose means share their stakes."""
    mean, deviation = _moments([game.selection])
    width = _width(deviation, game.horizon, game.alpha)
    reach = 3 * deviation / 8 + 2 * width
    count = min(1500, math.ceil(12 * reach / _width(deviation, game.n_max, game.alpha)))
    near = [mean - width + reach * (2 * i / (count - 1) - 1) for i in range(count)]
    far = [math.sin(math.pi / 2 * i / 100) ** 2 for i in range(1, 100)]
    return np.array(sorted(m for m in near + far if 1e-6 < m < 1 - 1e-9))


def _log_capitals(game: _Game, edges: np.ndarray, claimed: float) -> tuple[float, list[float]]:
    """(log of the hedge against ``claimed`` by the stakes of the last edge, logs of the capitals by edge)."""
    log_level = math.log(game.alpha * _HEDGED)
    hedge, at_claim, done, seen = np.zeros(len(edges)), 0.0, 0, [game.selection]
    for x, k in game.blocks:
        _, left = _planned(done, game)
        spread = _moments(seen)[1] * math.sqrt(left)
        stakes = np.array([_stake(h + log_level, spread, m) for h, m in zip(hedge, edges, strict=True)])
        at_claim += float(np.log1p(stakes[-1] * (x - claimed)) @ k) if len(stakes) else 0.0
        hedge = hedge + np.log1p(stakes[:, None] * (x - edges[:, None])) @ k
        done, seen = done + int(k.sum()), [*seen, (x, k)]
    return at_claim, [_with_fixed(game, float(m), float(h)) for m, h in zip(edges, hedge, strict=True)]


def _stake(value: float, spread: float, edge: float) -> float:
    """``value``: log of alpha times the share of the hedge times what it has become."""
    if value >= 1e-9:
        return 0.0
    price = min(value, 0.0) - _AIM
    depth = quantile(price)
    return min(math.exp(-depth * depth / 2 - price) / (math.sqrt(2 * math.pi) * spread), _MOST / edge)


def _with_fixed(game: _Game, m: float, hedge: float) -> float:
    """log of the whole capital against the mean m."""
    x = np.concatenate([x for x, _ in game.blocks])
    k = np.concatenate([k for _, k in game.blocks])
    gains = [float(np.log1p(g * (x / m - 1)) @ k) - math.log(len(_SHARES)) for g in _SHARES]
    terms = [hedge + math.log(_HEDGED), *(gain + math.log1p(-_HEDGED) for gain in gains)]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(t - top) for t in terms))
