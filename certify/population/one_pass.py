"""The classifier that answers from one noisy copy: its accuracy under attack, from one pass per input.

Let p(x) be the probability that a noisy copy of x is right and h = E p(x) the accuracy without attack. An
attacker who moves x by at most r, and knows all but the noise, leaves a probability of at least
g(p) = Phi(Phi^-1(p) - r / sigma) (Neyman and Pearson; Cohen et al. 2019). With z = Phi^-1(p) the slope
of g is exp(z r / sigma - r^2 / (2 sigma^2)), which grows with p: g is convex, and by Jensen's
inequality E g(p(x)) >= g(h). So a lower bound on h, which one pass per input gives, is enough.

Under a shift of the population, in which an input moves by |d| and keeps its label, p changes by at most
2 Phi(|d| / (2 sigma)) - 1, the total variation between the two noises: concave in |d|. So a shift
of mean size rho costs at most 2 Phi(rho / (2 sigma)) - 1 of the accuracy.
"""

from __future__ import annotations

import math

from certify.bounds import binomial_lower
from certify.calls import checked
from certify.errors import InvalidSetting
from certify.population.bounds import level_of

_DOWN = 1e-12


@checked
def one_pass_accuracy(
    correct: int, inputs: int, radius: float, sigma: float, confidence: float = 0.999
) -> float:
    """Lower bound on the accuracy of the one-copy classifier under every attack of l2 size ``radius``.

    ``correct`` of ``inputs`` independent draws were right on one noisy copy each (noise ``sigma``).
    Wrong with probability at most 1 - ``confidence``. Raises InvalidCounts, InvalidSetting.
    """
    return attacked(binomial_lower(correct, inputs, level_of(confidence)), radius, sigma)


def attacked(h: float, radius: float, sigma: float, *, tv: float = 0.0) -> float:
    """Phi(Phi^-1(h) - radius / sigma), rounded down; ``tv``: the sampler's own error, paid on both sides."""
    from scipy import special

    _check_distance("radius", radius, sigma)
    h = h - tv
    if h <= 0.0:
        return 0.0
    return max(0.0, float(special.ndtr(special.ndtri(min(h, 1.0)) - radius / sigma)) - tv - _DOWN)


def shifted(h: float, rho: float, sigma: float, *, tv: float = 0.0) -> float:
    """h - (2 Phi(rho / (2 sigma)) - 1), rounded down: accuracy after a shift of mean size ``rho``."""
    from scipy import special

    _check_distance("shift", rho, sigma)
    return max(0.0, h - float(special.erf(rho / (2 * sigma * math.sqrt(2)))) - 2 * tv - _DOWN)


def _check_distance(name: str, value: float, sigma: float) -> None:
    if not (math.isfinite(value) and value >= 0 and math.isfinite(sigma) and sigma > 0):
        raise InvalidSetting(
            f"{name} = {value!r} with sigma = {sigma!r} cannot be used",
            why="a distance is finite and at least 0, and the noise has a positive standard deviation",
            remedy="give both in the units of the inputs, such as 0.25",
        )
