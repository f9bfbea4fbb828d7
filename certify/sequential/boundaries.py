"""Looks, error spending and the boundaries of exact sequential tests.

Everything here is arithmetic on a plan that is fixed before sampling. What a boundary may claim
is set by ``accept_boundary`` alone; how error is spread over the looks, and where hopeless inputs
are given up, changes cost and power but never the error probability.
"""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
from scipy import special

from certify.calls import shown
from certify.errors import InvalidSetting
from certify.sequential.walks import SAFETY, Walk

#: Shares of alpha that interim looks may use, tried from the largest down.
_SHARES = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
#: What interim looks may cost at n_max, as a shift of the certified radius in units of sigma.
SHIFT = 1e-4


@functools.lru_cache(maxsize=256)
def plan_looks(first: int, growth: float, n_max: int) -> np.ndarray:
    """The looks first, ~growth * first, ... up to n_max: (J,) int64, read-only."""
    first, n_max = whole(first, "first"), whole(n_max, "n_max")
    if not (math.isfinite(growth) and growth > 1):
        raise InvalidSetting(
            f"growth = {growth!r} cannot space the looks",
            why="each look must come later than the one before: the factor must exceed 1",
            remedy="use a factor between 1.05 and 2, for example growth=1.15",
        )
    looks = [min(first, n_max)]
    while looks[-1] < n_max:
        looks.append(min(n_max, max(looks[-1] + 1, math.ceil(looks[-1] * growth))))
    return frozen(looks)


@functools.lru_cache(maxsize=512)
def _spending(looks: tuple[int, ...], p_target: float, alpha: float, shift: float) -> np.ndarray:
    steps = np.array(looks)
    spent = np.zeros(len(steps))
    spent[-1] = alpha
    single, _ = accept_boundary(steps, p_target, spent)
    allowed = single[-1] + shift * looks[-1] * _density(p_target)
    for share in _SHARES:
        spent = _log_spending(steps, p_target, alpha, share)
        accept, _ = accept_boundary(steps, p_target, spent)
        if accept[-1] <= allowed:
            break
    spent.setflags(write=False)
    return spent


def spending(looks: np.ndarray, p_target: float, alpha: float, shift: float = SHIFT) -> np.ndarray:
    """Error that may be spent by each look: (J,), nondecreasing, alpha at the last.

    Zero until a unanimous vote could be certified, then growing with log n up to a share of
    alpha. The share is the largest that leaves the last look's boundary where a single look with
    n_max samples and all of alpha would have it, up to ``shift`` (of the radius, in units of sigma).
    """
    return _spending(tuple(looks.tolist()), p_target, alpha, shift)


def accept_boundary(
    looks: np.ndarray,
    p_target: float,
    spent_by: np.ndarray,
    *,
    mirrored: bool = True,
    at_least: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """The lowest boundary whose error by look j stays <= spent_by[j], and its exact error.

    The boundary is (J,) int64, always above n_j / 2; n_j + 1 where nothing can be certified yet.
    The error, rounded up, is P(a class of probability p_target ever reaches it); with
    ``mirrored``, or the class of probability 1 - p_target does. ``at_least`` is a lower limit on
    the boundary (another plan's, for nesting).
    """
    budget = np.asarray(spent_by) / (1 + 2 * SAFETY)
    walk, spent, accept = Walk(p_target), 0.0, []
    for j, n in enumerate(looks.tolist()):
        if budget[j] <= 0:  # nothing can be certified yet, so nothing needs to be computed
            accept.append(n + 1)
            continue
        walk.step(n)
        floor = n // 2 + 1 if at_least is None else max(n // 2 + 1, int(at_least[j]))
        u = _lowest(walk, floor, budget[j] - spent - walk.lost, mirrored)
        accept.append(u)
        spent += walk.absorb_above(u)
        if mirrored:
            spent += walk.absorb_below(n - u)
    return frozen(accept), (spent + walk.lost) * (1 + SAFETY)


def futility_boundary(looks: np.ndarray, accept: np.ndarray, gamma: float) -> np.ndarray:
    """Where to give up: (J,) int64, below ``accept``; -1 where never.

    An input that the last look would just accept is given up before with probability <= gamma,
    of which a share sqrt(n_j / n_J) may be used by look j: late looks are the ones that pay.
    """
    if gamma == 0:
        return frozen(np.full(len(looks), -1))
    borderline = min(accept[-1] / looks[-1], 1.0 - 1e-12)
    walk, used, low = Walk(borderline), 0.0, []
    for j, n in enumerate(looks.tolist()):
        walk.step(n)
        walk.absorb_above(int(accept[j]))
        allowed = gamma * math.sqrt(n / looks[-1]) - used
        inside = int(np.searchsorted(np.cumsum(walk.mass), allowed, side="right"))
        k = min(walk.low + inside - 1, int(accept[j]) - 1)
        used += walk.absorb_below(k)
        low.append(max(k, -1))
    return frozen(low)


def check_p_target(p: float) -> float:
    if not 0.5 <= p < 1.0:
        raise InvalidSetting(
            f"p_target = {p!r} cannot be tested",
            why="a radius >= 0 needs a class probability in [0.5, 1)",
            remedy="ask for a radius between 0 and about 3.8 sigma: p_target = Phi(radius / sigma)",
        )
    return float(p)


def check_gamma(gamma: float) -> float:
    if not 0.0 <= gamma < 0.5:
        raise InvalidSetting(
            f"gamma = {gamma!r} cannot be used",
            why="gamma is the probability of giving up a borderline input early, in [0, 0.5)",
            remedy="use gamma=0.05, or 0 to always go on to n_max",
        )
    return float(gamma)


def check_slack(slack: float) -> float:
    if not 0.0 <= slack < 1.0:
        raise InvalidSetting(
            f"slack = {slack!r} cannot be used",
            why="it is the share of the attainable radius that may be given up, in [0, 1)",
            remedy="use slack=0.05; 0 always draws n_max samples",
        )
    return float(slack)


def check_probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise InvalidSetting(
            f"p = {p!r} is not a probability", why="it must lie in [0, 1]", remedy="pass a probability"
        )
    return float(p)


#: More samples than any computer draws; a sample's number must also fit the words that key its noise.
MOST_SAMPLES = 2**53


def whole(value: int, name: str) -> int:
    """``value`` as a Python int in [1, 2**53], or InvalidSetting."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= MOST_SAMPLES:
        raise InvalidSetting(
            f"{name} = {shown(value)} is not a number of samples",
            why="it must be a whole number >= 1" + ("" if number < 1 else ", and 2**53 at most"),
            remedy=f"use for example {name}={'16' if name == 'first' else '100_000'}",
        )
    return number


def frozen(values) -> np.ndarray:
    """A read-only int64 array: plans are shared by every input of a run."""
    out = np.array(values, dtype=np.int64)
    out.setflags(write=False)
    return out


def _log_spending(looks: np.ndarray, p_target: float, alpha: float, share: float) -> np.ndarray:
    # Where unanimity itself takes long (targets near 1), unanimous inputs are most of the cost and
    # get most of the share at once; elsewhere the first look comes cheap and gets a tenth.
    last = looks[-1]
    unanimous = math.log(alpha) / math.log(p_target) / last
    early = share * min(1.0, 0.1 + 3 * unanimous)
    start = max(1.0, math.log(early * alpha) / math.log(p_target))
    span = max(math.log(last / start), 1e-9)
    grown = early + (share - early) * np.log(np.maximum(looks / start, 1.0)) / span
    spent = np.where(looks >= math.floor(start), alpha * np.minimum(grown, share), 0.0)
    spent[-1] = alpha
    return spent


def _lowest(walk: Walk, floor: int, budget: float, mirrored: bool) -> int:
    """Smallest k >= floor with P(count >= k) (+ P(count <= n - k)) <= budget; n + 1 if none."""
    n, top = walk.n, walk.low + len(walk.mass)
    if budget <= 0:
        return n + 1
    ks = np.arange(floor, max(top, floor) + 1)
    above = np.append(np.cumsum(walk.mass[::-1])[::-1], 0.0)
    mass = above[np.clip(ks - walk.low, 0, len(walk.mass))]
    if mirrored:
        below = np.concatenate([np.zeros(1), np.cumsum(walk.mass)])
        mass = mass + below[np.clip(n - ks - walk.low + 1, 0, len(walk.mass))]
    good = np.flatnonzero(mass <= budget)
    return int(ks[good[0]]) if len(good) else n + 1


def _density(p: float) -> float:
    z = float(special.ndtri(p))
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
