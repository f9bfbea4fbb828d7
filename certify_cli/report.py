"""``certify report``: the evidence of a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify_cli import common

EPILOG = "Example: certify report runs/demo\n\nside by side: certify report runs/a runs/b --out runs/ab"


def register(app: typer.Typer) -> None:
    app.command("report", epilog=EPILOG, rich_help_panel="Results")(common.guarded(report))


def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or several to compare.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. Default: the run.")] = None,
) -> None:
    """Write report.html (self-contained), its plots, a LaTeX table and a model-card section.

    Several runs become one page that sets them side by side, with paired tests against the first.
    """
    import reports

    stored = [common.run_directory(run) for run in runs]
    written = reports.build(stored[0], out=out) if len(stored) == 1 else reports.compare(stored, out=out)
    print(written.html)
