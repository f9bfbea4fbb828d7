"""``certify verify``: check a run without believing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, denoisers

if TYPE_CHECKING:
    from certify.records import Record
    from certify.verification import Replay, Verification

#: How an outcome stands in the table.
_WORDS = {"holds": "ok", "fails": "FAILS"}
EPILOG = "Example: certify verify runs/demo\n\nwith fresh noise: certify verify runs/demo --level 3"
KEPT = "the run was only read; the same command begins again"


def register(app: typer.Typer) -> None:
    app.command("verify", epilog=EPILOG, rich_help_panel="Results")(common.guarded(verify, kept=KEPT))


def verify(
    run: common.RunDir,
    level: Annotated[
        int,
        typer.Option(
            "--level",
            min=1,
            max=3,
            help="1: schema and hashes. 2: every bound and radius again. 3: a subset with fresh noise.",
        ),
    ] = 2,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Checkpoint at hand: is it the one that was certified?"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data of the run (level 3), where they lie elsewhere now: name or file."),
    ] = None,
    denoiser: denoisers.DenoiserFile = None,
    data_root: common.DataRoot = None,
    subset: Annotated[
        int | None,
        typer.Option(
            "--subset", min=1, help="Inputs to sample again (level 3). Default: 20; population: 200."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=1, help="Fresh samples of each (level 3). Default: 1000; population: 100."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Picks inputs and noise (level 3). Default: unpredictable."),
    ] = None,
    device: common.Device = "auto",
    arch: common.Arch = None,
    trust: common.Trust = False,
    as_json: common.AsJson = False,
) -> None:
    """Check a run: its hashes, its arithmetic by a second implementation, and fresh samples.

    Exit 0 where every check holds, 1 where one fails, 3 where none fails and one could not be made.
    """
    from certify.verification import EXIT_CODES
    from certify.verification import verify as check
    from certify_cli.at_hand import same_model
    from certify_cli.reopen import rows_of

    common.refuse_other_directories(run)
    how: dict[str, Any] = {"arch": arch, "trust": trust, "device": device, "denoiser": denoiser}
    replay = rows = None
    many = (subset, samples)
    if level == 3:
        many = fresh_samples(run, subset, samples)
        replay = fresh_counts(
            run, samples=many[1] or 1000, seed=seed, model=model, data=data, data_root=data_root, **how
        )
        rows = rows_of(run, data, data_root)
    result = check(
        run,
        level=level,
        replay=replay,
        rows=rows,
        subset=many[0] or 20,
        seed=seed,
        at_hand=None if model is None else lambda stored: same_model(stored, model, **how),
    )
    if as_json:
        common.print_json({"run": str(run)} | result.to_json())
    else:
        _print(run, result)
    if code := EXIT_CODES[result.outcome]:
        raise typer.Exit(code)


def fresh_samples(run: Path, subset: int | None, samples: int | None) -> tuple[int, int]:
    """(inputs to sample again, samples of each): a statement about many inputs needs many of them."""
    from certify.errors import CertifyError
    from certify.population.statements import is_population
    from certify.store import read_run

    try:
        counted = is_population(read_run(run).settings)
    except CertifyError:  # the checks will say so
        counted = False
    return subset or (200 if counted else 20), samples or (100 if counted else 1000)


def fresh_counts(run: Path, *, samples: int, seed: int | None, **where: Any) -> Replay:
    """A replay that opens the checkpoint and the data again and draws noise no run has used.

    ``where``: as ``certify_cli.reopen.reopen`` takes it.
    """
    import secrets

    fresh_seed = secrets.randbits(64) if seed is None else seed

    def replay(records: Sequence[Record]) -> Mapping[int, Any]:
        from certify_cli.reopen import reopen

        opened = reopen(run, pixels=True, **where)
        _refuse_unbound(records, run)
        place = {int(id): i for i, id in enumerate(opened.dataset.ids)}
        rows = [place[r.index] for r in records]
        ids = [r.index for r in records]
        if opened.stored.settings.get("task") == "segmentation":
            segmented: Any = opened.smoothed
            votes = (segmented.votes(opened.dataset.x[[row]], n=samples, seed=fresh_seed, ids=[id])[0]
                     for row, id in zip(rows, ids, strict=True))  # fmt: skip
            return {id: (found, samples) for id, found in zip(ids, votes, strict=True)}
        if opened.stored.settings.get("scores", "votes") != "votes":
            plan = opened.stored.settings["mode_options"]
            scored = opened.smoothed.score_histograms(
                opened.dataset.x[rows], n=samples, bins=int(plan["bins"]), seed=fresh_seed, ids=ids,
                bets=plan.get("bets", "grid"),
            )  # fmt: skip
            return {r.index: found[r.label].tolist() for r, found in zip(records, scored, strict=True)}
        # Predictions draw from words that certificates never use, so the run's own seed is fresh too.
        found = opened.smoothed.predict(opened.dataset.x[rows], n=samples, seed=fresh_seed, ids=ids)
        return {id: [*p.counts, p.samples - sum(p.counts)] for id, p in zip(ids, found, strict=True)}

    return replay


def _refuse_unbound(records: Sequence[Record], run: Path) -> None:
    from certify.errors import EvidenceFails
    from certify.inputs import INPUT

    if loose := [r.index for r in records if INPUT not in r.details]:
        raise EvidenceFails(
            f"the record of input {loose[0]} does not name its input",
            why=f"records hold a hash of the input they are about; without it {run} could be about any",
            remedy="certify the data again into another directory",
        )


def _print(run: Path, result: Verification) -> None:
    from rich.table import Table

    console = common.tables()
    table = Table(title=f"{run}, level {result.level}", title_justify="left")
    for heading in ("check", "", "detail"):
        table.add_column(heading)
    for check in result.checks:
        table.add_row(check.name, _WORDS.get(check.outcome, check.outcome), check.detail)
    console.print(table)
    if result.failures:
        console.print(f"the run does not hold: {result.failures[0].name}")
    elif result.unchecked:
        names = ", ".join(check.name for check in result.unchecked)
        console.print(f"not checked: {names}; nothing else fails")
    else:
        console.print("the run holds")
