"""``certify import``: a published log as a run that can be plotted and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certify_cli import common

EPILOG = "Example: certify import log.tsv --sigma 0.25 --alpha 0.001 --n 100000 --out runs/published"
KEPT = "a log is imported whole or not at all; the same command begins again"


def register(app: typer.Typer) -> None:
    app.command("import", epilog=EPILOG, rich_help_panel="Results")(common.guarded(import_log, kept=KEPT))


def import_log(
    log: Annotated[Path, typer.Argument(help="Tab-separated: idx label predict radius correct time.")],
    sigma: Annotated[float, typer.Option("--sigma", "-s", help="The log's noise level.", show_default=False)],
    alpha: Annotated[float, typer.Option("--alpha", help="The log's alpha.")] = 0.001,
    n: Annotated[int, typer.Option("--n", min=1, help="The log's samples per input.")] = 100_000,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory. Default: runs/<log>.")] = None,
) -> None:
    """Read a log of the randomized-smoothing literature; it stays marked as imported, not proved here."""
    from certify.store.importing import import_locuslab

    place = out or Path("runs") / log.stem
    stored = import_locuslab(log, sigma=sigma, alpha=alpha, n=n, out=place)
    console = common.tables()
    console.print(f"{len(stored.run)} inputs imported; nothing beyond the log's own numbers can be verified")
    console.print(f"run directory: {place}", soft_wrap=True)
    common.say_next(f"certify report {place}")
