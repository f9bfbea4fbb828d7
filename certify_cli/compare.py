"""``certify compare``: theory beside measurement, on a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common

if TYPE_CHECKING:
    from analysis import Ledger
    from analysis.evidence import LedgerRow
    from certify.store import StoredRun

EPILOG = "Example: certify compare runs/demo"
KEPT = "the run keeps the comparison it had before; the same command begins again"


def register(app: typer.Typer) -> None:
    app.command("compare", epilog=EPILOG, rich_help_panel="Results")(common.guarded(compare, kept=KEPT))


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directory, such as runs/demo.", metavar="run")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set of the complexity claims. Default: the run's."),
    ] = None,
    data_root: common.DataRoot = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Inputs for the complexity claims.")] = 500,
    seed: common.Seed = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Print every measurement, not one line per claim.")
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Set every claim of the theory beside what was measured; the result is stored in the run.

    Exit 1 when the evidence contradicts a theorem: then the run, not the theorem, is in doubt.
    """
    import analysis
    from certify.errors import InvalidSetting
    from certify.store import open_run
    from certify_cli.reopen import refuse_pixels

    run, *others = runs
    if others:
        raise InvalidSetting(
            f"{len(runs)} runs cannot be compared here",
            why="this sets the theory beside one run; several are set side by side by `certify report`",
            remedy=f"certify report {' '.join(map(str, runs))} --out compared",
        )
    stored = common.run_directory(run)
    refuse_pixels(stored)
    sample, without = _sample(stored, data, data_root, points)
    left_out = [*_compared(stored, data_root), *without]
    for part in left_out:
        common.say(part, error=True)
    result = analysis.ledger(stored, points=sample, seed=seed)
    document = result.to_json() | ({"left_out": left_out} if left_out else {})
    with open_run(run, stored.settings, stored.guarantee) as store:
        store.put_document("ledger", document)
    if as_json:
        common.print_json(document)
    else:
        (_print if full else _summarize)(result)
        if not full:
            print(f"every measurement: certify compare {run} --full; what the claims are: docs/theory.md")
        common.say_next(f"certify report {run}")
    if result.alarms:
        raise typer.Exit(1)


def _compared(stored: StoredRun, root: Path | None) -> list[str]:
    """Compares the run's inputs and labels with the data set that it names; says so where that is not there.

    Raises EvidenceFails where they are no longer the same.
    """
    from certify.errors import CertifyError, EvidenceFails
    from certify_cli.reopen import certified_part

    try:
        certified_part(stored, None, root)
    except EvidenceFails:
        raise
    except CertifyError as error:
        return [f"inputs and labels not compared with the data set: {error.what}"]
    return []


def _sample(stored: StoredRun, data: str | None, root: Path | None, points: int) -> tuple[Any, list[str]]:
    """Points for the complexity claims, of the data set asked for or of the one the run names.

    None, and a word on it, where there is none: the other claims need no points.
    """
    from certify import data as datasets
    from certify.errors import DataNotFound, UnreadableFile

    told = stored.settings.get("data")
    described = told if isinstance(told, dict) else {}
    name = data or described.get("path") or described.get("name")
    if name is None:
        why = "the run names no data set (it was imported from a log, or made in Python)"
    else:
        try:
            return datasets.load(name, split="train", root=root, limit=points).x, []
        except (DataNotFound, UnreadableFile) as error:
            if data is not None:
                raise
            why = f"{error.what}: {error.why}"
    return None, [f"complexity claims left out: {why}; add --data NAME or FILE.npz"]


def _summarize(result: Ledger) -> None:
    """One line per claim, then whatever the evidence contradicts."""
    from rich.table import Table

    table = Table("claim", "what it says", "found", title="theory beside measurement", title_justify="left")
    for name in dict.fromkeys(row.claim for row in result):
        rows = result.claim(name)
        statements = list(dict.fromkeys(row.statement for row in rows))
        more = f", and {len(statements) - 1} more" if len(statements) > 1 else ""
        table.add_row(name, statements[0] + more, _found(rows))
    console = common.tables()
    console.print(table)
    if any(row.status == "violated" and not row.sound for row in result):
        console.print(
            "refuted as printed: a formula that is no theorem, beside its correction where there is one"
        )
    _examples([row for row in result if row.sound])


def _found(rows: list[LedgerRow]) -> str:
    """What became of a claim's measurements, with their number where there are several."""
    told = {
        "VIOLATED": sum(row.sound and row.status == "violated" for row in rows),
        "refuted as printed": sum(not row.sound and row.status == "violated" for row in rows),
        "holds": sum(row.status == "holds" for row in rows),
        "undetermined": sum(row.status == "undetermined" for row in rows),
    }
    return ", ".join(f"{what} ({n})" if n > 1 else what for what, n in told.items() if n)


def _print(result: Ledger) -> None:
    from rich.table import Table

    console = common.tables()
    table = Table(
        *("claim", "what is compared", "theory", "measured", "slack", "status"),
        title="theory beside measurement",
        title_justify="left",
    )
    for row in result:
        status = row.status + (f" ({row.violations} of {row.checked})" if row.violations else "")
        table.add_row(row.claim, row.quantity, *map(_number, (row.theory, row.measured, row.slack)), status)
    console.print(table)
    _examples(list(result))


def _examples(rows: list[LedgerRow]) -> None:
    for row in rows:
        if row.status == "violated" and row.example:
            what = "VIOLATED, so the evidence is in doubt" if row.sound else "is no theorem; refuted by"
            common.tables().print(f"{row.claim} {what}: {_example(row.example)}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _example(example: Any) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in dict(example).items())
