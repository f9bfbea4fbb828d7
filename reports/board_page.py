"""The board as a static site: index.html, board.json, and the page of every run certified here."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from certify.calls import checked
from certify.dense.run import refuse_segmentation
from certify.files.members import write_inside
from certify.population.statements import refuse_population
from certify.verification import verify
from reports.board_rows import Board, Entry, assemble, data_of
from reports.evidence import Evidence
from reports.html import environment
from reports.numbers import count, percent_down, radius_down
from reports.opening import opened
from reports.plots.board import curves
from reports.plots.overlay import MOST
from reports.report import build

#: Numbers that no row can have sort before all others.
_NONE = "-1"


@dataclass(frozen=True)
class BoardFiles:
    """Where a board was written, and its numbers."""

    html: Path
    data: Path
    board: Board


@dataclass(frozen=True)
class Cell:
    """One cell of the table: what stands there, and what it is sorted by."""

    text: str
    key: str
    number: bool = False
    link: str | None = None
    chip: str | None = None


@checked
def board(
    runs: Sequence[Any],
    out: str | os.PathLike[str],
    *,
    radii: Sequence[float] | None = None,
    level: int = 2,
) -> BoardFiles:
    """Write index.html, board.json and the reports of the runs into the folder ``out``.

    ``runs``: run directories, what ``certify.store.read_run`` returned, or runs in memory with a name,
    ``(name, run)``: so a log comes from ``certify.store.importing.read_log``. Stored runs are verified up to
    ``level`` (1 hashes, 2 the arithmetic) first; what fails is shown as failing. ``radii``: of the columns;
    default: round ones.
    Raises InvalidSetting where there is nothing to show, or a run certifies pixels or a population.
    """
    place = Path(out)
    entries = [_entry(run, place, number, level) for number, run in enumerate(runs, start=1)]
    found = assemble(entries, radii=radii)
    page = _page(found)
    text = json.dumps(found.to_json(), indent=1, default=float)
    return BoardFiles(write_inside(place, "index.html", page), write_inside(place, "board.json", text), found)


def _entry(run: Any, place: Path, number: int, level: int) -> Entry:
    if isinstance(run, tuple):
        name, held = run
        evidence = Evidence(name, None, held.settings, held, [], {}, lambda _: None)
        return _row(evidence, *_words(evidence), None)
    stored = opened(run)
    evidence = Evidence.of(stored)
    refuse_population(evidence.settings, "there is no row on a board")
    refuse_segmentation(evidence.settings, "there is no row on a board", "report each run by itself")
    said, good = _verified(stored, level)
    report = None
    if not evidence.imported and stored.path is not None and good:
        folder = f"reports/{number}"
        (place / folder).mkdir(parents=True, exist_ok=True)
        build(stored, place / folder)
        report = f"{folder}/report.html"
    return _row(evidence, said, good, report)


def _row(evidence: Evidence, said: str, good: bool | None, report: str | None) -> Entry:
    settings, records = evidence.settings, evidence.run.records
    mode = "published log" if evidence.imported else f"{settings.get('mode')}, {settings.get('noise')} noise"
    scores = settings.get("scores", "votes")
    method = mode if scores == "votes" else f"{mode}, {scores} scores"
    samples = sum(r.samples for r in records) / max(1, len(records))
    return Entry(evidence, data_of(settings, evidence.name), method, samples, said, good, report)


def _words(evidence: Evidence) -> tuple[str, bool | None]:
    return ("claimed by its log", None) if evidence.imported else ("not stored, not verified", None)


def _verified(stored: Any, level: int) -> tuple[str, bool | None]:
    if stored.path is None:
        return "not stored, not verified", None
    if stored.settings.get("imported"):
        return "claimed by its log", None
    outcome = verify(stored.path, level=level).outcome
    return f"level {level}: {outcome}", {"holds": True, "fails": False}.get(str(outcome))


def _page(found: Board) -> str:
    names = dict.fromkeys(e.data for e in found.entries)
    figures = [(data, curves(found, data)) for data in names]
    return (
        environment()
        .get_template("board.html.j2")
        .render(
            board=found,
            headline=_headline(found),
            native=sum(not e.evidence.imported for e in found.entries),
            columns=_columns(found),
            rows=[_cells(found, i) for i in range(len(found.entries))],
            figures=[(data, Markup(figure.inline())) for data, figure in figures if figure is not None],
            most=MOST,
        )
    )


def _headline(found: Board) -> str:
    data = [name for name in dict.fromkeys(e.data for e in found.entries) if name]
    on = f" on {', '.join(data[:3])}{' and others' if len(data) > 3 else ''}" if data else ""
    failing = sum(e.good is False for e in found.entries)
    but = f"; {failing} of them fail verification" if failing else ""
    return f"{count(len(found.entries))} certified runs side by side{on}{but}"


def _columns(found: Board) -> list[tuple[str, bool]]:
    first = [
        ("Run", False),
        ("Data", False),
        ("Method", False),
        ("Norm", False),
        ("Sigma", True),
        ("Inputs", True),
    ]
    last = [("Mean radius", True), ("Samples per input", True), ("Checked", False)]
    return [*first, *((f"at {radius:g}", True) for radius in found.radii), *last]


def _cells(found: Board, index: int) -> list[Cell]:
    entry, row = found.entries[index], found.accuracies[index]
    evidence = entry.evidence
    mean = evidence.run.mean_radius() if evidence.labelled else None
    chip = {True: "good", False: "bad", None: "none"}[entry.good]
    return [
        Cell(entry.name, entry.name, link=entry.report),
        Cell(entry.data or "–", entry.data),
        Cell(entry.method, entry.method),
        Cell(f"l{evidence.norm}", evidence.norm),
        Cell(f"{evidence.sigma:g}", repr(evidence.sigma), number=True),
        Cell(count(len(evidence.run)), str(len(evidence.run)), number=True),
        *(
            Cell("–", _NONE, number=True)
            if a is None
            else Cell(percent_down(a.value, 2), repr(a.value), number=True)
            for a in row
        ),
        Cell("–" if mean is None else radius_down(mean), _NONE if mean is None else repr(mean), number=True),
        Cell(count(round(entry.samples)), repr(entry.samples), number=True),
        Cell(entry.verified, entry.verified, chip=chip),
    ]
