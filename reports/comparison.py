"""Several runs side by side, with the paired comparison of their certified accuracies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certify.calls import checked
from certify.dense.run import refuse_segmentation
from certify.errors import InvalidSetting
from certify.files.members import write_inside
from certify.population.statements import refuse_population
from certify.records import Estimate
from reports.evidence import LEVEL, Evidence
from reports.html import comparison_page
from reports.latex import comparison_table
from reports.opening import opened
from reports.paired import Difference, difference, holm
from reports.plots.overlay import MOST, overlay
from reports.vocabulary import CLAIMED, PROVED, Vocabulary


@dataclass(frozen=True)
class Pair:
    """One run against the first: the differences, or why the two cannot be paired."""

    name: str
    baseline: str
    inputs: int
    differences: tuple[Difference, ...]
    reason: str = ""
    say: Vocabulary = PROVED


@dataclass(frozen=True)
class Comparison:
    """What a comparison shows: every run's certified accuracy at common radii, and the pairs."""

    runs: tuple[Evidence, ...]
    radii: tuple[float, ...]
    headline: float
    accuracies: tuple[tuple[Estimate, ...], ...]
    pairs: tuple[Pair, ...]
    changed: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def say(self) -> Vocabulary:
        """The words for all runs together: where one is claimed only, none is called proved."""
        return _vocabulary(*self.runs)

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON types."""
        return {
            "radii": list(self.radii),
            "headline": self.headline,
            "runs": [
                {
                    "run": e.name,
                    "inputs": len(e.run),
                    "imported": e.imported,
                    "mean_radius": e.run.mean_radius(),
                    "certified_accuracy": [vars(a) for a in row],
                }
                for e, row in zip(self.runs, self.accuracies, strict=True)
            ],
            "paired": [
                {
                    "run": p.name,
                    "baseline": p.baseline,
                    "inputs": p.inputs,
                    "reason": p.reason,
                    "differences": [vars(d) for d in p.differences],
                }
                for p in self.pairs
            ],
        }


@dataclass(frozen=True)
class CompareFiles:
    """Where a comparison was written, and its numbers."""

    html: Path
    table: Path
    plots: tuple[Path, ...]
    comparison: Comparison


@checked
def compare(runs: Sequence[Any], out: str | os.PathLike[str] | None = None) -> CompareFiles:
    """Write compare.html, compare.tex and plots/overlay.svg for two or more runs.

    ``runs`` are run directories or what ``certify.store.read_run`` returned; the first is the
    baseline. ``out`` defaults to ``comparison`` beside the first run. Inputs are paired by
    their index in the data set; runs on different data are shown but not tested. Raises
    InvalidSetting for fewer than two runs, more than can be told apart in one plot, or nowhere
    to write.
    """
    stored = [opened(r) for r in runs]
    found = contrast([Evidence.of(s, name) for s, name in zip(stored, _names(stored), strict=True)])
    first = found.runs[0].path
    place = Path(out) if out is not None else first.resolve().parent / "comparison" if first else None
    if place is None:
        raise InvalidSetting(
            "there is nowhere to write the comparison",
            why="the first run was not read from a directory and no directory was given",
            remedy="pass out=DIRECTORY",
        )
    figure = overlay(found.runs)
    return CompareFiles(
        html=write_inside(place, "compare.html", comparison_page(found, figure)),
        table=write_inside(place, "compare.tex", comparison_table(found)),
        plots=(write_inside(place, "plots/overlay.svg", figure.document()),),
        comparison=found,
    )


def contrast(runs: Sequence[Evidence]) -> Comparison:
    """The numbers of a comparison; ``runs[0]`` is the baseline."""
    if not 2 <= len(runs) <= MOST:
        raise InvalidSetting(
            f"{len(runs)} runs cannot be compared",
            why=f"a comparison shows between 2 and {MOST} runs",
            remedy="give the run directories of two or more runs, the baseline first",
        )
    for e in runs:
        refuse_segmentation(
            e.settings, "there is no comparison",
            "report each run by itself, and set their certificates.csv side by side",
        )  # fmt: skip
        refuse_population(e.settings, "there is no comparison")
    norms = {e.norm for e in runs}
    if len(norms) > 1:
        raise InvalidSetting(
            "the runs cannot be compared",
            why=f"their radii are in different norms: {', '.join(sorted(norms))}",
            remedy="compare runs of one norm",
        )
    decided = {e.headline_radius for e in runs if e.settings.get("mode") == "decide"}
    radii = tuple(sorted({*max((e.radii for e in runs), key=lambda r: r[-1]), *decided}))
    pairs = [_pair(runs[0], other, radii) for other in runs[1:]]
    return Comparison(
        runs=tuple(runs),
        radii=radii,
        headline=max(r for r in radii if r <= runs[0].headline_radius),
        accuracies=tuple(tuple(e.certified_accuracy(radii)) for e in runs),
        pairs=tuple(_adjust(pairs)),
        changed=tuple(_changed(runs)),
    )


def _pair(baseline: Evidence, other: Evidence, radii: Sequence[float]) -> Pair:
    """``other`` minus ``baseline`` on the inputs that both certified or tried to."""
    common = sorted(baseline.by_index.keys() & other.by_index.keys())
    reason, say = obstacle(baseline, other, common), _vocabulary(baseline, other)
    if reason:
        return Pair(other.name, baseline.name, 0, (), reason, say)
    rows = []
    for radius in radii:
        first, second = ([proved(e, i, radius) for i in common] for e in (other, baseline))
        rows.append(difference(first, second, radius=radius, level=LEVEL))
    return Pair(other.name, baseline.name, len(common), tuple(rows), say=say)


def _vocabulary(*runs: Evidence) -> Vocabulary:
    return CLAIMED if any(e.imported for e in runs) else PROVED


def proved(evidence: Evidence, index: int, radius: float) -> bool:
    record = evidence.by_index[index]
    return record.certified and bool(record.correct) and record.radius >= radius


def obstacle(baseline: Evidence, other: Evidence, common: Sequence[int]) -> str:
    if not common:
        return "the runs share no input"
    if not (baseline.labelled and other.labelled):
        return "a run has no true labels"
    for key in ("name", "split", "digest"):
        here, there = (_data(e).get(key) for e in (baseline, other))
        if here and there and here != there:
            return f"the runs are about different data ({key}: {here} and {there})"
    if any(baseline.by_index[i].target != other.by_index[i].target for i in common):
        return "the same input has different true labels: these are different data"
    return ""


def _data(evidence: Evidence) -> Mapping[str, Any]:
    data = evidence.settings.get("data")
    return data if isinstance(data, Mapping) else {}


def _adjust(pairs: Sequence[Pair]) -> list[Pair]:
    """Holm's correction over every test of the comparison."""
    adjusted = iter(holm([d for p in pairs for d in p.differences]))
    return [replace(p, differences=tuple(next(adjusted) for _ in p.differences)) for p in pairs]


def _changed(runs: Sequence[Evidence]) -> list[tuple[str, tuple[str, ...]]]:
    """Settings in which the runs differ, each with its value in every run."""
    from reports.html import flat

    tables = [dict(flat(e.settings)) for e in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [(name, tuple(table.get(name, "–") for table in tables)) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _names(stored: Sequence[Any]) -> list[str]:
    """Short names that tell the runs apart: directory names, numbered where they repeat."""
    names = [Path(s.path).resolve().name if s.path is not None else "run" for s in stored]
    return [f"{n} ({i + 1})" if names.count(n) > 1 else n for i, n in enumerate(names)]
