"""Count the votes that statements about a population rest on, in a run directory that resumes and merges."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from certify.audits import AUDIT, POPULATION_ROWS, audited
from certify.errors import InvalidInput, InvalidSetting
from certify.geometry import GaussianBall, make_geometry
from certify.guarantees import of_population
from certify.identity import with_callers
from certify.inputs import INPUT, Rows
from certify.population.plan import TASK, Plan, make_plan
from certify.population.statements import MOST_REPEATS, conclude
from certify.records import Record, Run, Status
from certify.sampling.audit import still_the_same
from certify.sampling.engine import BATCHES_PER_ROUND, Request, Sampler
from certify.seeds import settled
from certify.smoothing import Smoothed
from certify.store import open_run


def count_population(
    smoothed: Smoothed,
    x: Any,
    y: Any = None,
    *,
    radii: Sequence[float],
    store: str | os.PathLike[str],
    samples: int | None = None,
    inputs: int | None = None,
    confidence: float = 0.999,
    pilot: float | None = None,
    about: str = "population",
    one_pass: bool = False,
    shift: float | None = None,
    seed: int | None = None,
    part: tuple[int, int] = (1, 1),
    settings: Mapping[str, Any] | None = None,
    on_samples: Callable[[int, int], None] | None = None,
    engine: Callable[[Sampler], AbstractContextManager[Any]] = nullcontext,
) -> Run:
    """Classify noisy copies of a random sample of a split and state what they prove about its population.

    ``x``, ``y``: the whole split with labels, as ``Smoothed.certify`` takes them; input i has the id i.
    ``radii``: l2 sizes to state. ``samples``: copies of each input (25; 1 with ``one_pass``). ``inputs``: how
    many of the split are drawn, by the seed (default: all). ``pilot``: the share of them that
    chooses the rules and is not counted (0.1; none for one copy). ``about``: "population", or "set" for a
    statement about the split itself. ``one_pass``: state the accuracy of the one-copy classifier, too;
    ``shift``: after a shift of that mean size. ``store``: the run directory; counts that are there are not
    drawn again.
    ``part``: (i, n) counts every n-th input from the i-th on, for ``certify.store.merge``. ``on_samples``
    is told how many inputs and samples were added. ``seed`` as in ``Smoothed.certify``: it draws the inputs,
    the pilot and the noise. All else is fixed for the run: another value is another run.

    The statements are in the run's document "population" once all inputs are there
    (``certify.population.statements.state``). Raises InvalidSetting, InvalidInput, RunConflict.
    """
    x, y, ids = smoothed._checked(x, y, None)
    key = settled(seed, store)
    if y is None or ids != list(range(len(x))):
        raise InvalidInput(
            "these inputs cannot be a sample of a population",
            why="labels are needed, and ids that number a whole split from 0",
            remedy="pass the whole split with its labels; inputs=M draws a random part of it",
        )
    plan = make_plan(
        radii, sigma=_sigma(smoothed, x[0].numel()), tv=smoothed.noise.tv(x[0].numel()), of=len(x),
        samples=samples, inputs=inputs, confidence=confidence, pilot=pilot, about=about, one_pass=one_pass,
        shift=shift,
    )  # fmt: skip
    order, rows = plan.order(key.value), Rows.of(ids, x, y)
    _refuse_repeats(rows, order)
    for id in order:
        smoothed.noise.prepare(x[id])
    procedure: Any = plan
    described = smoothed.settings(x, procedure=procedure, alpha=plan.alpha, mode=TASK, seed=key)
    described |= {"task": TASK, AUDIT: {"rows": POPULATION_ROWS, "samples_per_row": 0}}
    described = with_callers(described, rows.described(settings))
    guarantee = of_population(smoothed, plan, key)
    mine = order[part[0] - 1 :: part[1]]
    sampler = smoothed._sampler(x[order], seed=key.value, purpose=TASK, procedure=procedure)
    with engine(sampler) as sampler, open_run(store, described, guarantee, rows=rows) as opened:
        todo = [(id, x[id], int(y[id]), rows.inputs[id]) for id in mine if not opened.has(id)]
        for records in _counted(sampler, smoothed, plan, todo):
            opened.add_all(records)
            if on_samples is not None:
                on_samples(len(records), sum(r.samples for r in records))
        smoothed._kept.refuse()
        return conclude(opened)


def _counted(
    sampler: Any, smoothed: Smoothed, plan: Plan, todo: Sequence[tuple[int, Tensor, int, str]]
) -> Iterator[list[Record]]:
    """Records of one round of the engine after the other: (id, input, label, hash) of each in ``todo``."""
    size, audit = max(1, BATCHES_PER_ROUND * sampler.batch_size // plan.n), sampler.audit
    for start in range(0, len(todo), size):
        some, began = todo[start : start + size], time.perf_counter()
        requests = [
            Request(id, smoothed._prepared(row), 0, plan.n, audit.candidates(id, 0, plan.n))
            for id, row, _, _ in some
        ]
        drawn = sampler.draw(requests)
        smoothed._kept.watch()
        records = []
        for request, votes, kept, (_, _, target, digest) in zip(
            requests, drawn.counts, drawn.kept, some, strict=True
        ):
            alone = partial(sampler.alone, request)
            found = {} if _lost(votes) else audit.run(
                request.id, kept, votes, plan.n, alone, least=POPULATION_ROWS
            )  # fmt: skip
            records.append(audited(_record(request.id, target, votes, plan.n, digest), found))
        still_the_same(audit.classifier, audit.anchors, start)
        smoothed._kept.watch()
        seconds = (time.perf_counter() - began) / len(some)
        yield [replace(record, seconds=seconds) for record in records]


def _lost(votes: np.ndarray) -> bool:
    """Whether the workers that drew an input's copies died on every attempt."""
    return bool((votes < 0).any())


def _record(id: int, target: int, votes: np.ndarray, n: int, digest: str) -> Record:
    if _lost(votes):
        details = {"reason": "the workers that sampled it died on every attempt", INPUT: digest}
        return Record(id, Status.FAILED, target=target, details=details)
    kept = tuple(int(v) for v in votes[:-1])
    return Record(id, Status.COUNTED, target=target, samples=n, counts=kept, details={INPUT: digest})


def _sigma(smoothed: Smoothed, dim: int) -> float:
    """sigma of the l2 ball that the noise proves; InvalidSetting for noise and norms without that theorem."""
    geometry = make_geometry(smoothed.noise, norm=smoothed.norm, dim=dim)
    if (
        smoothed.noise.name not in ("lattice", "gaussian")
        or not isinstance(geometry, GaussianBall)
        or geometry.p != 2
    ):
        raise InvalidSetting(
            f"nothing is stated about a population under {smoothed.noise.name} noise in norm {smoothed.norm}",
            why="the theorems used are those of isotropic Gaussian noise and l2 balls",
            remedy="use --noise lattice (the default) or --noise gaussian, and norm 2",
        )
    return geometry.sigma


def _refuse_repeats(rows: Rows, order: Sequence[int]) -> None:
    """Raise InvalidInput where so many of the inputs drawn repeat others that they are no sample."""
    repeats = len(order) - len({rows.inputs[id] for id in order})
    if repeats > MOST_REPEATS * len(order):
        raise InvalidInput(
            f"{repeats} of {len(order)} inputs repeat others",
            why="independent draws from a population do not repeat like this: an input that was copied "
            "counts more than it weighs in the population",
            remedy="leave the copies out, and count the different inputs",
        )
