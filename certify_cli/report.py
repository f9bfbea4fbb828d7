"""``certify report``: the evidence of a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from certify_cli import common

EPILOG = "Example: certify report runs/demo\n\nside by side: certify report runs/a runs/b --out runs/ab"


def register(app: typer.Typer) -> None:
    app.command("report", epilog=EPILOG, rich_help_panel="Results")(common.guarded(report))


def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or several to compare.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. Default: the run.")] = None,
) -> None:
    """Write report.html (self-contained), its plots, a LaTeX table, a model-card section and a badge.

    Several runs become one page that sets them side by side, with paired tests against the first.
    """
    import reports

    stored = [common.run_directory(run) for run in runs]
    written: Any = reports.build(stored[0], out=out) if len(stored) == 1 else reports.compare(stored, out=out)
    beside = [getattr(written, part).name for part in ("table", "card", "badge") if hasattr(written, part)]
    figures = f"{len(written.plots)} figure{'' if len(written.plots) == 1 else 's'}"
    console = common.tables()
    console.print(f"page: {written.html} (one file; open it in a browser)", soft_wrap=True, markup=False)
    console.print(f"beside it: {', '.join(beside)}, plots/ ({figures})")
    for one in stored:
        says = f"{_says(one)}" if len(stored) == 1 else f"{one.path.name}: {_says(one)}"
        console.print(says, soft_wrap=True, markup=False)


def _says(stored: Any) -> str:
    """What the page says of a run in one line: its certified accuracy at the radii of its table."""
    from certify.dense.run import is_segmentation
    from certify.population.statements import is_population
    from reports.evidence import Evidence
    from reports.numbers import radius_down
    from reports.population import PopulationEvidence
    from reports.segmentation import PixelEvidence

    if is_population(stored.settings):
        return "\n".join(s.statement for s in PopulationEvidence(stored).statements)
    if is_segmentation(stored.settings):
        pixels = PixelEvidence(stored)
        values = [(row.radius, row.share) for row in pixels.rows]
        what, of = "certified pixels", f"{len(pixels.records)} images"
    else:
        evidence = Evidence.of(stored)
        values = [
            (radius, e.value)
            for radius, e in zip(evidence.radii, evidence.certified_accuracy(evidence.radii), strict=True)
        ]
        what = evidence.say.accuracy if evidence.labelled else evidence.say.share
        of = f"{len(evidence.run)} inputs"
    shown = ", ".join(f"{radius_down(value)} at {radius:g}" for radius, value in values)
    return f"{what} ({of}, l{stored.settings.get('norm') or '2'} radii): {shown}"
