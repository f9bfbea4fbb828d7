"""A rule that turns counts into a lower bound on the share with p > p*, fixed before it sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.errors import InvalidCounts
from certify.population.betting import fixed_bet, in_blocks, means_to_test, timed_bets
from certify.population.minorant import anticipated, best_weights
from certify.population.mixing import law_of_counts
from certify.population.threshold import best_threshold, false_share, threshold_bound

METHODS = ("threshold", "minorant", "mean")
#: Whom a bound speaks about: the population that the inputs are independent draws from, or the finite
#: set that they are a random subset of.
ABOUT = ("population", "set")


@dataclass(frozen=True)
class Rule:
    """All that was fixed beforehand. ``weights``: one per count 0..n, with P_c <= 0 on [0, p_target].

    The method "mean" bounds the mean of p instead, by weights k / n, and has no p_target (0).

    ``threshold``: u, for the method "threshold". ``anticipated``, ``variance`` and ``stake`` are what
    the pilot lets expect of the bound and the weights; they steer bets and decide nothing.
    """

    method: str
    about: str
    n: int
    p_target: float
    inputs: int
    alpha: float
    weights: tuple[float, ...]
    threshold: int | None
    anticipated: float
    variance: float
    stake: float

    def lower(self, counts: np.ndarray) -> float:
        """The bound from ``inputs`` counts, in an order that does not depend on them.

        Wrong (above the true share) with probability at most alpha.
        """
        if len(counts) != self.inputs:
            raise InvalidCounts(
                f"the rule was made for {self.inputs} inputs, {len(counts)} were counted",
                why="how many inputs are counted is part of the rule",
                remedy="count all of them, or make a rule for as many as there are",
            )
        if self.method == "threshold":
            u = self.threshold or self.n
            a = false_share(u, self.n, self.p_target)
            return threshold_bound(int((counts >= u).sum()), self.inputs, a, self.alpha)
        if self.anticipated <= 0:
            return 0.0
        weights = np.array(self.weights)
        means = means_to_test(self.anticipated, 3.3 * math.sqrt(self.variance / self.inputs))
        if self.about == "set":
            histogram = np.bincount(counts, minlength=self.n + 1)
            return fixed_bet(weights, histogram, means, self.alpha, self.stake)
        return timed_bets(weights, in_blocks(counts, self.n), means, self.alpha, self.variance)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in field order; the inverse of ``from_json``."""
        return {**self.__dict__, "weights": list(self.weights)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Rule:
        """The rule that ``to_json`` wrote."""
        return cls(**{**row, "weights": tuple(row["weights"])})


def design(
    pilot: np.ndarray, n: int, p_target: float, inputs: int, alpha: float, about: str = "population"
) -> Rule:
    """The rule that promises most for inputs like the pilot's, of which ``inputs`` others will be counted.

    ``pilot``: counts (of n copies) of inputs that are not counted again; may be empty.
    """
    law = law_of_counts(np.asarray(pilot, dtype=np.int64), n)
    if n == 1 and about == "population":  # the only rule: all radii then rest on one bound
        weights, expected, u, simple = np.zeros(2), 0.0, 1, 0.0
    else:
        weights, expected = best_weights(law, p_target, inputs, alpha)
        u, simple = best_threshold(law, p_target, inputs, alpha) if about == "population" else (n, -1.0)
    threshold = u if simple >= expected else None
    if threshold is not None:
        a = false_share(u, n, p_target)
        below, above = (-a / (1 - a), 1.0) if a < 1.0 else (0.0, 0.0)
        weights = np.where(np.arange(n + 1) >= u, above, below)
    method = "minorant" if threshold is None else "threshold"
    return _rule(method, about, law, weights, p_target, inputs, alpha, threshold)


def design_mean(pilot: np.ndarray, n: int, inputs: int, alpha: float, about: str = "population") -> Rule:
    """The rule that bounds the mean of p over the inputs; arguments as in ``design``."""
    law = law_of_counts(np.asarray(pilot, dtype=np.int64), n)
    method, threshold = ("threshold", 1) if n == 1 and about == "population" else ("mean", None)
    return _rule(method, about, law, np.arange(n + 1) / n, 0.0, inputs, alpha, threshold)


def rejudged(rule: Rule, pilot: np.ndarray) -> Rule:
    """The rule with the same weights, and what ``pilot`` lets expect of them."""
    law = law_of_counts(np.asarray(pilot, dtype=np.int64), rule.n)
    return _rule(
        rule.method, rule.about, law, np.array(rule.weights), rule.p_target, rule.inputs, rule.alpha,
        rule.threshold,
    )  # fmt: skip


def _rule(method, about, law, weights, p_target, inputs, alpha, threshold) -> Rule:
    if threshold is None:
        expected = anticipated(law, weights, inputs, alpha)
    else:
        a = false_share(threshold, len(law) - 1, p_target)
        expected = threshold_bound(int(law[threshold:].sum() * inputs), inputs, a, alpha)
    variance = max(float(law @ (weights - law @ weights) ** 2), 1e-12)
    return Rule(
        method=method, about=about, n=len(law) - 1, p_target=float(p_target), inputs=int(inputs), alpha=alpha,
        weights=tuple(float(c) for c in weights), threshold=threshold, anticipated=float(expected),
        variance=variance, stake=math.sqrt(-2 * math.log(alpha) / (inputs * variance)),
    )  # fmt: skip
