"""The sampling procedures by name: radius, grid, decide, fixed.

| mode | answers | samples per input |
|---|---|---|
| radius | a real-valued radius, within ``slack`` of what n_max samples would prove | a fraction of n_max |
| grid | the largest certified multiple of ``step`` | fewer for coarse steps |
| decide | is the radius at least ``radius``? | about one hundredth of n_max |
| fixed | Cohen's n0 + n procedure, for comparison with the literature | n0 + n |

``scores`` says which classifier is certified: "votes" (the label most noisy copies get), "soft" (the
largest mean score; modes radius, decide and fixed) or "distribution" (the same classifier, its radius
from the whole distribution of the scores; mode fixed).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from certify.bounds import SMALLEST_ALPHA
from certify.calls import checked
from certify.errors import InvalidSetting
from certify.procedures.decide import Decide
from certify.procedures.fixed import Fixed
from certify.procedures.nested_modes import Grid, Radius
from certify.procedures.outcome import Outcome, Procedure, Progress
from certify.procedures.soft_mean import SoftMean
from certify.procedures.soft_modes import Distribution, Soft
from certify.radii import radius_between, target_probability
from certify.runner_up import SHARE
from certify.sequential.boundaries import whole

__all__ = [
    "MODES",
    "SCORES",
    "Decide",
    "Distribution",
    "Fixed",
    "Grid",
    "Outcome",
    "Procedure",
    "Progress",
    "Radius",
    "Soft",
    "SoftMean",
    "make_procedure",
]

MODES = ("radius", "grid", "decide", "fixed")
#: Which modes each kind of scores has.
SCORES = {"votes": MODES, "soft": ("radius", "decide", "fixed"), "distribution": ("fixed",)}
#: Modes whose tests may bound the runner-up, too, and the least part of alpha that one of its bounds gets.
TWO_SIDED, SMALLEST_SHARE = MODES, 1e-8
#: A grid finer than this costs more planning than sampling; use mode "radius".
_MOST_RADII = 400


@checked
def make_procedure(
    mode: str,
    *,
    alpha: float = 1e-3,
    sigma: float,
    n_max: int = 100_000,
    tv: float = 0.0,
    scores: str = "votes",
    radius: float | None = None,
    step: float | None = None,
    slack: float | None = None,
    n0: int | None = None,
    n: int | None = None,
    needed: Callable[[float], float] | None = None,
    between: Callable[[float, float], float] | None = None,
    classes: int | None = None,
    runner_up: bool | None = None,
    randomised: bool | None = None,
) -> Procedure:
    """The procedure of ``mode``, planned and ready to start.

    Options: radius mode ``slack`` (0.05); grid mode ``step``; decide mode ``radius``; fixed mode
    ``n0`` (100), ``n`` (n_max) and, for votes, ``randomised`` (False: ``certify.randomised``). ``needed``
    maps a radius to the class probability that proves it, rounded up (default Phi(radius / sigma)). ``tv`` is
    the noise's total variation error.
    ``runner_up``: bound the other classes, too (``certify.runner_up``; None: where there are more than
    two ``classes``, the mode has it, and the noise has a theorem for both bounds). ``between`` is that
    theorem, (p_lower, pb_upper) -> radius, rounded down (default: that of Gaussian noise).
    Raises InvalidSetting for an unknown mode, a missing or foreign option, or impossible values.
    """
    options = {"radius": radius, "step": step, "slack": slack, "n0": n0, "n": n, "randomised": randomised}
    _check_options(mode, scores, {k for k, v in options.items() if v is not None})
    if scores == "distribution" and needed is not None:
        raise InvalidSetting(
            "the score-distribution radius exists for Gaussian noise only",
            why="it moves every level set by the Neyman-Pearson bound of the normal distribution",
            remedy="use Gaussian or lattice noise and the l2 norm, or scores='soft'",
        )
    if needed is None:
        between = between or partial(radius_between, sigma=_check_sigma(sigma))
    needed = needed or partial(_gaussian, sigma=_check_sigma(sigma))
    share = _share(runner_up, alpha, mode, scores, classes, between)
    sides = {"runner_up": share, "classes": classes or 2, "between": between}
    if mode == "fixed":
        n0, n = 100 if n0 is None else n0, n_max if n is None else n
        if randomised and scores != "votes":
            raise InvalidSetting(
                f"randomised has no meaning for {scores} scores",
                why="it draws a number between two counts of votes, and scores are bounded otherwise",
                remedy="leave randomised out, or use scores='votes'",
            )
        if scores == "distribution":
            return Distribution(_check_sigma(sigma), alpha, n0, n, tv=tv)
        if scores == "soft":
            return SoftMean(alpha, whole(n, "n"), slack=0.0, n0=n0, tv=tv)
        return Fixed(alpha, n0, n, tv, share, bool(randomised))
    n_max = whole(n_max, "n_max")
    if scores == "soft" and mode == "radius":
        return SoftMean(alpha, n_max, 0.05 if slack is None else float(slack), tv=tv)
    if mode == "radius":
        slack = 0.05 if slack is None else float(slack)
        return Radius(alpha, n_max, slack, tv=tv, runner_up=share, classes=classes or 2)
    if mode == "decide":
        r = _length(radius, "radius", at_least=0.0)
        if scores == "soft":
            return Soft(r, _possible(needed(r), r), alpha, n_max, tv=tv)
        return Decide(r, _possible(needed(r), r), alpha, n_max, tv=tv, **sides)
    radii, targets = _grid(_length(step, "step"), needed)
    return Grid(radii, targets, alpha, n_max, tv=tv, **sides)


def _share(
    asked: bool | None, alpha: float, mode: str, scores: str, classes: int | None, between: Any
) -> float:
    """The runner-up's share of alpha; InvalidSetting where it is asked for and cannot be had."""
    if asked is False:
        return 0.0
    lacking = (
        "with two classes the other one has all that the leader has not"
        if classes is not None and classes <= 2
        else "it is not said how many classes there are"
        if classes is None
        else "it is about votes"
        if scores != "votes"
        else f"mode {mode} has no tests for it"
        if mode not in TWO_SIDED
        else "the noise has no theorem for two bounds"
        if between is None
        else "alpha is too small to be divided"
        if not alpha * SMALLEST_SHARE >= SMALLEST_ALPHA
        else None
    )
    if lacking is None:
        return SHARE
    if asked:
        raise InvalidSetting(
            "the runner-up cannot be bounded here",
            why=lacking,
            remedy="leave runner_up out: p_B := 1 - p_A is used where nothing better is proved",
        )
    return 0.0


_NEEDED = {"radius": set(), "grid": {"step"}, "decide": {"radius"}, "fixed": set()}
_ALLOWED = {"radius": {"slack"}, "grid": {"step"}, "decide": {"radius"}, "fixed": {"n0", "n", "randomised"}}


def _check_options(mode: str, scores: str, given: set[str]) -> None:
    if mode not in MODES:
        raise InvalidSetting(
            f"mode {mode!r} is unknown",
            why="a certificate is computed by one of a few procedures",
            remedy=f"use one of {', '.join(MODES)}",
        )
    if mode not in SCORES.get(scores, ()):
        raise InvalidSetting(
            f"scores {scores!r} cannot be certified in mode {mode}",
            why="; ".join(f"{name} scores have the modes {', '.join(SCORES[name])}" for name in SCORES),
            remedy="choose another mode, or scores='votes'",
        )
    for name in sorted(given - _ALLOWED[mode]):
        raise InvalidSetting(
            f"{name} has no meaning in mode {mode}",
            why=f"mode {mode} takes {', '.join(sorted(_ALLOWED[mode])) or 'no option'}",
            remedy=f"leave {name} out, or choose the mode that takes it",
        )
    for name in sorted(_NEEDED[mode] - given):
        raise InvalidSetting(
            f"mode {mode} needs {name}",
            why="it tests given radii only",
            remedy=f"pass {name}, for example {name}=0.25",
        )


def _grid(step: float, needed: Callable[[float], float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    radii, targets = [0.0], [needed(0.0)]
    while len(radii) <= _MOST_RADII:
        r = step * len(radii)
        p = needed(r)
        if p >= 1.0 - 1e-9:
            return tuple(radii), tuple(targets)
        radii.append(r)
        targets.append(p)
    raise InvalidSetting(
        f"step = {step:g} makes more than {_MOST_RADII} radii",
        why="a grid this fine costs more planning than sampling",
        remedy="use a larger step, or mode radius",
    )


def _gaussian(radius: float, *, sigma: float) -> float:
    return target_probability(radius, sigma)


def _possible(p: float, radius: float) -> float:
    if p < 1.0:
        return p
    raise InvalidSetting(
        f"radius {radius:g} can never be certified",
        why="it needs a class probability of 1",
        remedy="ask for a smaller radius or use a larger sigma",
    )


def _check_sigma(sigma: float) -> float:
    if math.isfinite(sigma) and sigma > 0:
        return float(sigma)
    raise InvalidSetting(
        f"sigma = {sigma!r} is not a noise level",
        why="the standard deviation of the noise must be finite and positive",
        remedy="use for example sigma=0.25",
    )


def _length(value: float | None, name: str, *, at_least: float | None = None) -> float:
    number = math.nan if value is None else float(value)
    if math.isfinite(number) and (number > 0 or number == at_least):
        return number
    raise InvalidSetting(
        f"{name} = {value!r} is not a distance",
        why="it must be finite and positive" if at_least is None else "it must be finite and not negative",
        remedy=f"use for example {name}=0.25",
    )
