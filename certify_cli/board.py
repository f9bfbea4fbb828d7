"""``certify board``: runs and published logs as one sortable page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from certify_cli import common

EPILOG = (
    "Example: certify board runs/demo --out board\n\n"
    "with published logs: certify board runs/demo logs/mnist-gaussian-0.25.tsv --out board"
)
KEPT = "the board that was there before; the same command begins again"


def register(app: typer.Typer) -> None:
    app.command("board", epilog=EPILOG, rich_help_panel="Results")(common.guarded(board, kept=KEPT))


def board(
    sources: Annotated[
        list[Path], typer.Argument(help="Run directories, and logs (.tsv) named ...-SIGMA.", metavar="source")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the site: index.html, board.json, reports/.")],
    radius: Annotated[
        list[float] | None, typer.Option("--radius", help="Radius of a column. May be repeated.")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", "-s", help="Noise level of the logs. Default: from their names."),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="The logs' alpha.")] = 0.001,
    n: Annotated[int, typer.Option("--n", min=1, help="The logs' samples per input.")] = 100_000,
    level: Annotated[
        int, typer.Option("--level", min=1, max=2, help="Verify stored runs: 1 hashes, 2 the arithmetic.")
    ] = 2,
    as_json: common.AsJson = False,
) -> None:
    """Put runs and published logs side by side: a static page, sortable, with what each row is worth.

    Exit 1 where a stored run fails verification; its row says so.
    """
    import reports

    found = reports.board([_opened(s, sigma, alpha, n) for s in sources], out, radii=radius, level=level)
    failing = [e.name for e in found.board.entries if e.good is False]
    if as_json:
        common.print_json(found.board.to_json() | {"page": str(found.html)})
    else:
        _show(found)
        for name in failing:
            common.say(f"{name} fails verification: certify verify says where", error=True)
    if failing:
        raise typer.Exit(1)


def _opened(source: Path, sigma: float | None, alpha: float, n: int) -> Any:
    from certify.errors import InvalidSetting
    from certify.store.importing import read_log
    from reports.board_rows import level_in_name

    if source.is_dir():
        return common.run_directory(source)
    level = sigma or level_in_name(source.stem)
    if level is None:
        raise InvalidSetting(
            f"the noise level of {source.name} is not known",
            why="a log does not state it, and the file's name does not end in one",
            remedy="name it ...-SIGMA.tsv, or give --sigma",
        )
    return source.stem, read_log(source, sigma=level, alpha=alpha, n=n)


def _show(found: Any) -> None:
    from rich.table import Table

    from reports.numbers import percent_down, radius_down

    board = found.board
    at = board.radii[1:3]
    table = Table(title=f"{len(board.entries)} row{'s' * (len(board.entries) > 1)}", title_justify="left")
    table.add_column("run", overflow="fold")
    for heading in ("sigma", *(f"at {r:g}" for r in at), "mean radius"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("checked", no_wrap=True)
    for entry, row in zip(board.entries, board.accuracies, strict=True):
        shown = ["–" if a is None else percent_down(a.value, 2) for a in row[1:3]]
        mean = radius_down(entry.evidence.run.mean_radius()) if entry.evidence.labelled else "–"
        checked = "claimed" if entry.evidence.imported else entry.verified
        table.add_row(entry.name, f"{entry.evidence.sigma:g}", *shown, mean, checked)
    console = common.tables()
    console.print(table)
    console.print(
        f"page: {found.html} (open it in a browser); numbers: {found.data}", soft_wrap=True, markup=False
    )
