"""Build the report of one run: page, LaTeX table, model-card section and plots."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.calls import checked
from certify.dense.run import is_segmentation
from certify.errors import InvalidSetting
from certify.files.members import write_inside
from certify.population.statements import is_population
from reports import population, segmentation
from reports.badge import badge
from reports.card import card
from reports.evidence import Evidence
from reports.html import page
from reports.latex import latex
from reports.opening import opened
from reports.plots.accuracy import accuracy, certified
from reports.plots.histogram import histogram
from reports.plots.maps import maps
from reports.plots.outcome import outcome
from reports.plots.plane import plane
from reports.plots.sandwich import sandwich
from reports.svg import Figure


@dataclass(frozen=True)
class ReportFiles:
    """Where the parts of a report were written."""

    html: Path
    table: Path
    card: Path
    badge: Path
    plots: tuple[Path, ...]


@checked
def build(run: Any, out: str | os.PathLike[str] | None = None) -> ReportFiles:
    """Write report.html, table.tex, card.md, badge.svg and plots/*.svg, each appearing whole or not at all.

    ``run`` is a run directory or what ``certify.store.read_run`` returned; ``out`` is the
    directory to write into, by default the run's own. Only stored records are read: nothing is
    certified or attacked again, and the same records give the same bytes. Raises UnreadableFile
    or CorruptRun for a directory that is not a sound run, RunNotWritable where ``out`` cannot be
    written, InvalidSetting when there is nowhere to write.
    """
    stored = opened(run)
    place = Path(out) if out is not None else None if stored.path is None else Path(stored.path)
    if place is None:
        raise InvalidSetting(
            "there is nowhere to write the report",
            why="the run was not read from a directory and no directory was given",
            remedy="pass out=DIRECTORY",
        )
    found = _parts(stored)
    return ReportFiles(
        html=write_inside(place, "report.html", found.html),
        table=write_inside(place, "table.tex", found.table),
        card=write_inside(place, "card.md", found.card),
        badge=write_inside(place, "badge.svg", badge(stored)),
        plots=tuple(
            write_inside(place, f"plots/{name}.svg", figure.document())
            for name, figure in found.figures.items()
        ),
    )


def _parts(stored: Any) -> segmentation.Parts:
    if is_segmentation(stored.settings):
        return segmentation.parts(stored)
    if is_population(stored.settings):
        return population.parts(stored)
    evidence = Evidence.of(stored)
    figures = draw(evidence)
    return segmentation.Parts(page(evidence, figures), latex(evidence), card(evidence), figures)


def draw(evidence: Evidence) -> Mapping[str, Figure]:
    """The figures this run has evidence for, by name."""
    found = [f(evidence) for f in (accuracy, outcome, certified, sandwich, histogram, plane)] + maps(evidence)
    return {figure.name: figure for figure in found if figure is not None}
