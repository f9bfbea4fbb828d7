"""Every bound for one network and one data set, each beside the measured risk of its own predictor."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from analysis.classes import Linear
from analysis.gibbs import Gibbs, perturbation_bounds
from analysis.heldout import (
    MeasuredGap,
    count_errors,
    counted,
    gap_from_counts,
    heldout_bound,
    measured_gap,
    risk_at_radius,
    wrong_points,
)
from analysis.hidden_state import hidden_state
from analysis.network_bounds import norm_bounds
from analysis.pac_bayes_training import fit_posterior
from analysis.rademacher import empirical_rademacher
from analysis.rademacher_bounds import linear_bounds
from analysis.result import BoundResult
from analysis.separation import HeldOut, held_out
from analysis.streams import stream
from certify.calls import checked
from certify.data.dataset import Dataset
from certify.errors import InvalidInput
from certify.inputs import INPUT, input_digest
from certify.records import Record, Run

#: Points that the cheap bounds look at; a data matrix of this size still fits comfortably.
MANY = 10_000


@checked
def all_bounds(
    model: nn.Module,
    train: Dataset,
    test: Dataset | HeldOut | None,
    *,
    delta: float = 0.05,
    run: Run | None = None,
    certified: HeldOut | None = None,
    radii: Sequence[float] = (0.0, 0.25, 0.5),
    weight_radius: float = 1.0,
    prior: Mapping[str, Tensor] | None = None,
    factory: Callable[[], nn.Module] | None = None,
    fresh: nn.Module | None = None,
    limit: int = 1000,
    draws: int = 300,
    seed: int = 0,
) -> list[BoundResult]:
    """Test-set, norm-based and PAC-Bayes bounds on the risk, the risk at each radius, and complexities.

    Gibbs risks and complexities are sampled on the first ``limit`` points only (those bounds are then
    about that many points); the other bounds use up to 10,000. ``prior`` are weights chosen without the
    training data (the initial ones); ``factory`` builds a fresh network of the same architecture and
    adds the bound of a posterior trained on its own bound. ``fresh`` is one such network (made by ``factory``
    where that is given): PAC-Bayes around the trained weights is left out where anything but weights was
    learned (``analysis.hidden_state``), such as running statistics. ``run`` adds the risk at ``radii`` of the
    smoothed network. ``test=None``: nothing was held out, so there is no test-set bound and nothing measured
    beside the others. Test rows and certified inputs that occur among the training rows, or nearly do, bound
    no risk and are left out (``analysis.held_out``); those that repeat another make a bound no smaller. Where
    ``train`` is a part of what was trained on, pass ``test`` and ``certified`` (the run's inputs) as
    ``held_out`` of the whole; without ``certified`` the run's inputs are compared by their hashes.
    ``weight_radius`` is the l1 radius of the linear class whose complexity is reported beside the printed and
    corrected covering bounds. Each bound holds with probability 1 - delta by itself; ``terms`` holds the
    measured risk of the same predictor (``measured_risk``, ``measured_low``, ``measured_high``) wherever it
    was measured.

    Raises InvalidInput if nothing of ``test`` was held out: points that were trained on bound no risk.
    """
    kept = None if test is None else _kept(train, test)
    model = _on_cpu(model)
    x, y = _points(train, limit)
    held = None if kept is None else _points(_once(kept), limit)
    many = _points(train, MANY)
    generator = stream(seed, "bounds")

    def predict(z: Tensor) -> Tensor:
        return model(z).argmax(1)

    gap, rows = None, []
    if kept is not None:
        counts, distinct = counted(wrong_points(predict, *_points(kept.data, MANY)), kept.repeated[:MANY])
        gap = gap_from_counts(*count_errors(predict, *many), *counts, delta, distinct=distinct)
        rows = [heldout_bound(*counts, delta, distinct=distinct, note=kept.says())]
    rows += norm_bounds(model, *many, delta, num_classes=train.num_classes)
    rows = [_measured(row, gap) for row in rows]
    if fresh is None and factory is not None:
        fresh = _built(factory, seed)
    if any(True for _ in model.parameters()) and not hidden_state(model, fresh).learned:
        priors: list[tuple[str, Mapping[str, Tensor] | None]] = [("zero weights", None)]
        priors += [] if prior is None else [("initial weights", prior)]
        for name, weights in priors:
            found, gibbs = perturbation_bounds(
                model,
                x,
                y,
                delta,
                prior=weights,
                prior_name=name,
                fresh=fresh,
                draws=draws,
                generator=generator,
            )
            rows += _gibbs_rows(found, gibbs, held, delta, generator)
    if factory is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            posterior = fit_posterior(factory, x, y, delta, draws=draws, generator=generator)
        rows += _gibbs_rows(list(posterior.bounds), posterior.gibbs, held, delta, generator)
    if run is not None:
        records, repeated, note = _held_records(run, train, certified)
        if records and all(r.target is not None for r in records):
            held_run = Run(records, run.settings, run.guarantee)
            rows += risk_at_radius(held_run, radii, delta, repeated=repeated, note=note)
    rows += complexity_rows(x, weight_radius, draws=draws, delta=delta, generator=generator)
    return rows


def complexity_rows(
    x: Tensor, weight_radius: float, *, draws: int, delta: float, generator: torch.Generator
) -> list[BoundResult]:
    """R_S of the l1 linear class on the points, and every bound on it, the printed one included."""
    cls = Linear(norm=1, radius=weight_radius)
    estimate = empirical_rademacher(cls, x, draws=draws, delta=delta, generator=generator)
    return [estimate, *linear_bounds(cls, x)]


@checked
def deterministic_gap(
    model: nn.Module, train: Dataset, test: Dataset | HeldOut, delta: float = 0.05
) -> MeasuredGap:
    """The measured gap of the network itself on whole data sets, without test rows that were trained on.

    Raises InvalidInput if nothing of ``test`` was held out.
    """
    kept, local = _kept(train, test), _on_cpu(model)
    points = kept.data.x, kept.data.y
    return measured_gap(
        lambda z: local(z).argmax(1), (train.x, train.y), points, delta, repeated=kept.repeated
    )


@checked
def bounds_document(rows: Sequence[BoundResult], gap: MeasuredGap | None) -> dict[str, Any]:
    """What the run store keeps under the name ``bounds``; without a test set there is no gap."""
    document: dict[str, Any] = {"results": [row.to_json() for row in rows]}
    return document if gap is None else document | {"measured_gap": gap.to_json()}


def _kept(train: Dataset, test: Dataset | HeldOut) -> HeldOut:
    """The held-out rows of ``test``. Raises InvalidInput where there are none."""
    found = test if isinstance(test, HeldOut) else held_out(train, test)
    if not len(found):
        raise InvalidInput(
            "the test points are the training points",
            why=f"{found.says()}; points that were trained on bound no risk",
            remedy="give points that were held out, or test=None for the bounds that need none",
        )
    return found


def _once(kept: HeldOut) -> Dataset:
    """The held-out rows without repeats."""
    rows = (~kept.repeated).nonzero().squeeze(1)
    return replace(kept.data, x=kept.data.x[rows], y=kept.data.y[rows], ids=kept.data.ids[rows])


def _held_records(
    run: Run, train: Dataset, certified: HeldOut | None
) -> tuple[list[Record], list[bool], str]:
    """The records of inputs that were held out, whether each repeats another, and what was found.

    Without ``certified`` inputs are compared by the hashes in the records, equal ones only.
    """
    if certified is not None:
        again = dict(zip(certified.data.ids.tolist(), certified.repeated.tolist(), strict=True))
        records = [r for r in run if r.index in again]
        return records, [again[r.index] for r in records], certified.says()
    trained = {input_digest(row) for row in train.x}
    records = [r for r in run if r.details.get(INPUT) not in trained]
    first: dict[str, int] = {}
    repeats = [first.setdefault(r.details.get(INPUT) or str(r.index), r.index) != r.index for r in records]
    unnamed = sum(INPUT not in r.details for r in records)
    notes = [f"{len(run) - len(records)} of {len(run)} inputs occur among the training rows and are left out"]
    notes = notes if len(records) < len(run) else []
    notes += [f"{sum(repeats)} of {len(records)} inputs repeat another"] if any(repeats) else []
    notes += [f"{unnamed} inputs could not be compared with the training rows"] if unnamed else []
    return records, repeats, "; ".join(notes)


def _built(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """An untrained network; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory()


def _on_cpu(model: nn.Module) -> nn.Module:
    """The network itself, or a copy where it lives on another device: bounds are computed on the CPU."""
    weight = next(model.parameters(), None)
    return model if weight is None or weight.device.type == "cpu" else copy.deepcopy(model).cpu()


def _points(data: Dataset, limit: int) -> tuple[Tensor, Tensor]:
    return data.x[:limit].cpu(), data.y[:limit].cpu()


def _measured(row: BoundResult, gap: MeasuredGap | None) -> BoundResult:
    if gap is None:
        return row
    return _with(row, gap.test_error, gap.test_low, gap.test_high, gap.train_error)


def _gibbs_rows(
    rows: list[BoundResult],
    gibbs: Gibbs,
    held: tuple[Tensor, Tensor] | None,
    delta: float,
    generator: torch.Generator,
) -> list[BoundResult]:
    if held is None:
        return rows
    start = time.perf_counter()
    wrong, low, high = gibbs.risk_interval(*held, delta=delta, generator=generator)
    seconds = time.perf_counter() - start
    return [
        replace(
            _with(row, wrong / len(held[1]), low, high, row.terms["empirical_gibbs_risk"]), seconds=seconds
        )
        for row in rows
    ]


def _with(row: BoundResult, risk: float, low: float, high: float, train: float) -> BoundResult:
    measured = {"measured_risk": risk, "measured_low": low, "measured_high": high, "train_risk": train}
    return replace(row, terms={**row.terms, **measured})
