"""What held-out data proves: test-set bounds, the measured gap, and the risk at a radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from analysis.result import GUARANTEED, BoundResult
from certify.bounds import binomial_interval, binomial_upper
from certify.errors import InvalidInput, InvalidSetting
from certify.records import Record

CLOPPER_PEARSON = "Clopper and Pearson, Biometrika 1934; Langford, JMLR 2005, Theorem 3.3"

Predictor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MeasuredGap:
    """Population error minus training error, with its interval.

    The training error is a number, not an estimate; the population error lies in the test error's
    Clopper-Pearson interval with probability 1 - delta. ``predictor`` says whose error it is.
    """

    value: float
    low: float
    high: float
    train_error: float
    test_error: float
    test_low: float
    test_high: float
    n_train: int
    n_test: int
    delta: float
    predictor: str

    def to_json(self) -> dict[str, float | int | str]:
        """Plain JSON types."""
        return asdict(self)


def heldout_bound(errors: int, n: int, delta: float = 0.05, *, predictor: str = "deterministic network"):
    """Upper bound on the risk from ``errors`` mistakes on ``n`` held-out points: Clopper-Pearson.

    Claim: with probability at least 1 - delta over the test set, risk <= value. Nothing is assumed
    about the network or its training, only that the test points are i.i.d. and untouched by it.
    """
    upper = binomial_upper(errors, n, _one_sided(delta))
    return BoundResult(
        name="test set, Clopper-Pearson",
        reference=CLOPPER_PEARSON,
        target="risk",
        predictor=predictor,
        side="upper",
        validity=GUARANTEED,
        value=upper,
        low=0.0,
        high=upper,
        terms={"errors": float(errors), "n": float(n), "test_error": errors / n},
        delta=delta,
        data_used=f"{n} test points",
        assumptions=("test points i.i.d. and not used in training or model choice",),
    )


def risk_at_radius(
    records: Sequence[Record], radii: Sequence[float], delta: float = 0.05
) -> list[BoundResult]:
    """Upper bounds on the risk of the smoothed classifier against any attack of l2 size r.

    An input counts as right only if it was certified at radius >= r with the true class, so that
    1 - certified accuracy bounds the robust risk. Each radius holds by itself with probability
    1 - delta over the inputs (the certificates' own alpha comes on top). Raises InvalidInput without
    true labels.
    """
    if not records or any(r.target is None for r in records):
        raise InvalidInput(
            "the risk at a radius needs records with true labels",
            why="the run is empty or was certified without labels",
            remedy="certify a labelled data set",
        )
    rows = []
    for r in radii:
        wrong = sum(not (rec.correct and rec.radius >= r) for rec in records)
        upper = binomial_upper(wrong, len(records), _one_sided(delta))
        rows.append(
            BoundResult(
                name=f"risk at l2 radius {r:g}, Clopper-Pearson",
                reference=CLOPPER_PEARSON,
                target=f"risk under any attack of l2 size {r:g}",
                predictor="smoothed network",
                side="upper",
                validity=GUARANTEED,
                value=upper,
                low=0.0,
                high=upper,
                terms={"radius": float(r), "not_certified": float(wrong), "n": float(len(records))},
                delta=delta,
                data_used=f"{len(records)} certified inputs",
                assumptions=(
                    "inputs i.i.d.",
                    "the certificates hold (each fails with probability alpha)",
                ),
            )
        )
    return rows


def measured_gap(
    predict: Predictor,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    delta: float = 0.05,
    *,
    predictor: str = "deterministic network",
) -> MeasuredGap:
    """Test error minus training error of ``predict`` (inputs -> labels), with its interval."""
    train_wrong, n_train = count_errors(predict, *train)
    test_wrong, n_test = count_errors(predict, *test)
    return gap_from_counts(train_wrong, n_train, test_wrong, n_test, delta, predictor=predictor)


def gap_from_counts(
    train_wrong: int,
    n_train: int,
    test_wrong: int,
    n_test: int,
    delta: float = 0.05,
    *,
    predictor: str = "deterministic network",
) -> MeasuredGap:
    """The measured gap from error counts."""
    low, high = binomial_interval(test_wrong, n_test, _one_sided(delta))
    train_error, test_error = train_wrong / n_train, test_wrong / n_test
    return MeasuredGap(
        test_error - train_error, low - train_error, high - train_error, train_error, test_error,
        low, high, n_train, n_test, delta, predictor,
    )  # fmt: skip


def count_errors(predict: Predictor, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> tuple[int, int]:
    """Mistakes and number of points."""
    wrong = 0
    with torch.no_grad():
        for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
            wrong += int((predict(xs).cpu() != ys.cpu()).sum())
    return wrong, len(y)


def kl_bernoulli(q: float, p: float) -> float:
    """kl(q | p) between Bernoulli distributions."""
    total = 0.0
    for a, b in ((q, p), (1 - q, 1 - p)):
        if a > 0:
            total += math.inf if b <= 0 else a * math.log(a / b)
    return max(0.0, total)


def kl_inverse(q: float, budget: float) -> float:
    """The largest p with kl(q | p) <= budget, rounded outward (up). Raises InvalidSetting."""
    if not (0 <= q <= 1 and budget >= 0):
        raise InvalidSetting(
            f"kl_inverse({q!r}, {budget!r}) is undefined",
            why="q is a frequency and the budget is at least 0",
            remedy="check the empirical risk and the complexity term",
        )
    if q == 0.0:
        return -math.expm1(-budget) * (1 + 1e-15) if budget < math.inf else 1.0
    low, high = q, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if kl_bernoulli(q, middle) <= budget else (low, middle)
    return high


def _one_sided(delta: float) -> float:
    if not 0 < delta < 0.5:
        raise InvalidSetting(
            f"delta = {delta!r} cannot be used",
            why="delta is the probability that the bound fails, in (0, 0.5)",
            remedy="use delta=0.05",
        )
    return delta
