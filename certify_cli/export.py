"""``certify export``: a run's certificates as CSV, JSON or the literature's log format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify_cli import common, completion

EPILOG = "Example: certify export runs/demo --to locuslab --out demo.tsv"


def register(app: typer.Typer) -> None:
    app.command("export", epilog=EPILOG, rich_help_panel="Results")(common.guarded(export))


def export(
    run: common.RunDir,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="csv, json or locuslab.", autocompletion=completion.one_of(*completion.FORMATS)
        ),
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write. Default: standard output.")
    ] = None,
) -> None:
    """Write the certificates of a run in another program's format."""
    from certify.store import exports

    stored = common.run_directory(run)
    if out is None:
        print(exports.export(stored.run, to), end="")
    else:
        print(exports.write_export(stored.run, to, out))
