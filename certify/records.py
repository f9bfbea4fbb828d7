"""What a certification leaves behind: one frozen record per input, and the run.

Records are the only currency between floors: attacks, analysis and reports read
them and never recompute a certificate. No torch is needed to read a record.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from certify.calls import checked
from certify.chances import error_probability
from certify.errors import InvalidSetting

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pandas
    from matplotlib.axes import Axes


class Status(enum.StrEnum):
    """Outcome for one input, in the words of ISO/IEC 24029: proof, inconclusive, or error.

    A *counted* input has no certificate of its own: its votes are part of a statement about a population.
    """

    CERTIFIED = "certified"
    ABSTAINED = "abstained"
    FAILED = "failed"
    COUNTED = "counted"


@dataclass(frozen=True)
class Record:
    """The certificate (or abstention) of one input.

    ``label`` is the class the smoothed classifier was proved to return, ``target``
    the true class where it is known. ``radius`` is the certificate: the lower end,
    at level alpha, rounded down. ``radius_upper`` describes the Monte Carlo
    uncertainty and is never a certificate. ``p_lower``/``p_upper`` bound the
    probability of the leading class A, ``pb_lower``/``pb_upper`` that of the
    runner-up. ``counts`` are the class counts the bounds rest on (selection samples
    excluded); ``samples`` is everything that was paid for.
    """

    index: int
    status: Status
    label: int | None = None
    target: int | None = None
    radius: float = 0.0
    radius_upper: float = 0.0
    p_lower: float = 0.0
    p_upper: float = 1.0
    pb_lower: float = 0.0
    pb_upper: float = 1.0
    samples: int = 0
    counts: tuple[int, ...] = ()
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def certified(self) -> bool:
        """Whether a class was proved; its radius may be zero."""
        return self.status is Status.CERTIFIED

    @property
    def correct(self) -> bool | None:
        """Whether the certified label is the true one; None without a true label."""
        return None if self.target is None else self.certified and self.label == self.target

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in field order; the inverse of ``from_json``."""
        row = asdict(self)
        row["status"] = str(self.status)
        row["counts"] = list(self.counts)
        row["details"] = dict(self.details)
        if math.isinf(self.radius_upper):  # p_upper = 1 bounds nothing, and JSON has no infinity
            row["radius_upper"] = None
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Record:
        """The record that ``to_json`` wrote; unknown keys are left out."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in row.items() if k in known}
        values["status"] = Status(values["status"])
        values["counts"] = tuple(values.get("counts", ()))
        if values.get("radius_upper", 0.0) is None:
            values["radius_upper"] = math.inf
        return cls(**values)


#: Fields that measure the clock rather than the classifier: the only ones that may
#: differ between two runs of the same settings.
TIME_FIELDS = ("seconds",)


@dataclass(frozen=True)
class Estimate:
    """A proportion or mean with its confidence interval. ``at`` is the radius it belongs to.

    Of a certified accuracy ``robust_low`` is a lower bound, at the same level, on the share that is right at
    every point within the radius: the interval's lower end less the error probability of one certificate.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    at: float | None = None
    robust_low: float | None = None


class Run(Sequence[Record]):
    """The records of one certification, in input order, with the settings that made them."""

    def __init__(
        self,
        records: Sequence[Record],
        settings: Mapping[str, Any],
        guarantee: str,
        *,
        documents: Mapping[str, Any] | None = None,
    ) -> None:
        self.records = tuple(records)
        self.settings = dict(settings)
        self.guarantee = guarantee
        #: What was declared before the first sample (boundaries of sequential tests), by name.
        self.documents = dict(documents or {})

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key):  # Sequence's overloads add nothing for a reader
        return self.records[key]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        count = {s: sum(r.status is s for r in self.records) for s in Status}
        parts = ", ".join(f"{n} {s}" for s, n in count.items() if n)
        return f"<Run of {len(self)} inputs: {parts or 'empty'}>"

    def accuracy(self, at: Sequence[float] = (0.0,), *, level: float = 0.95) -> list[Estimate]:
        """Certified accuracy at each radius, as an estimate for the population.

        The share of inputs that are correct and certified at radius >= r. ``low`` and ``high`` are
        its Clopper-Pearson interval: with probability ``level`` over inputs and noise, another such input is
        certified with its true class at r with a probability in it. ``robust_low`` = low - alpha bounds
        the share of inputs that the smoothed classifier gets right at *every* point within r, whether or not
        all certificates hold (None where the run names no alpha, or comes from another tool's log). Failed
        inputs count as not certified. Raises InvalidSetting without true labels.
        """
        from certify.bounds import binomial_interval
        from certify.population.statements import refuse_population

        refuse_population(self.settings, "there is no certified accuracy")
        if not self.records or any(r.target is None for r in self.records):
            raise InvalidSetting(
                "certified accuracy cannot be computed",
                why="the run has no inputs, or some have no true label",
                remedy="pass y to Smoothed.certify, or certify a data set with labels",
            )
        n = len(self.records)
        out = []
        for r in at:
            if not (math.isfinite(r) and r >= 0):
                raise InvalidSetting(
                    f"radius {r!r} is not a radius",
                    why="it must be finite and >= 0",
                    remedy="give radii such as 0, 0.25, 0.5",
                )
            k = sum(bool(rec.correct) and rec.radius >= r for rec in self.records)
            low, high = binomial_interval(k, n, 1 - level)
            robust = robust_low(low, self.settings)
            out.append(Estimate(k / n, low, high, level, "clopper-pearson", at=float(r), robust_low=robust))
        return out

    def mean_radius(self) -> float:
        """Average certified radius over all inputs: zero where wrong, abstained or failed."""
        if not self.records:
            return 0.0
        wins = [r.radius if r.correct is not False and r.certified else 0.0 for r in self.records]
        return math.fsum(wins) / len(self.records)

    def one_sided(self) -> list[float]:
        """Radii with p_B := 1 - p_A, as published tables have them, in input order; 0 where there is none.

        Where a run bounds the runner-up (``certify.runner_up``) each holds beside the larger ``radius``, and
        may be 0 for a certified input. In every other run these are the certificates themselves.
        """
        return [float(r.details.get("one_sided", r.radius)) if r.certified else 0.0 for r in self.records]

    def simultaneous(self, *, inputs: int | None = None) -> list[float]:
        """Radii that hold for all inputs together at the run's alpha: see ``certify.simultaneous``."""
        from certify.simultaneous import simultaneous

        return simultaneous(self, inputs=inputs)

    def frame(self) -> pandas.DataFrame:
        """One row per input as a pandas DataFrame (counts and details left out)."""
        import pandas as pd

        rows = []
        for rec in self.records:
            row = rec.to_json() | {"radius_upper": rec.radius_upper, "correct": rec.correct}
            del row["counts"], row["details"]
            rows.append(row)
        return pd.DataFrame(rows)

    @checked
    def plot(self, ax: Any = None, *, label: str | None = None, level: float = 0.95, **style: Any) -> Axes:
        """Certified accuracy against the radius, with its pointwise interval, on matplotlib axes.

        ``ax``: axes to draw on; None makes a figure. ``label``: the curve's name in a legend. ``level``: of
        the Clopper-Pearson interval over inputs, one radius at a time. ``style``: as for matplotlib's
        lines. Without true labels the certified share is drawn, without an interval. Returns the axes.
        Raises MissingExtra where matplotlib is not installed.
        """
        from certify.drawing import curve

        return curve(self, ax, label=label, level=level, **style)

    def _repr_html_(self) -> str:
        """The run as a notebook shows it."""
        from certify.drawing import as_html

        return as_html(self)

    @checked
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run as a run directory, which every command reads; returns it.

        Nothing is certified again. Raises RunConflict where ``path`` holds another run, InvalidSetting
        where the boundaries of its sequential tests are not at hand (a run read from a directory: copy that).
        """
        from certify.store.keeping import keep

        return keep(self, path)

    @checked
    def report(self, path: str | os.PathLike[str]) -> Any:
        """Save the run in ``path``, and write its report there: page, LaTeX table, card, badge, plots.

        Returns what ``reports.build`` returns. Raises as ``save``, and MissingExtra where no package that
        writes reports is installed.
        """
        from certify.registry import reporter

        return reporter()(self.save(path))

    def contradictions(self, broken: Any) -> list[Any]:
        """Confirmed attacks that lie inside a certified ball, in the run's norm; must be empty.

        ``broken`` iterates attack outcomes (``attacks.AttackOutcome``). Only those against the
        smoothed classifier count: one that was broken, or one that was shown to have another class
        at the input itself. Raises InvalidSetting where none of the outcomes is about an input of
        this run (other ids), and where the run certified soft scores, which votes do not contradict.
        """
        outcomes = [o for o in broken if o.smoothed]
        if outcomes and self.settings.get("task") == "segmentation":
            raise InvalidSetting(
                "attacks on one class per input cannot contradict a segmentation run",
                why="its records certify pixels and name no class for a whole image",
                remedy="compare the classes of single pixels: certify.dense.run.SegmentationRun",
            )
        known = {r.index: r for r in self.records}
        if outcomes and not any(o.index in known for o in outcomes):
            raise InvalidSetting(
                "the attacks are about other inputs than the run",
                why=f"the run has ids like {next(iter(known), None)}, the attacks like {outcomes[0].index}",
                remedy="pass the same ids to certify and to attack",
            )
        if outcomes and self.settings.get("scores", "votes") != "votes":
            raise InvalidSetting(
                "votes cannot contradict a certificate about mean scores",
                why="the attacks were confirmed by counting votes, the run certified averaged scores",
                remedy="certify with scores='votes' to set attacks beside certificates",
            )
        norm = str(self.settings.get("norm", "2"))
        return [o for o in outcomes if _contradicts(o, known.get(o.index), norm)]


def robust_low(low: float, settings: Mapping[str, Any]) -> float | None:
    """A lower bound on certified accuracy, less the error probability of one certificate; rounded down.

    P(certified and right) <= P(right everywhere within the radius) + alpha, for every input.
    """
    if "alpha" not in settings or "imported" in settings:
        return None
    return max(0.0, math.nextafter(low - error_probability(settings), -1.0))


@checked
def median_distance(found: Iterable[tuple[str, float | None]]) -> float | None:
    """Median distance of the confirmed adversarial inputs; None where there is none.

    ``found``: status and distance of each attack outcome. Only "broken" ones count; of an even
    number the mean of the two middle distances. Inputs that were not broken have no distance, so
    where some survived this is no median over all inputs.
    """
    distances = [distance for status, distance in found if status == "broken" and distance is not None]
    return statistics.median(distances) if distances else None


def _contradicts(outcome: Any, record: Record | None, norm: str) -> bool:
    if record is None or not record.certified:
        return False
    if str(outcome.status) == "clean_error":
        found = outcome.details.get("label")
        return found is not None and found != record.label
    if str(outcome.status) != "broken" or outcome.prediction == record.label:
        return False
    if str(getattr(outcome, "norm", norm)) == norm:
        distance = outcome.distance
    else:
        distance = {"2": outcome.distance_l2, "inf": outcome.distance_linf}.get(norm)
    return distance is not None and distance <= record.radius
