"""The smoothed class at one point, by a two-sided binomial test (Cohen et al. 2019, Proposition 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """The smoothed class at one point, or None where the test could not tell.

    Claim (Cohen et al. 2019, Prop. 2): over the seed, a returned label is wrong with probability <= alpha,
    and ``samples`` times the noise's total variation error more (``Noise.tv``: of the order of 1e-10).
    """

    label: int | None
    counts: tuple[int, ...]
    p_value: float
    samples: int


def prediction(row: np.ndarray, n: int, alpha: float) -> Prediction:
    """What the votes ``row`` (classes + 1; the last: no class) of ``n`` samples say at level alpha."""
    from scipy import stats  # takes as long to import as half of torch

    order = np.argsort(row[:-1], kind="stable")[::-1]
    top, second = int(row[order[0]]), int(row[order[1]])
    # Samples without a class count as the runner-up: they can only make the test abstain.
    second += int(row[-1])
    p_value = 1.0
    if top > second:  # rounded up: the tail is good to about 1e-14
        p_value = min(1.0, float(stats.binomtest(top, top + second, 0.5).pvalue) * (1 + 1e-10))
    label = int(order[0]) if p_value <= alpha else None
    return Prediction(label, tuple(int(c) for c in row[:-1]), p_value, n)
