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
from analysis.heldout import MeasuredGap, heldout_bound, measured_gap, risk_at_radius
from analysis.network_bounds import norm_bounds
from analysis.pac_bayes_training import fit_posterior
from analysis.rademacher import empirical_rademacher
from analysis.rademacher_bounds import linear_bounds
from analysis.result import BoundResult
from certify.data.dataset import Dataset
from certify.errors import InvalidInput
from certify.records import Run

#: Points that the cheap bounds look at; a data matrix of this size still fits comfortably.
MANY = 10_000


def all_bounds(
    model: nn.Module,
    train: Dataset,
    test: Dataset | None,
    *,
    delta: float = 0.05,
    run: Run | None = None,
    radii: Sequence[float] = (0.0, 0.25, 0.5),
    weight_radius: float = 1.0,
    prior: Mapping[str, Tensor] | None = None,
    factory: Callable[[], nn.Module] | None = None,
    limit: int = 1000,
    draws: int = 300,
    seed: int = 0,
) -> list[BoundResult]:
    """Test-set, norm-based and PAC-Bayes bounds on the risk, the risk at each radius, and complexities.

    Gibbs risks and complexities are sampled on the first ``limit`` points only (those bounds are then
    about that many points); the other bounds use up to 10,000. ``prior`` are weights chosen without the
    training data (the initial ones); ``factory`` builds a fresh network of the same architecture and
    adds the bound of a posterior trained on its own bound. ``run`` adds the risk at ``radii`` of the
    smoothed network; its inputs must not be training points either. ``test=None``: nothing was held out,
    so there is no test-set bound and nothing measured beside the others. ``weight_radius`` is the l1
    radius of the linear class whose complexity is reported beside the printed and corrected covering
    bounds. Each bound holds with probability 1 - delta by itself; ``terms`` holds the measured risk of
    the same predictor (``measured_risk``, ``measured_low``, ``measured_high``) wherever it was measured.

    Raises InvalidInput if ``test`` is ``train`` over again: points that were trained on bound no risk.
    """
    _refuse_training_points(train, test)
    model = _on_cpu(model)
    x, y = _points(train, limit)
    held = None if test is None else _points(test, limit)
    many = _points(train, MANY)
    generator = torch.Generator().manual_seed(seed)

    def predict(z: Tensor) -> Tensor:
        return model(z).argmax(1)

    gap = None if test is None else measured_gap(predict, many, _points(test, MANY), delta)
    rows = [] if gap is None else [heldout_bound(round(gap.test_error * gap.n_test), gap.n_test, delta)]
    rows += norm_bounds(model, *many, delta, num_classes=train.num_classes)
    rows = [_measured(row, gap) for row in rows]
    if any(True for _ in model.parameters()):
        priors: list[tuple[str, Mapping[str, Tensor] | None]] = [("zero weights", None)]
        priors += [] if prior is None else [("initial weights", prior)]
        for name, weights in priors:
            found, gibbs = perturbation_bounds(
                model, x, y, delta, prior=weights, prior_name=name, draws=draws, generator=generator
            )
            rows += _gibbs_rows(found, gibbs, held, delta, generator)
    if factory is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            posterior = fit_posterior(factory, x, y, delta, draws=draws, generator=generator)
        rows += _gibbs_rows(list(posterior.bounds), posterior.gibbs, held, delta, generator)
    if run is not None and len(run) and all(r.target is not None for r in run):
        rows += risk_at_radius(run.records, radii, delta)
    rows += complexity_rows(x, weight_radius, draws=draws, delta=delta, generator=generator)
    return rows


def complexity_rows(
    x: Tensor, weight_radius: float, *, draws: int, delta: float, generator: torch.Generator
) -> list[BoundResult]:
    """R_S of the l1 linear class on the points, and every bound on it, the printed one included."""
    cls = Linear(norm=1, radius=weight_radius)
    estimate = empirical_rademacher(cls, x, draws=draws, delta=delta, generator=generator)
    return [estimate, *linear_bounds(cls, x)]


def same_points(train: Dataset, test: Dataset) -> bool:
    """Whether ``test`` is ``train`` over again: the inputs of all ids that both have are equal.

    A file is one split under every name, so that both can be the same points.
    """
    here = {int(id): row for row, id in enumerate(train.ids)}
    both = [(here[int(id)], row) for row, id in enumerate(test.ids) if int(id) in here]
    if not both:
        return False
    a, b = (list(rows) for rows in zip(*both, strict=True))
    return torch.equal(train.x[a].cpu(), test.x[b].cpu())


def deterministic_gap(model: nn.Module, train: Dataset, test: Dataset, delta: float = 0.05) -> MeasuredGap:
    """The measured gap of the network itself on whole data sets.

    Raises InvalidInput if ``test`` is ``train`` over again.
    """
    _refuse_training_points(train, test)
    local = _on_cpu(model)
    return measured_gap(lambda z: local(z).argmax(1), (train.x, train.y), (test.x, test.y), delta)


def bounds_document(rows: Sequence[BoundResult], gap: MeasuredGap | None) -> dict[str, Any]:
    """What the run store keeps under the name ``bounds``; without a test set there is no gap."""
    document: dict[str, Any] = {"results": [row.to_json() for row in rows]}
    return document if gap is None else document | {"measured_gap": gap.to_json()}


def _refuse_training_points(train: Dataset, test: Dataset | None) -> None:
    if test is not None and same_points(train, test):
        raise InvalidInput(
            "the test points are the training points",
            why=f"{test.name!r} gives the same inputs for both; points that were trained on bound no risk",
            remedy="give points that were held out, or test=None for the bounds that need none",
        )


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
