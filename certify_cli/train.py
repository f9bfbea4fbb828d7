"""``certify train``: train a network and write a self-describing checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certify_cli import common

if TYPE_CHECKING:
    from pdenets.training import TrainingResult

EPILOG = "Example: certify train --arch convection-diffusion --data mnist --sigma 0.25 --out mnist.pt"


def register(app: typer.Typer) -> None:
    app.command("train", epilog=EPILOG, rich_help_panel="Models")(common.guarded(train))


def train(
    arch: Annotated[
        str, typer.Option("--arch", help="Architecture: a name (see --list), or module:factory.")
    ] = "convection-diffusion",
    data: Annotated[str, typer.Option("--data", help="Data set name, .npz file or image folder.")] = "digits",
    out: Annotated[
        Path | None, typer.Option("--out", help="Checkpoint to write: FILE.pt or FILE.safetensors.")
    ] = None,
    sigma: Annotated[
        float, typer.Option("--sigma", "-s", help="Noise the model will be certified under.")
    ] = 0.25,
    regulariser: Annotated[
        str | None,
        typer.Option("--regulariser", help="Default: diffusion residual where the network has time."),
    ] = None,
    options: Annotated[
        str | None, typer.Option("--options", help="JSON object of regulariser options.")
    ] = None,
    arch_args: common.ArchArgs = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the data. Default: by data set.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Learning rate at the start. Default: by data set.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Inputs per step. Default: by data set.")
    ] = None,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="Of the optimizer.")] = 0.0,
    optimizer: Annotated[str, typer.Option("--optimizer", help="adam or sgd.")] = "adam",
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's momentum, for sgd.")] = False,
    schedule: Annotated[
        str, typer.Option("--schedule", help="Learning rate: cosine (down to 0), steps or constant.")
    ] = "cosine",
    augment: Annotated[
        str | None,
        typer.Option("--augment", help="Images: crop-flip, crop or none. Default: by data set."),
    ] = None,
    limit: common.Limit = None,
    data_root: common.DataRoot = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a public data set that is missing.")
    ] = False,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    listing: Annotated[
        bool, typer.Option("--list", help="List architectures, regularisers and data sets.")
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Train a network under noise; an interrupted training goes on from its last epoch."""
    if listing:
        _list()
        return
    from certify import data as datasets
    from certify.errors import InvalidSetting
    from pdenets.distributed import leads
    from pdenets.progress import progress_bar
    from pdenets.training import train as run_training

    if out is None:
        raise InvalidSetting(
            "no file to write the checkpoint to",
            why="--out is missing",
            remedy=f"add --out {data if data.isidentifier() else 'model'}.pt",
        )
    chosen = {"root": data_root, "download": download, "seed": seed}
    train_data = datasets.load(data, split="train", limit=limit, **chosen)
    arguments, extra = common.json_object(arch_args, "--arch-args"), common.json_object(options, "--options")
    with progress_bar(title=f"training {arch}") as report:
        result = run_training(
            train_data,
            arch=arch,
            out=out,
            arguments=arguments,
            sigma=sigma,
            regulariser=regulariser,
            options=extra,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            optimizer=optimizer,
            weight_decay=weight_decay,
            nesterov=nesterov,
            schedule=schedule,
            augment=augment,
            seed=seed,
            device=common.pick_device(device),
            progress=report,
        )
    if leads():
        _print(result, sigma, arch, as_json=as_json)


def _print(result: TrainingResult, sigma: float, arch: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        common.print_json(asdict(result))
        return
    from rich.table import Table

    console = common.tables()
    table = Table(title=f"{result.architecture}, {result.parameters:,} parameters", title_justify="left")
    for heading in ("held-out inputs", "epoch", "accuracy", f"accuracy at sigma {sigma:g}", "loss"):
        table.add_column(heading, justify="right")
    for name, metrics in (("final (written)", result.final), ("best (for comparison)", result.best)):
        table.add_row(
            name,
            str(metrics.epoch),
            f"{metrics.accuracy:.4f}",
            f"{metrics.noisy_accuracy:.4f}",
            f"{metrics.loss:.4f}",
        )
    console.print(table)
    console.print(
        f"{result.seconds:.0f} s, {result.skipped_steps} non-finite steps skipped; wrote {result.path}"
    )
    common.say_next(f"certify radius --model {result.path}{common.own_network(arch)} --sigma {sigma:g}")


def _list() -> None:
    from rich.table import Table

    import pdenets
    from certify import data, registry
    from pdenets.regularisers import REGULARISERS

    console = common.tables()
    described = {name: (text, reference) for name, text, reference in pdenets.catalogue()}
    table = Table("architecture", "what it is", "reference")
    for name in registry.names():
        table.add_row(name, *described.get(name, ("registered by another package", "")))
    console.print(table)
    console.print(f"regularisers: {', '.join(REGULARISERS)}")
    console.print(f"data sets: {', '.join(data.names())}, or a .npz file")
