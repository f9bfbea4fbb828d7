"""What held-out data proves: test-set bounds, the measured gap, and the risk at a radius."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from analysis.result import GUARANTEED, BoundResult
from certify.bounds import binomial_interval, binomial_upper, check_alpha
from certify.calls import checked
from certify.chances import error_probability
from certify.errors import InvalidInput, InvalidSetting
from certify.records import Record, Run

CLOPPER_PEARSON = "Clopper and Pearson, Biometrika 1934; Langford, JMLR 2005, Theorem 3.3"

Predictor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MeasuredGap:
    """Population error minus training error, with its interval at level 1 - delta.

    The population error lies in the test error's Clopper-Pearson interval. The training error of a
    deterministic predictor is counted; that of a Gibbs classifier is a mean over draws of its weights and
    lies in [train_low, train_high], which the interval of the gap allows for. ``predictor`` says whose error
    it is.
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
    train_low: float | None = None
    train_high: float | None = None

    def to_json(self) -> dict[str, float | int | str | None]:
        """Plain JSON types."""
        return asdict(self)


@checked
def heldout_bound(
    errors: int,
    n: int,
    delta: float = 0.05,
    *,
    predictor: str = "deterministic network",
    distinct: tuple[int, int] | None = None,
    note: str = "",
) -> BoundResult:
    """Upper bound on the risk from ``errors`` mistakes on ``n`` held-out points: Clopper-Pearson.

    Claim: with probability at least 1 - delta over the test set, risk <= value. Nothing is assumed
    about the network or its training, only that the test points are i.i.d. and untouched by it.
    ``distinct``: (mistakes, points) without those that repeat another; the larger of both bounds is given, as
    repeats are no independent points. ``note``: what was found when test and training points were compared.
    """
    upper = _upper((errors, n), distinct, delta)
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
        terms={"errors": float(errors), "n": float(n), "test_error": errors / n} | _terms(distinct),
        delta=delta,
        data_used=f"{n} test points",
        assumptions=("test points i.i.d. and not used in training or model choice", *_notes(note)),
    )


@checked
def risk_at_radius(
    records: Run | Sequence[Record],
    radii: Sequence[float],
    delta: float = 0.05,
    *,
    repeated: Sequence[bool] | None = None,
    note: str = "",
) -> list[BoundResult]:
    """Upper bounds on the risk of the smoothed classifier against any attack of size r in the run's norm.

    Given a run: with probability 1 - delta over inputs and noise, risk <= value, whether or not every
    certificate holds. An input counts as right if it was certified at radius >= r with its true class; that
    happens with probability at most P(right everywhere within r) + alpha, so the Clopper-Pearson bound on
    the others plus alpha is a bound on the risk. ``terms["if_certificates_hold"]`` is the bound without
    alpha, which assumes that all certificates of this run are right. Given records alone, whose alpha is not
    known, only that conditional bound is returned, and its name says so. Each radius holds by itself.
    ``repeated`` marks records whose input repeats an earlier one's: the larger of the bounds with and without
    them is given. ``note``: what was found when inputs and training points were compared. Raises
    InvalidInput without true labels.
    """
    if len(records) == 0 or any(getattr(r, "target", None) is None for r in records):
        raise InvalidInput(
            "the risk at a radius needs records with true labels",
            why="the run is empty or was certified without labels",
            remedy="certify a labelled data set",
        )
    settings = records.settings if isinstance(records, Run) else {}
    alpha = error_probability(settings) if "alpha" in settings else None
    norm = f"l{settings.get('norm', '2')}"
    again = None if repeated is None else torch.tensor([bool(r) for r in repeated])
    rows = []
    for r in radii:
        missed = torch.tensor([not (rec.correct and rec.radius >= r) for rec in records])
        counts, distinct = counted(missed, again)
        upper = _upper(counts, distinct, delta)
        value = upper if alpha is None else min(1.0, math.nextafter(upper + alpha, 2.0))
        terms = {"radius": float(r), "not_certified": float(counts[0]), "n": float(counts[1])}
        terms |= _terms(distinct)
        if alpha is not None:
            terms |= {"alpha": alpha, "if_certificates_hold": upper}
        conditional = ", if the certificates hold" if alpha is None else ""
        rows.append(
            BoundResult(
                name=f"risk at {norm} radius {r:g}, Clopper-Pearson{conditional}",
                reference=CLOPPER_PEARSON,
                target=f"risk under any attack of {norm} size {r:g}",
                predictor="smoothed network",
                side="upper",
                validity=GUARANTEED if alpha is not None else f"{GUARANTEED}{conditional}",
                value=value,
                low=0.0,
                high=value,
                terms=terms,
                delta=delta,
                data_used=f"{len(records)} certified inputs",
                assumptions=(
                    "inputs i.i.d., their number fixed beforehand, not used in training or model choice",
                    *_notes(note),
                ),
            )
        )
    return rows


@checked
def measured_gap(
    predict: Predictor,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    delta: float = 0.05,
    *,
    predictor: str = "deterministic network",
    repeated: Tensor | None = None,
) -> MeasuredGap:
    """Test error minus training error of ``predict`` (inputs -> labels), with its interval.

    ``repeated`` (test points,) marks those that repeat another: the interval covers that of the others, too.
    """
    counts, distinct = counted(wrong_points(predict, *test), repeated)
    return gap_from_counts(
        *count_errors(predict, *train), *counts, delta, predictor=predictor, distinct=distinct
    )


def counted(wrong: Tensor, repeated: Tensor | None) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """(mistakes, points) of all points, and of those that repeat no other; None where none repeats."""
    whole = int(wrong.sum()), len(wrong)
    if repeated is None or not bool(repeated.any()):
        return whole, None
    return whole, (int(wrong[~repeated].sum()), int((~repeated).sum()))


def gap_from_counts(
    train_wrong: int,
    n_train: int,
    test_wrong: int,
    n_test: int,
    delta: float = 0.05,
    *,
    predictor: str = "deterministic network",
    distinct: tuple[int, int] | None = None,
) -> MeasuredGap:
    """The measured gap from error counts. ``distinct``: (mistakes, points) of tests without repeats."""
    ends = [binomial_interval(*c, _one_sided(delta)) for c in ((test_wrong, n_test), distinct) if c]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    train_error, test_error = train_wrong / n_train, test_wrong / n_test
    return MeasuredGap(
        test_error - train_error, low - train_error, high - train_error, train_error, test_error,
        low, high, n_train, n_test, delta, predictor,
    )  # fmt: skip


def count_errors(predict: Predictor, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> tuple[int, int]:
    """Mistakes and number of points."""
    return int(wrong_points(predict, x, y, batch_size=batch_size).sum()), len(y)


def wrong_points(predict: Predictor, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> Tensor:
    """(n,) whether the prediction at each point is another than its label."""
    with torch.no_grad():
        parts = zip(x.split(batch_size), y.split(batch_size), strict=True)
        return torch.cat([predict(xs).cpu() != ys.cpu() for xs, ys in parts])


def kl_bernoulli(q: float, p: float) -> float:
    """kl(q | p) between Bernoulli distributions."""
    total = 0.0
    for a, b in ((q, p), (1 - q, 1 - p)):
        if a > 0:
            total += math.inf if b <= 0 else a * math.log(a / b)
    return max(0.0, total)


@checked
def kl_inverse(q: float, budget: float) -> float:
    """The largest p with kl(q | p) <= budget, rounded outward (up). Raises InvalidSetting."""
    if not (0 <= q <= 1 and budget >= 0):
        raise InvalidSetting(
            f"kl_inverse({q!r}, {budget!r}) is undefined",
            why="q is a frequency and the budget is at least 0",
            remedy="check the empirical risk and the complexity term",
        )
    if q == 0.0:
        return min(1.0, -math.expm1(-budget) * (1 + 1e-15))
    low, high = q, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if kl_bernoulli(q, middle) <= budget else (low, middle)
    return high


def _one_sided(delta: float) -> float:
    return check_alpha(delta, name="delta", shares=2)


def _upper(counts: tuple[int, int], distinct: tuple[int, int] | None, delta: float) -> float:
    return max(binomial_upper(*found, _one_sided(delta)) for found in (counts, distinct) if found)


def _terms(distinct: tuple[int, int] | None) -> dict[str, float]:
    return {} if distinct is None else {"distinct_errors": float(distinct[0]), "distinct": float(distinct[1])}


def _notes(note: str) -> tuple[str, ...]:
    return (note,) if note else ()
