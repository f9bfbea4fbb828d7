"""``certify verify``: check a run without believing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common

if TYPE_CHECKING:
    from certify.records import Record
    from certify.verification import Replay, Verification

EPILOG = "Example: certify verify runs/demo\n\nwith fresh noise: certify verify runs/demo --level 3"


def register(app: typer.Typer) -> None:
    app.command("verify", epilog=EPILOG, rich_help_panel="Results")(common.guarded(verify))


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
    data_root: common.DataRoot = None,
    subset: Annotated[int, typer.Option("--subset", min=1, help="Inputs to sample again (level 3).")] = 20,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Fresh samples per input (level 3).")
    ] = 1000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Picks inputs and noise (level 3). Default: unpredictable."),
    ] = None,
    device: common.Device = "auto",
    arch: common.Arch = None,
    trust: common.Trust = False,
    as_json: common.AsJson = False,
) -> None:
    """Check a run: its hashes, its arithmetic by a second implementation, and fresh samples."""
    from certify.verification import verify as check

    common.refuse_other_directories(run)
    how = {"arch": arch, "trust": trust}
    replay = fresh_counts(run, model, data_root, device, samples, seed, **how) if level == 3 else None
    expect = {"model": _digest(run, model, **how)} if model is not None else None
    result = check(run, level=level, expect=expect, replay=replay, subset=subset, seed=seed)
    if as_json:
        common.print_json({"run": str(run)} | result.to_json())
    else:
        _print(run, result)
    if not result.ok:
        raise typer.Exit(1)


def fresh_counts(
    run: Path,
    model: Path | None,
    data_root: Path | None,
    device: str,
    samples: int,
    seed: int | None,
    *,
    arch: str | None = None,
    trust: bool = False,
) -> Replay:
    """A replay that opens the checkpoint and the data again and draws noise no run has used."""
    import secrets

    fresh_seed = secrets.randbits(64) if seed is None else seed

    def replay(records: Sequence[Record]) -> Mapping[int, Any]:
        from certify_cli.reopen import reopen

        opened = reopen(
            run, model=model, data_root=data_root, device=device, arch=arch, trust=trust, pixels=True
        )
        place = {int(id): i for i, id in enumerate(opened.dataset.ids)}
        rows = [place[r.index] for r in records]
        ids = [r.index for r in records]
        if opened.stored.settings.get("task") == "segmentation":
            segmented: Any = opened.smoothed
            votes = (segmented.votes(opened.dataset.x[[row]], n=samples, seed=fresh_seed, ids=[id])[0]
                     for row, id in zip(rows, ids, strict=True))  # fmt: skip
            return {id: (found, samples) for id, found in zip(ids, votes, strict=True)}
        if opened.stored.settings["scores"] != "votes":
            bins = int(opened.stored.settings["mode_options"]["bins"])
            scored = opened.smoothed.score_histograms(
                opened.dataset.x[rows], n=samples, bins=bins, seed=fresh_seed, ids=ids
            )
            return {r.index: found[r.label].tolist() for r, found in zip(records, scored, strict=True)}
        # Predictions draw from words that certificates never use, so the run's own seed is fresh too.
        found = opened.smoothed.predict(opened.dataset.x[rows], n=samples, seed=fresh_seed, ids=ids)
        return {id: [*p.counts, p.samples - sum(p.counts)] for id, p in zip(ids, found, strict=True)}

    return replay


def _digest(run: Path, model: Path, *, arch: str | None, trust: bool) -> str:
    import certify
    from certify.checkpoints import model_digest, read, tensor_digest
    from certify.errors import CertifyError
    from certify_cli.reopen import architecture

    try:
        return tensor_digest(read(model)[1])  # the weights alone: nothing is built
    except CertifyError:
        named = architecture(model, common.run_directory(run).settings, arch)
        return model_digest(certify.load(model, trust_model_file=trust, **named))


def _print(run: Path, result: Verification) -> None:
    from rich.table import Table

    console = common.tables()
    table = Table(title=f"{run}, level {result.level}", title_justify="left")
    for heading in ("check", "", "detail"):
        table.add_column(heading)
    for check in result.checks:
        table.add_row(check.name, "ok" if check.ok else "FAILS", check.detail)
    console.print(table)
    console.print("the run holds" if result.ok else f"the run does not hold: {result.failures[0].name}")
