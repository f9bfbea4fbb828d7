"""How large is the certified radius? Nested tests on a grid of radii, or on a fine grid of p."""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from certify.bounds import check_alpha
from certify.chances import at_most
from certify.errors import InvalidSetting
from certify.procedures.nested_progress import NestedProgress
from certify.procedures.outcome import NO_SETTING, stated
from certify.procedures.sided import Between, Standing, both, foreseen
from certify.radii import radius_between, target_probability
from certify.runner_up import ONE_SIDED, check_share
from certify.sequential.boundaries import check_gamma, check_slack, futility_boundary, plan_looks, spending
from certify.sequential.gaps import Gaps
from certify.sequential.nested import NestedTests
from certify.sequential.uncontested import loosest

#: Radius mode floors Phi^-1(p) to multiples of this.
RESOLUTION = 0.01
#: With two bounds sampling goes on until this share of the slack is left: the rest makes up for their floors
#: and levels, so that ``slack`` is what is lost against one look at n_max samples.
_NEARER = 0.8


@dataclass(frozen=True)
class Grid:
    """The largest certified radius among ``radii``, each tested at the full alpha.

    ``radii`` increase from 0 and ``p_targets`` are the class probabilities that prove them,
    rounded up. Radii that n_max samples cannot certify are never reached. ``gamma`` is the chance
    of giving up a borderline radius early (no error, only power). ``runner_up``: the share of alpha that
    bounds the other ``classes``; ``between`` is then the radius that both bounds prove.
    """

    radii: tuple[float, ...]
    p_targets: tuple[float, ...]
    alpha: float = 1e-3
    n_max: int = 100_000
    first: int = 16
    growth: float = 1.1
    gamma: float = 0.12
    tv: float = 0.0
    runner_up: float = 0.0
    classes: int = field(default=2, metadata=NO_SETTING)
    between: Between | None = field(default=None, compare=False, repr=False, metadata=NO_SETTING)

    name = "grid"
    statistic = "counts"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_share(self.runner_up, self.alpha)
        check_gamma(self.gamma)
        if len(self.radii) != len(self.p_targets) or not self.radii or self.radii[0] != 0:
            raise InvalidSetting(
                "the grid of radii cannot be used",
                why="it must start at radius 0 and give one probability per radius",
                remedy="use make_procedure('grid', step=...), for example step=0.25",
            )
        _ = self.tests

    @property
    def tests(self) -> NestedTests:
        """The nested sequential tests, one per radius."""
        return _grid_tests(self)

    @property
    def gaps(self) -> Gaps:
        """The bounds on leader and runner-up beside the tests."""
        return _grid_gaps(self)

    @property
    def futility(self) -> np.ndarray:
        """(M, J) int64: the leader's count at which target m is given up."""
        return _grid_futility(self)

    def settings(self) -> dict[str, Any]:
        return stated(self) | {"radii": list(self.radii), "p_targets": list(self.p_targets)}

    def guarantee(self) -> str:
        if self.runner_up:
            return (
                f"The radius is the largest of {len(self.radii)} given ones that is proved at one of"
                f" {len(self.tests.looks)} looks fixed beforehand (at most {self.n_max} samples), by nested"
                " exact sequential tests of the leader's probability, or by bounds on it and on that of every"
                " other class; all of these are wrong with probability at most"
                f" {at_most(self.alpha)} together (a share of {self.runner_up:g} for the other classes)."
            )
        return (
            f"The radius is the largest of {len(self.tests.targets)} given ones that nested exact sequential"
            f" tests accept ({len(self.tests.looks)} looks fixed beforehand, at most {self.n_max} samples);"
            " by dynamic programming the result is wrong with probability at most"
            f" {at_most(self.tests.errors.max())}."
        )

    def start(self) -> NestedProgress:
        return NestedProgress(self, self.tests)

    def proved(self, best: int) -> tuple[float, float | None]:
        """(p_lower, radius) after ``best`` >= 1 targets were reached."""
        return self.p_targets[best - 1], self.radii[best - 1]

    def proves(self, reached: int) -> float:
        """The class probability that so many targets prove; 0 for none."""
        return self.p_targets[reached - 1] if reached else 0.0

    def reached_at_the_end(self, votes: int, second: int) -> int:
        """How many targets such counts of the two leading classes reach at the last look."""
        return self.tests.reached(len(self.tests.looks) - 1, votes, second)

    def by_both(self, bounds: tuple[float, float], best: int) -> int:
        """How many of the radii are proved by both bounds, or by the targets alone."""
        p_lower, pb_upper = bounds
        if self.between is None or not p_lower > pb_upper:
            return best
        return max(best, bisect_right(self.radii, self.between(p_lower, pb_upper)))

    def tested(self, bounds: tuple[float, float], best: int) -> tuple[float | None, dict[str, float]]:
        """The radius that both bounds prove, and for the record the one that the targets prove alone."""
        alone = self.radii[best - 1] if best else 0.0
        return self.radii[self.by_both(bounds, best) - 1], {ONE_SIDED: alone}

    def stop(self, step: int, top: int, best: int, now: Standing) -> bool:
        """Whether to end: everything is reached, or the next radius is out of reach."""
        if not self.runner_up:
            return best == len(self.tests.targets) or top <= self.futility[best, step]
        have = self.by_both(both(self, step, now, best), best)
        if have == len(self.radii):
            return True
        tested = have < len(self.tests.targets) and top > self.futility[have, step]
        return not tested and self.by_both(foreseen(self, now, lucky=True), 0) <= have


@dataclass(frozen=True)
class Radius:
    """A real-valued radius: a sequential Clopper-Pearson bound with relative slack.

    The bound on p is inverted from nested exact tests on the grid Phi^-1(p) = 0, 0.01, 0.02, ...
    and floored to it. Sampling ends when the certified radius is within the share ``slack`` of
    the radius that n_max samples are forecast to prove. The forecast decides only how long to
    sample: the bound holds whenever sampling ends. ``runner_up``: the share of alpha that bounds the other
    ``classes``; below the first target the leader is then bounded at every look.
    """

    alpha: float = 1e-3
    n_max: int = 100_000
    slack: float = 0.05
    first: int = 64
    growth: float = 1.2
    gamma: float = 0.05
    tv: float = 0.0
    runner_up: float = 0.0
    classes: int = field(default=2, metadata=NO_SETTING)

    name = "radius"
    statistic = "counts"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_share(self.runner_up, self.alpha)
        check_gamma(self.gamma)
        check_slack(self.slack)
        _ = self.tests

    @property
    def tests(self) -> NestedTests:
        """The nested sequential tests, one per step of Phi^-1(p)."""
        return self._tests[0]

    @property
    def gaps(self) -> Gaps:
        """The bounds on leader and runner-up beside the tests."""
        return _radius_gaps(self)

    @property
    def quantiles(self) -> np.ndarray:
        """Phi^-1 of the targets: the certified radius in units of sigma, (M,)."""
        return self._tests[1]

    @property
    def _tests(self) -> tuple[NestedTests, np.ndarray]:
        alpha = self.alpha * (1 - self.runner_up)
        return _radius_tests(alpha, self.n_max, self.slack, self.first, self.growth, self.tv)

    def settings(self) -> dict[str, Any]:
        return stated(self) | {"resolution": RESOLUTION}

    def guarantee(self) -> str:
        if self.runner_up:
            return (
                "The bound on the class probability is a sequential Clopper-Pearson bound, inverted from"
                f" {len(self.tests.targets)} nested exact tests and floored to them, or below 1/2 one at"
                " every look; every other class was bounded from above at every look"
                f" ({len(self.tests.looks)} of them, fixed beforehand, at most {self.n_max} samples). All of"
                " these are wrong with"
                f" probability at most {at_most(self.alpha)} together (a share of {self.runner_up:g} for the"
                " other classes), whenever sampling ends."
            )
        return (
            "The bound on the class probability is a sequential Clopper-Pearson bound, inverted from"
            f" {len(self.tests.targets)} nested exact tests and floored to them"
            f" ({len(self.tests.looks)} looks fixed beforehand, at most {self.n_max} samples); by dynamic"
            f" programming it is wrong with probability at most {at_most(self.tests.errors.max())}, whenever"
            " sampling ends."
        )

    def start(self) -> NestedProgress:
        return NestedProgress(self, self.tests)

    def proved(self, best: int) -> tuple[float, float | None]:
        """(p_lower, None) after ``best`` >= 1 targets were reached."""
        return target_probability(float(self.quantiles[best - 1]), 1.0), None

    def proves(self, reached: int) -> float:
        """The class probability that so many targets prove; 0 for none."""
        return self.proved(reached)[0] if reached else 0.0

    def reached_at_the_end(self, votes: int, second: int) -> int:
        """How many targets such counts of the two leading classes reach at the last look."""
        return self.tests.reached(len(self.tests.looks) - 1, votes, second)

    def tested(self, bounds: tuple[float, float], best: int) -> tuple[float | None, dict[str, float]]:
        """Nothing: the radius is left to the theorem."""
        return None, {}

    def stop(self, step: int, top: int, best: int, now: Standing) -> bool:
        """Whether to end: what is proved is near what n_max samples would prove, or nothing can be."""
        if self.runner_up:
            have = radius_between(*both(self, step, now, best), 1.0)
            if have == 0.0:
                hopeless = best == 0 and top <= _hopeless(self)[step]
                return hopeless and radius_between(*foreseen(self, now, lucky=True), 1.0) == 0.0
            return have >= (1 - _NEARER * self.slack) * radius_between(*foreseen(self, now, lucky=False), 1.0)
        tests, n_max = self.tests, self.n_max
        if best == 0:
            return top <= _hopeless(self)[step]
        forecast = tests.reached(len(tests.looks) - 1, math.floor(top / int(tests.looks[step]) * n_max))
        return self.quantiles[best - 1] >= (1 - self.slack) * self.quantiles[max(forecast, 1) - 1]


def radius_spending(looks: np.ndarray, p_target: float, alpha: float, slack: float) -> np.ndarray:
    """Error spending around the look where an input that just proves p_target will end.

    Most of alpha is spent by the number of samples at which the slack rule stops such an input,
    so its bound there is nearly the fixed-sample one.
    """
    n_max = int(looks[-1])
    end = _expected_end(p_target, n_max, slack, alpha)
    late = 0.8 + 0.1 * np.log(np.maximum(looks / end, 1.0)) / max(math.log(n_max / end), 1e-9)
    share = np.where(looks < end, 0.8 * (looks / end) ** 2, np.minimum(late, 0.9))
    share = np.where(share < 0.02, 0.0, share)
    unanimous = looks * math.log(p_target)
    possible = unanimous <= np.log(np.maximum(share * alpha, 1e-300))
    spent = np.where(possible, share * alpha, 0.0)
    spent[-1] = alpha
    return spent


def _expected_end(p_target: float, n_max: int, slack: float, alpha: float) -> float:
    zs, ends = _end_table(n_max, slack, round(math.log(alpha), 1))
    return float(np.exp(np.interp(special.ndtri(p_target), zs, ends)))


@functools.lru_cache(maxsize=64)
def _end_table(n_max: int, slack: float, log_alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """log of the sample number where the slack rule would stop, at a few quantiles (planning only)."""
    from scipy import stats  # takes as long to import as half of torch

    alpha = math.exp(log_alpha)
    zs = np.linspace(0.02, 3.8, 20)
    ns = np.unique(np.round(np.geomspace(min(50, n_max), n_max, 120)).astype(int))
    ends = []
    for z in zs:
        count = stats.binom.isf(alpha, ns, special.ndtr(z)) + 1
        full = np.clip(np.floor(np.minimum(count / ns, 1.0) * n_max), 1, n_max)
        beta = special.betaincinv(full, n_max - full + 1.0, alpha)
        low = np.where(full == n_max, math.exp(log_alpha / n_max), beta)
        near = (z >= (1 - slack) * special.ndtri(np.maximum(low, 0.5))) & (count <= ns)
        ends.append(math.log(ns[near.argmax()] if near.any() else n_max))
    return zs, np.array(ends)


@functools.lru_cache(maxsize=32)
def _grid_tests(plan: Grid) -> NestedTests:
    looks = plan_looks(plan.first, plan.growth, plan.n_max)
    targets = [p + plan.tv for p in plan.p_targets if p + plan.tv < 1]
    return NestedTests(targets, looks, plan.alpha * (1 - plan.runner_up), spending)


@functools.lru_cache(maxsize=32)
def _grid_futility(plan: Grid) -> np.ndarray:
    return plan.tests.futility(plan.gamma)


@functools.lru_cache(maxsize=8)
def _radius_tests(
    alpha: float, n_max: int, slack: float, first: int, growth: float, tv: float
) -> tuple[NestedTests, np.ndarray]:
    looks = plan_looks(first, growth, n_max)
    quantiles = np.arange(0, 400) * RESOLUTION
    targets = [target_probability(float(z), 1.0) + tv for z in quantiles]
    targets = [p for p in targets if p < 1]
    tests = NestedTests(targets, looks, alpha, functools.partial(radius_spending, slack=slack))
    return tests, quantiles[: len(tests.targets)]


@functools.lru_cache(maxsize=32)
def _grid_gaps(plan: Grid) -> Gaps:
    return _gaps(plan, len(plan.tests.targets) + 1)


@functools.lru_cache(maxsize=32)
def _radius_gaps(plan: Radius) -> Gaps:
    return _gaps(plan, 1)  # the targets above are close to each other


def _gaps(plan: Grid | Radius, read: int) -> Gaps:
    tests = plan.tests
    return Gaps(
        tests.looks, tests.targets.tolist(), tests.accept, tests.uncontested,
        alpha=plan.alpha, share=plan.runner_up, classes=plan.classes, read=read,
    )  # fmt: skip


@functools.lru_cache(maxsize=32)
def _hopeless(plan: Radius) -> np.ndarray:
    tests = plan.tests
    return futility_boundary(tests.looks, loosest(tests.accept[0], tests.uncontested), plan.gamma)
