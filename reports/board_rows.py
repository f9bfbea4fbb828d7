"""The board: one row per run or published log, sorted as one likes, with what each is worth.

Certified accuracies at common radii, mean radii, costs and how far each was verified; the best of several
noise levels with the price of choosing after looking; paired tests between rows on the same inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from certify.bounds import binomial_lower
from certify.errors import InvalidSetting
from certify.records import Estimate
from reports.comparison import Pair, obstacle, proved
from reports.evidence import LEVEL, Evidence
from reports.paired import difference, holm

#: Names that end in a noise level: one method at several.
_LEVEL = re.compile(r"^(?P<family>.*?)[-_ ]*(?:sigma|s)?[-_ ]?(?P<sigma>\d*\.\d+|\d+)$", re.IGNORECASE)
#: Data sets that a log's name may begin with.
_DATA = ("mnist", "fashion-mnist", "cifar100", "cifar10", "svhn", "imagenet", "digits")
#: Radii of the columns, in units of the smallest step that shows a curve, and how many at most.
_STEPS, _MOST = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0), 9


@dataclass(frozen=True)
class Entry:
    """One row: what was certified, how, and how far it was checked.

    ``verified``: in words ("level 2 holds", "claimed by its log"); ``good`` whether its claims held so far as
    anybody could look (None: nobody could). ``report``: where its page lies, relative to the board.
    """

    evidence: Evidence
    data: str
    method: str
    samples: float
    verified: str
    good: bool | None
    report: str | None = None

    @property
    def name(self) -> str:
        return self.evidence.name

    @property
    def family(self) -> str:
        """The name without its noise level: what rows of one envelope share."""
        found = _LEVEL.match(self.name)
        return found["family"] if found and found["family"] else self.name

    def accuracy(self, radii: Sequence[float]) -> list[Estimate]:
        return self.evidence.certified_accuracy(radii)


@dataclass(frozen=True)
class Best:
    """The largest certified accuracy at one radius among k rows of a family.

    ``low``: its lower end at the level of one row; ``corrected``: at a level divided by k, which holds
    although the row was chosen after looking. ``alpha``: what the certificates of one input may be wrong
    with in all k runs.
    """

    radius: float
    name: str
    value: float
    low: float
    corrected: float


@dataclass(frozen=True)
class Envelope:
    """One family at several noise levels on the same inputs: the best row at each radius, and its price."""

    family: str
    data: str
    names: tuple[str, ...]
    inputs: int
    alpha: float
    rows: tuple[Best, ...]

    @property
    def price(self) -> float:
        """The largest distance between the two lower ends: what choosing after looking costs."""
        return max((row.low - row.corrected for row in self.rows), default=0.0)


@dataclass(frozen=True)
class Board:
    """Everything a board shows."""

    entries: tuple[Entry, ...]
    radii: tuple[float, ...]
    accuracies: tuple[tuple[Estimate | None, ...], ...]
    envelopes: tuple[Envelope, ...]
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON types."""
        return {
            "radii": list(self.radii),
            "rows": [
                {
                    "name": e.name, "data": e.data, "norm": e.evidence.norm, "sigma": e.evidence.sigma,
                    "method": e.method, "inputs": len(e.evidence.run), "imported": e.evidence.imported,
                    "certified_accuracy": [None if a is None else vars(a) for a in row],
                    "mean_radius": e.evidence.run.mean_radius(), "samples_per_input": e.samples,
                    "verified": e.verified, "good": e.good, "report": e.report,
                }
                for e, row in zip(self.entries, self.accuracies, strict=True)
            ],
            "envelopes": [
                {
                    "family": v.family, "data": v.data, "names": list(v.names), "inputs": v.inputs,
                    "alpha": v.alpha, "price": v.price, "rows": [vars(row) for row in v.rows],
                }
                for v in self.envelopes
            ],
            "paired": [
                {
                    "run": p.name, "baseline": p.baseline, "inputs": p.inputs, "reason": p.reason,
                    "differences": [vars(d) for d in p.differences],
                }
                for p in self.pairs
            ],
        }  # fmt: skip


def assemble(entries: Sequence[Entry], *, radii: Sequence[float] | None = None) -> Board:
    """The numbers of a board. ``radii``: those of the columns; default: round ones. Raises InvalidSetting."""
    if not entries:
        raise InvalidSetting(
            "there is nothing to put on the board",
            why="no run directory and no log was given",
            remedy="certify board runs/* logs/*.tsv --out board",
        )
    for radius in radii or ():
        if not 0 <= radius < math.inf:
            raise InvalidSetting(
                f"radius {radius!r} is not a radius",
                why="a column shows certified accuracy at a finite distance >= 0",
                remedy="give radii such as 0, 0.25, 0.5",
            )
    named = _told_apart(entries)
    columns = tuple(sorted(set(radii))) if radii else _columns(named)
    rows = []
    for entry in named:
        labelled = entry.evidence.labelled
        rows.append(tuple(entry.accuracy(columns)) if labelled else (None,) * len(columns))
    return Board(tuple(named), columns, tuple(rows), tuple(_envelopes(named, columns)), tuple(_pairs(named)))


def data_of(settings: Mapping[str, Any], name: str) -> str:
    """The data set of a run; of a log what its name begins with, "" where neither says."""
    data = settings.get("data")
    said = data.get("name") if isinstance(data, Mapping) else data
    if said:
        return str(said)
    return next((known for known in _DATA if name.lower().startswith(known)), "")


def level_in_name(stem: str) -> float | None:
    """The noise level that a file's name ends in ("mnist-gaussian-0.25"); None without one."""
    found = _LEVEL.match(stem)
    value = float(found["sigma"]) if found else 0.0
    return value if value > 0 else None


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    names = [e.name for e in entries]
    return [
        replace(e, evidence=replace(e.evidence, name=f"{e.name} ({i + 1})")) if names.count(e.name) > 1 else e
        for i, e in enumerate(entries)
    ]


def _columns(entries: Sequence[Entry]) -> tuple[float, ...]:
    largest = max((r.radius for e in entries for r in e.evidence.run if r.certified), default=1.0)
    step = next((s for s in _STEPS if largest / s <= _MOST), largest / _MOST)
    return tuple(round(step * k, 10) for k in range(min(_MOST, int(largest / step)) + 1))


def _envelopes(entries: Sequence[Entry], radii: Sequence[float]) -> list[Envelope]:
    """Families of at least two noise levels on the same inputs."""
    groups: dict[tuple[str, str, str, frozenset[int]], list[Entry]] = {}
    for entry in entries:
        if entry.evidence.labelled:
            inputs = frozenset(entry.evidence.by_index)
            groups.setdefault((entry.family, entry.data, entry.evidence.norm, inputs), []).append(entry)
    return [_envelope(rows, radii) for rows in groups.values() if len({e.evidence.sigma for e in rows}) >= 2]


def _envelope(rows: Sequence[Entry], radii: Sequence[float]) -> Envelope:
    curves, n = [e.accuracy(radii) for e in rows], len(rows[0].evidence.run)
    best = []
    for k, radius in enumerate(radii):
        top = max(range(len(rows)), key=lambda i: curves[i][k].value)
        value, half = curves[top][k].value, (1 - LEVEL) / 2
        ends = [binomial_lower(round(value * n), n, half / share) for share in (1, len(rows))]
        best.append(Best(radius, rows[top].name, value, *ends))
    alpha = min(1.0, sum(e.evidence.alpha for e in rows))
    first = rows[0]
    return Envelope(first.family, first.data, tuple(e.name for e in rows), n, alpha, tuple(best))


def _pairs(entries: Sequence[Entry]) -> list[Pair]:
    """Every row against the first of the same data, norm and noise level, at that level; Holm over all."""
    groups: dict[tuple[str, str, float], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.data, entry.evidence.norm, entry.evidence.sigma), []).append(entry)
    found = [_pair(rows[0].evidence, other.evidence) for rows in groups.values() for other in rows[1:]]
    adjusted = iter(holm([d for p in found for d in p.differences]))
    return [replace(p, differences=tuple(next(adjusted) for _ in p.differences)) for p in found]


def _pair(first: Evidence, other: Evidence) -> Pair:
    common = sorted(first.by_index.keys() & other.by_index.keys())
    if reason := obstacle(first, other, common):
        return Pair(other.name, first.name, 0, (), reason)
    at = first.sigma
    shown = [[proved(e, i, at) for i in common] for e in (other, first)]
    return Pair(other.name, first.name, len(common), (difference(*shown, radius=at, level=LEVEL),))


#: What verifies a stored run: (words, whether it held; None where nobody could look).
Verifier = Callable[[Any], tuple[str, bool | None]]
