"""Empirical Rademacher complexity: enumerated, or estimated with an interval and a guarantee."""

from __future__ import annotations

import math
import time
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from analysis.classes import FunctionClass
from analysis.result import ASYMPTOTIC, EXACT, GUARANTEED, BoundResult
from analysis.streams import stream
from certify.calls import checked, shown
from certify.errors import InvalidInput, InvalidSetting

Method = Literal["auto", "exact", "mc", "bracket"]
Interval = Literal["t", "bootstrap", "guaranteed"]

#: ``auto`` enumerates up to this many points; ``exact`` refuses beyond the second number.
ENUMERATE_BELOW = 14
ENUMERATE_LIMIT = 20
_CHUNK = 1 << 14


@checked
def empirical_rademacher(
    cls: FunctionClass,
    points: Tensor | np.ndarray,
    method: Method = "auto",
    draws: int = 1000,
    delta: float = 0.05,
    *,
    interval: Interval = "t",
    generator: torch.Generator | None = None,
) -> BoundResult:
    """R_S(F) = E_eps sup_f (1/N) sum_i eps_i f(x_i) of a class on N points.

    ``points`` has shape (N, ...) and is flattened to (N, d) in float64. ``exact`` enumerates all
    2^N signs (``auto`` does so for N <= 14); ``mc`` averages ``draws`` independent sign vectors;
    ``bracket`` is for classes without a closed form and returns their own lower and upper bound.

    The Monte Carlo interval [low, high] has level 1 - delta: ``t`` (Student) and ``bootstrap``
    (bias-corrected) are asymptotic; ``guaranteed`` is McDiarmid's, with half-width
    sqrt(sum_i c_i^2 ln(2/delta) / (2 draws)), c_i = 2 sup_f |f(x_i)| / N. ``terms`` always carries
    the guaranteed ends too. Without a generator the signs come from a fresh one with numbers of its own.

    Raises InvalidInput (no points, NaN) and InvalidSetting (method, draws, delta).
    Reference: Bartlett and Mendelson, JMLR 2002; McDiarmid 1989.
    """
    start = time.perf_counter()
    points = as_points(points)
    _check(method, draws, delta, interval, len(points))
    generator = stream(0, "signs") if generator is None else generator
    if method == "bracket" or (method == "auto" and hasattr(cls, "bracket")):
        return _bracket(cls, points, draws, delta, generator)
    if method == "exact" or (method == "auto" and len(points) <= ENUMERATE_BELOW):
        value = _enumerate(cls, points)
        return _result(cls, "enumeration of all signs", EXACT, value, value, value, {}, None, None, start)
    values = _sample(cls, points, draws, generator)
    mean = math.fsum(values) / draws
    c = 2.0 * cls.envelope(points).double() / len(points)
    half = math.sqrt(float((c**2).sum()) * math.log(2.0 / delta) / (2 * draws))
    spread = float(values.std(ddof=1)) if draws > 1 else math.inf
    if interval == "guaranteed":
        low, high = mean - half, mean + half
    elif interval == "t":
        low, high = _student(mean, spread, draws, delta)
    else:
        low, high = _bootstrap(values, delta, generator)
    terms = {
        "draws": float(draws),
        "standard_error": spread / math.sqrt(draws),
        "guaranteed_low": mean - half,
        "guaranteed_high": mean + half,
    }
    validity = GUARANTEED if interval == "guaranteed" else ASYMPTOTIC
    return _result(
        cls, f"Monte Carlo, {interval} interval", validity, mean, low, high, terms, delta,
        generator.initial_seed(), start,
    )  # fmt: skip


def all_signs(n: int) -> Tensor:
    """Every sign vector of length n, shape (2^n, n), float64, in counting order."""
    return _signs_between(0, 1 << n, n)


def as_points(points: Tensor | np.ndarray) -> Tensor:
    """Points as a float64 matrix (N, d); InvalidInput when there are none or some are not finite."""
    if not isinstance(points, Tensor):
        rows = np.asarray(points)
        points = torch.as_tensor(rows) if rows.dtype.kind in "fiub" else torch.empty(0)
    out = points
    if out.ndim == 0 or out.shape[0] == 0:
        raise InvalidInput(
            "no points to take a Rademacher complexity on",
            why=f"the sample has shape {tuple(out.shape)}",
            remedy="pass at least one point, shape (N, ...)",
        )
    out = out.detach().cpu().double().reshape(out.shape[0], -1)
    if not bool(torch.isfinite(out).all()):
        raise InvalidInput(
            "the sample holds values that are not finite",
            why="a supremum over a class is undefined at NaN or infinite points",
            remedy="remove or repair those points first",
        )
    return out


def _enumerate(cls: FunctionClass, points: Tensor) -> float:
    n = len(points)
    total = 0.0
    for begin in range(0, 1 << n, _CHUNK):
        signs = _signs_between(begin, min(begin + _CHUNK, 1 << n), n)
        total += float(cls.supremum(signs, points).sum())
    return total / (1 << n)


def _signs_between(begin: int, end: int, n: int) -> Tensor:
    codes = torch.arange(begin, end)
    bits = (codes[:, None] >> torch.arange(n)) & 1
    return 2.0 * bits.double() - 1.0


def _sample(cls: FunctionClass, points: Tensor, draws: int, generator: torch.Generator) -> np.ndarray:
    chunk = max(1, min(draws, 4_000_000 // len(points)))
    out = []
    for begin in range(0, draws, chunk):
        size = (min(chunk, draws - begin), len(points))
        signs = 2.0 * torch.randint(0, 2, size, generator=generator, device=generator.device) - 1.0
        out.append(cls.supremum(signs.cpu().double(), points).double())
    return torch.cat(out).numpy()


def _student(mean: float, spread: float, draws: int, delta: float) -> tuple[float, float]:
    half = float(stats.t.isf(delta / 2, max(1, draws - 1))) * spread / math.sqrt(draws)
    return mean - half, mean + half


def _bootstrap(values: np.ndarray, delta: float, generator: torch.Generator) -> tuple[float, float]:
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    seed = int(torch.randint(0, 2**31, (1,), generator=generator))
    ends = stats.bootstrap(
        (values,), np.mean, confidence_level=1 - delta, n_resamples=2000, rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _bracket(cls, points: Tensor, draws: int, delta: float, generator: torch.Generator) -> BoundResult:
    if not hasattr(cls, "bracket"):
        raise InvalidSetting(
            "method='bracket' does not apply to this class",
            why=f"{cls.describe()} has a closed form for its supremum",
            remedy="use method='auto', 'exact' or 'mc'",
        )
    return cls.bracket(points, draws=draws, delta=delta, generator=generator)


def _result(cls, how, validity, value, low, high, terms, delta, seed, start) -> BoundResult:
    return BoundResult(
        name="empirical Rademacher complexity",
        reference="Bartlett and Mendelson, JMLR 2002",
        target="R_S(F)",
        predictor=f"class: {cls.describe()}",
        side="estimate",
        validity=validity,
        value=value,
        low=low,
        high=high,
        terms=terms,
        delta=delta,
        data_used=how,
        assumptions=("the points are fixed; only the signs are random",),
        seed=seed,
        seconds=time.perf_counter() - start,
    )


def _check(method: str, draws: int, delta: float, interval: str, n: int) -> None:
    if method not in ("auto", "exact", "mc", "bracket") or interval not in ("t", "bootstrap", "guaranteed"):
        raise InvalidSetting(
            f"method={shown(method)}, interval={shown(interval)} is not known",
            why="methods are auto, exact, mc, bracket; intervals are t, bootstrap, guaranteed",
            remedy="choose one of those",
        )
    if method == "exact" and n > ENUMERATE_LIMIT:
        raise InvalidSetting(
            f"cannot enumerate 2^{n} sign vectors",
            why=f"enumeration stops at N = {ENUMERATE_LIMIT}",
            remedy="use method='mc'",
        )
    if draws < 2 or not 0 < delta < 1:
        raise InvalidSetting(
            f"draws={draws!r}, delta={delta!r} give no interval",
            why="an interval needs at least two draws and 0 < delta < 1",
            remedy="use draws=1000 and delta=0.05",
        )
