"""``certify report``: the evidence of a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify_cli import common

EPILOG = "Example: certify report runs/demo"


def register(app: typer.Typer) -> None:
    app.command("report", epilog=EPILOG, rich_help_panel="Results")(common.guarded(report))


def report(
    run: common.RunDir,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to. Default: the run.")] = None,
) -> None:
    """Write report.html (self-contained), its plots, a LaTeX table and a model-card section."""
    import reports

    written = reports.build(common.run_directory(run), out=out)
    print(written.html)
