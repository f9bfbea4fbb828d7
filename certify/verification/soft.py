"""Level 2 for soft scores: the mean of a score in [0, 1], or its whole distribution.

A record keeps the fresh histogram that proves its bound, as (bin, count): bin b holds scores at
or above floor b of a fixed list (0, then thresholds even in log-odds, then 1).

Mean against one target: a gambler who bets fixed shares against "the mean is at most m" and starts with 1
owns 1 / alpha with probability at most alpha if that is true. The claim must have made him that rich. (A
bound by planned stakes: ``certify.verification.timed``.)
Distribution: a lower band on the share of samples above each threshold, every level set moved by
the Neyman-Pearson bound; at the certified radius the mean must still exceed one half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from certify.records import Record
from certify.verification.independent import lower_bound
from certify.verification.timed import timed_fault

CLOSE = 1e-8
_SHARES = (0.999, *(0.7 * 0.5**k for k in range(9)))
_NORMAL = NormalDist()


def soft_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """Why p_lower does not follow from the stored histogram of a mean-score record, or None."""
    options = settings["mode_options"]
    alpha, tv = float(options["alpha"]), float(options.get("tv", 0.0))
    fault, points = _histogram(r, options, most=r.samples - int(options["n0"]))
    fault = fault or _selected_fault(r, settings, most=int(options["n0"]) + int(options["n_max"]))
    if fault is None and options.get("bets") == "timed":
        return timed_fault(r, settings)
    if fault or not r.certified:
        return fault or (None if r.p_lower <= 0.5 else f"abstained with p_lower = {r.p_lower:.9g}")
    goal = -math.log(alpha)
    if _log_capital(points, r.p_lower + tv) < goal - CLOSE:
        return f"the scores do not refute a mean of {r.p_lower + tv:.9g} at alpha = {alpha:g}"
    if options.get("p_target") is not None:
        tested = r.p_lower == options["p_target"] and r.radius == options["radius"]
        return None if tested else f"radius {r.radius:.9g} is not the one that was tested"
    if _log_capital(points, r.p_lower + tv + 1e-6) >= goal:
        return f"p_lower is {r.p_lower:.9g}, but the scores prove more"
    return None


def distribution_fault(r: Record, settings: Mapping[str, Any]) -> str | None:
    """Why p_lower and the radius do not follow from the stored histogram, or None."""
    options = settings["mode_options"]
    alpha, tv, n = float(options["alpha"]), float(options.get("tv", 0.0)), int(options["n"])
    fault, points = _histogram(r, options, most=n)
    fault = fault or _selected_fault(r, settings, most=int(options["n0"]) + n)
    if fault:
        return fault
    edges = _floors(int(options["bins"]))[1:]
    reached = [sum(k for floor, k in points if floor >= edge) for edge in edges]
    if sum(k for _, k in points) != n:
        return f"its histogram holds {sum(k for _, k in points)} samples, not {n}"
    dkw = math.sqrt(math.log(2 / alpha) / (2 * n))
    level = alpha / (2 * len(edges))
    band = [max(k / n - dkw, lower_bound(k, n, level)) for k in reached]
    for i in range(len(band) - 2, -1, -1):
        band[i] = max(band[i], band[i + 1])
    band = [max(0.0, q - tv) for q in band]
    if abs(r.p_lower - _mean_at(0.0, band, edges)) > CLOSE:
        return f"p_lower is {r.p_lower:.9g}, the band gives {_mean_at(0.0, band, edges):.9g}"
    if not r.certified:
        return None
    distance = r.radius / float(settings["sigma"])
    if _mean_at(distance, band, edges) < 0.5 - CLOSE:
        return f"at radius {r.radius:.9g} the mean is only proved to be {_mean_at(distance, band, edges):.9g}"
    if _mean_at(distance + 1e-5, band, edges) > 0.5:
        return f"radius is {r.radius:.9g}, but the band proves more"
    return None


def _selected_fault(r: Record, settings: Mapping[str, Any], *, most: int) -> str | None:
    """The class is chosen before its scores are looked at, from as many samples as were planned."""
    selected = r.details.get("selected")
    if not isinstance(selected, int) or not 0 <= selected < int(settings["num_classes"]):
        return f"the selected class {selected} does not exist"
    if r.certified and r.label != selected:
        return f"class {r.label} is certified, {selected} was the one selected"
    if not int(settings["mode_options"]["n0"]) <= r.samples <= most:
        return f"{r.samples} samples were paid for, of at most {most}"
    return None


def _histogram(
    r: Record, options: Mapping[str, Any], *, most: int
) -> tuple[str | None, list[tuple[float, int]]]:
    """(fault, [(floor, count)]) from the record's own histogram."""
    floors = _floors(int(options["bins"]))
    pairs = r.details.get("histogram", [])
    bins = [int(b) for b, _ in pairs]
    if sorted(set(bins)) != sorted(bins) or any(not 0 <= b < len(floors) or k < 0 for b, k in pairs):
        return "its histogram is malformed", []
    total = sum(int(k) for _, k in pairs)
    if total > most or (total == 0 and r.certified):
        return f"its histogram holds {total} samples of at most {most}", []
    return None, [(floors[int(b)], int(k)) for b, k in pairs]


def _floors(bins: int) -> list[float]:
    """0, then ``bins`` thresholds: evenly spaced log-odds from -9 to 9, then 1."""
    steps = [-9.0 + 18.0 * i / (bins - 2) if bins > 2 else -9.0 for i in range(bins - 1)]
    return [0.0, *(1 / (1 + math.exp(-s)) for s in steps), 1.0]


def _log_capital(points: list[tuple[float, int]], m: float) -> float:
    """log of the average over the shares g of prod (1 + g (x / m - 1))."""
    gains = [math.fsum(k * math.log1p(g * (x / m - 1)) for x, k in points) for g in _SHARES]
    top = max(gains)
    return top + math.log(math.fsum(math.exp(gain - top) for gain in gains) / len(gains))


def _mean_at(distance: float, band: list[float], edges: list[float]) -> float:
    total, below = [], 0.0
    for q, edge in zip(band, edges, strict=True):
        moved = 0.0 if q <= 0 else _NORMAL.cdf(_NORMAL.inv_cdf(min(q, 1 - 2**-53)) - distance)
        total.append((edge - below) * moved)
        below = edge
    return math.fsum(total)
