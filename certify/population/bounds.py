"""The share of a population that is right and stays right, from a few noisy copies of each input."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from certify.bounds import check_alpha
from certify.calls import checked
from certify.errors import InvalidCounts, InvalidSetting
from certify.population.order import keyed_order
from certify.population.rules import ABOUT, design

#: A rule is searched for over all counts: of at most so many copies.
MOST_COPIES = 2000
#: The share of the inputs that is set apart to choose the rule.
PILOT = 0.1


@checked
def lower_bound(
    counts: Sequence[int] | np.ndarray,
    n: int,
    p_target: float,
    confidence: float = 0.999,
    *,
    pilot: float | Sequence[int] | np.ndarray | None = PILOT,
    about: str = "population",
    seed: int = 0,
) -> float:
    """A lower confidence bound on the share of inputs with p > ``p_target``, p = P(a noisy copy is right).

    ``counts``: (m,) how many of ``n`` copies of each input were right. ``pilot``: the share of them, drawn
    by ``seed``, that chooses the rule and is not counted (at most one half); or the counts of other
    inputs for that purpose; 0 for a rule that looks at no counts. ``p_target``: for Gaussian noise and
    radius r Phi(r / sigma), plus the sampler's own error in total variation.

    Claim: over independent draws of inputs and noise the bound exceeds the true share with
    probability at most 1 - ``confidence``. With ``about`` "set" the inputs may be a random subset
    of a finite set: the share is then that of the set (without the pilot), and the bound a little lower.
    ``n``, ``p_target`` and the number of inputs are fixed beforehand. Raises InvalidCounts, InvalidSetting.
    """
    counted, tuning, alpha = _checked(counts, n, p_target, confidence, pilot, about, seed)
    return design(tuning, n, float(p_target), len(counted), alpha, about).lower(counted)


def upper_bound(
    counts: Sequence[int] | np.ndarray,
    n: int,
    p_target: float,
    confidence: float = 0.999,
    *,
    pilot: float | Sequence[int] | np.ndarray | None = PILOT,
    about: str = "population",
    seed: int = 0,
) -> float:
    """An upper confidence bound on the share of inputs with p > ``p_target``; arguments of ``lower_bound``.

    One less the lower bound on the share with 1 - p >= 1 - p_target. It is about this criterion: an
    input that misses it may still be robust. ``p_target`` is Phi(r / sigma) *less* the sampler's error.
    """
    counted, tuning, alpha = _checked(counts, n, p_target, confidence, pilot, about, seed)
    rule = design(n - tuning, n, mirrored(p_target), len(counted), alpha, about)
    return 1.0 - rule.lower(n - counted)


def level_of(confidence: float) -> float:
    """1 - confidence, of the decimal number that was written; InvalidSetting unless between 1/2 and 1."""
    try:
        return check_alpha(float(1 - Decimal(repr(float(confidence)))))
    except (TypeError, ValueError, ArithmeticError) as cause:
        raise InvalidSetting(
            f"confidence = {confidence!r} cannot be used",
            why="it is the probability that a statement holds, between 0.5 and 1",
            remedy="use 0.999",
        ) from cause


def mirrored(p_target: float) -> float:
    """1 - p_target, rounded up."""
    return float(np.nextafter(1.0 - p_target, 2.0))


def _checked(counts, n, p_target, confidence, pilot, about, seed) -> tuple[np.ndarray, np.ndarray, float]:
    """(counts to count, counts to choose the rule by, alpha)."""
    values = check_right_counts(counts, n)
    if not 0.0 < float(p_target) < 1.0:
        raise InvalidSetting(
            f"p_target = {p_target!r} cannot be used",
            why="it is the probability that an input's noisy copies must exceed, between 0 and 1",
            remedy="for radius r and noise sigma it is Phi(r / sigma); ask for a radius that is not so large",
        )
    if about not in ABOUT:
        raise InvalidSetting(
            f"a bound about {about!r} is unknown",
            why="inputs are independent draws from a population, or a random subset of a finite set",
            remedy=f"use {' or '.join(map(repr, ABOUT))}",
        )
    alpha = level_of(confidence)
    chosen = np.asarray(PILOT if pilot is None else pilot)
    if chosen.ndim:
        return values, check_right_counts(chosen, n, least=0), alpha
    order = np.array(keyed_order(range(len(values)), seed, "pilot"))
    apart = pilot_size(len(values), float(chosen))
    return values[order[apart:]], values[order[:apart]], alpha


def pilot_size(inputs: int, share: float) -> int:
    """How many of so many inputs choose the rule; at least one is left to be counted."""
    if not 0.0 <= share <= 0.5:
        raise InvalidSetting(
            f"a pilot of {share!r} of the inputs cannot be used",
            why="it is the share that chooses the rule and is not counted: from 0 to one half",
            remedy="use 0.1",
        )
    return min(int(share * inputs), inputs - 1)


def check_right_counts(counts: Sequence[int] | np.ndarray, n: int, *, least: int = 1) -> np.ndarray:
    """``counts`` as (m,) int64; InvalidCounts unless they are at least ``least`` whole numbers in 0..n."""
    values = np.asarray(counts)
    whole = values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool(np.all(values == np.rint(values)))
    )
    if values.ndim != 1 or len(values) < least or (len(values) and not whole):
        raise InvalidCounts(
            "these are no counts of right copies",
            why="one whole number per input is needed, in one dimension",
            remedy="pass how many of the n noisy copies of each input were right",
        )
    if n > MOST_COPIES:
        raise InvalidCounts(
            f"n = {n} copies of each input are too many",
            why=f"a rule is searched for over all counts, at most {MOST_COPIES}",
            remedy="use 25 to 1000 copies; with more, certify each input by itself",
        )
    if n != int(n) or n < 1 or (len(values) and not (values.min() >= 0 and values.max() <= n)):
        raise InvalidCounts(
            f"the counts do not come from {n} copies of each input",
            why="each must lie between 0 and n, and n must be at least 1",
            remedy="pass the n that was fixed beforehand for all inputs",
        )
    return values.astype(np.int64)
