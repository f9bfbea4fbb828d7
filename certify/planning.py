"""What a full run will cost, from a pilot: samples, hours, workers, before they are paid for.

The pilot's class counts give each input a posterior for its class probabilities (Dirichlet with
Perks' prior, 1/K per class). Probabilities are drawn from it and the procedure itself is run on
them, so every mode is forecast by what it would really do. A forecast, not a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.calls import checked
from certify.errors import InvalidCounts, InvalidSetting
from certify.procedures.outcome import Procedure
from certify.records import Estimate, Status
from certify.sequential.boundaries import whole

#: Resamplings of the pilot inputs behind an interval.
_RESAMPLES = 1_000


@dataclass(frozen=True)
class Forecast:
    """The cost of a full run of ``inputs`` inputs.

    ``samples_per_input`` carries the interval of the mean over inputs like the pilot's (the
    pilot's size is its main source of uncertainty). ``certified`` is the expected share of inputs
    that end with a certificate.
    """

    mode: str
    inputs: int
    pilot_inputs: int
    pilot_samples: int
    samples_per_input: Estimate
    certified: float

    @property
    def samples(self) -> float:
        """Expected samples of the whole run."""
        return self.inputs * self.samples_per_input.value

    def hours(self, samples_per_second: float, workers: int = 1) -> Estimate:
        """Wall time in hours with ``workers`` workers that each draw this many samples a second."""
        speed = _positive(samples_per_second, "samples_per_second") * whole(workers, "workers") * 3600
        per = self.samples_per_input
        value, low, high = (self.inputs * v / speed for v in (per.value, per.low, per.high))
        return Estimate(value, low, high, per.level, "pilot bootstrap")

    def workers(self, samples_per_second: float, hours: float) -> int:
        """Workers that finish within ``hours`` at the upper end of the forecast."""
        single = self.hours(samples_per_second).high
        return max(1, math.ceil(single / _positive(hours, "hours")))


@checked
def forecast(
    pilot: np.ndarray | Sequence[Any],
    procedure: Procedure,
    *,
    inputs: int,
    generator: np.random.Generator,
    draws: int = 4,
    level: float = 0.95,
) -> Forecast:
    """Forecast ``procedure`` on ``inputs`` inputs from the class counts of a pilot.

    ``pilot`` is (m, K): class counts of m inputs drawn like the run's. Raises InvalidCounts for
    counts that are none, and InvalidSetting for a procedure on soft scores, whose cost is not
    determined by class counts.
    """
    counts = _checked(pilot)
    if procedure.statistic != "counts":
        raise InvalidSetting(
            f"{procedure.name} scores cannot be forecast from class counts",
            why="their stopping depends on the scores, not on the votes",
            remedy="plan with votes, or with mode fixed, whose cost is n0 + n per input",
        )
    whole(inputs, "inputs")
    ends = np.empty((len(counts), whole(draws, "draws")))
    certified = 0
    for i, row in enumerate(counts):
        for d in range(draws):
            ends[i, d], proved = _simulate(procedure, generator.dirichlet(row + 1 / len(row)), generator)
            certified += proved
    low, high = _bootstrap(ends, level, generator)
    return Forecast(
        mode=procedure.name,
        inputs=int(inputs),
        pilot_inputs=len(counts),
        pilot_samples=int(counts[0].sum()),
        samples_per_input=Estimate(float(ends.mean()), low, high, level, "pilot bootstrap"),
        certified=certified / ends.size,
    )


def _simulate(procedure: Procedure, p: np.ndarray, generator: np.random.Generator) -> tuple[int, bool]:
    progress, counts, n = procedure.start(), np.zeros(len(p), dtype=np.int64), 0
    while (wanted := progress.wanted()) is not None:
        counts = counts + generator.multinomial(wanted - n, p)
        n = wanted
        progress.look(counts)
    return n, progress.outcome().status is Status.CERTIFIED


def _bootstrap(ends: np.ndarray, level: float, generator: np.random.Generator) -> tuple[float, float]:
    m, draws = ends.shape
    rows = generator.integers(m, size=(_RESAMPLES, m))
    columns = generator.integers(draws, size=(_RESAMPLES, m))
    means = ends[rows, columns].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(pilot: np.ndarray | Sequence[Any]) -> np.ndarray:
    counts = np.asarray(pilot)
    good = counts.ndim == 2 and counts.size > 0 and counts.shape[1] > 1 and counts.dtype.kind in "iu"
    if not good or counts.min() < 0 or np.any(counts.sum(axis=1) < 1):
        raise InvalidCounts(
            f"a pilot of shape {counts.shape} cannot be used",
            why="it takes whole class counts (inputs, classes), at least one sample per input",
            remedy="sample each pilot input about 1,000 times and pass its class counts",
        )
    return counts.astype(np.int64)


def _positive(value: float, name: str) -> float:
    if math.isfinite(value) and value > 0:
        return float(value)
    raise InvalidSetting(
        f"{name} = {value!r} is not a rate or a time",
        why="it must be finite and positive",
        remedy=f"measure it, for example with a short run; {name} must be > 0",
    )
