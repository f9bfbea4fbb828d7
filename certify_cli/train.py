"""``certify train``: train a network and write a self-describing checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, completion, train_denoiser

if TYPE_CHECKING:
    from pdenets.training import TrainingResult

EPILOG = (
    "Example: certify train --arch convection-diffusion --data mnist --sigma 0.25 --out mnist.pt\n\n"
    "a denoiser for a network that never saw noise: certify train --denoiser dncnn --data mnist --sigma 0.25 "
    "--for clean.pt --out den.pt"
)


def register(app: typer.Typer) -> None:
    app.command("train", epilog=EPILOG, rich_help_panel="Models")(common.guarded(train))


def train(
    arch: Annotated[
        str,
        typer.Option(
            "--arch",
            help="Architecture: a name (see --list), or module:factory.",
            autocompletion=completion.architectures,
        ),
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
        typer.Option("--augment", help="Images: crop-flip, crop, shift or none. Default: by data set."),
    ] = None,
    average: Annotated[
        float,
        typer.Option("--average", help="Write the running average of the weights, such as 0.999. 0: none."),
    ] = 0.0,
    denoiser: Annotated[
        str | None,
        typer.Option("--denoiser", help="Train a denoiser instead of a classifier: dncnn, unet; heat, ..."),
    ] = None,
    denoiser_args: Annotated[
        str | None,
        typer.Option("--denoiser-args", help="JSON object for --denoiser, such as '{\"depth\": 17}'."),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option("--for", help="Denoiser: the classifier it will stand in front of, kept frozen."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="Denoiser: mse, stability or mse-stability (default with --for)."),
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            "--sigmas", help="Denoiser: several noise levels in one network, such as 0.12,0.25,0.5."
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Denoiser: checkpoint whose weights training starts from.")
    ] = None,
    query_access: Annotated[
        bool,
        typer.Option("--query-access", help="Denoiser: ask the classifier for labels only, no gradients."),
    ] = False,
    surrogate: Annotated[
        str | None,
        typer.Option(
            "--surrogate", help="With --query-access: the network that stands in. Default: cnn, mlp."
        ),
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
    ctx: typer.Context = None,  # type: ignore[assignment]  # the command passes it, a caller need not
) -> None:
    """Train a network under noise, or a denoiser; an interrupted training goes on from its last epoch."""
    if listing:
        _list()
        return
    from certify import data as datasets
    from certify.errors import InvalidSetting
    from certify.interruption import telling
    from pdenets.distributed import leads
    from pdenets.progress import progress_bar
    from pdenets.training import train as run_training
    from pdenets.training_state import state_path

    if out is None:
        raise InvalidSetting(
            "no file to write the checkpoint to",
            why="--out is missing",
            remedy=f"add --out {data if data.isidentifier() else 'model'}.pt",
        )
    if denoiser is not None:
        _refuse_network(ctx)
        train_denoiser.run(
            train_denoiser.Wanted(
                denoiser, out, train_denoiser.data_of(data, classifier, typed=_typed(ctx, "data")),
                train_denoiser.sigma_list(sigma, sigmas),
                common.json_object(denoiser_args, "--denoiser-args"), classifier, loss, start, query_access,
                surrogate, arch if _typed(ctx, "arch") else None, arch_args,
                {k: v for k, v in {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment,
                                   "schedule": schedule if _typed(ctx, "schedule") else None}.items()
                 if v is not None},
                limit, data_root, download, seed, device,
            ),
            as_json=as_json,
        )  # fmt: skip
        return
    _refuse_denoising(
        {"--denoiser-args": denoiser_args, "--for": classifier, "--loss": loss, "--sigmas": sigmas,
         "--start": start, "--query-access": query_access or None, "--surrogate": surrogate}
    )  # fmt: skip
    chosen = {"root": data_root, "download": download, "seed": seed}
    train_data = datasets.load(data, split="train", limit=limit, **chosen)
    arguments, extra = common.json_object(arch_args, "--arch-args"), common.json_object(options, "--options")
    state = state_path(out)

    def kept() -> str:
        if state.exists():
            return (
                f"the training up to its last saved epoch is in {state}; the same command goes on from there"
            )
        return "no epoch was saved yet; the same command begins again"

    bar = progress_bar(title=f"training {arch}") if leads() else nullcontext()
    with telling(kept), bar as report:
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
            average=average,
            seed=seed,
            device=common.pick_device(device),
            progress=report,
        )
    if leads():
        _print(result, sigma, arch, as_json=as_json)


def _typed(ctx: typer.Context | None, name: str) -> bool:
    """Whether the user wrote the option, rather than leaving it to its default."""
    source = None if ctx is None else ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_network(ctx: typer.Context | None) -> None:
    """Options of a classifier's training that a denoiser's has no use for."""
    from certify.errors import InvalidSetting

    for name in ("regulariser", "options", "weight_decay", "optimizer", "nesterov"):
        if _typed(ctx, name):
            raise InvalidSetting(
                f"--{name.replace('_', '-')} has no meaning for a denoiser",
                why="it is trained by Adam on its own losses (--loss)",
                remedy="leave it out",
            )


def _refuse_denoising(given: dict[str, Any]) -> None:
    from certify.errors import InvalidSetting

    for option, value in given.items():
        if value is not None:
            raise InvalidSetting(
                f"{option} has no meaning without --denoiser",
                why="it says how a denoiser is trained",
                remedy="add --denoiser dncnn or another one (see --list), or leave it out",
            )


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
    from pdenets.denoisers import denoiser_catalogue
    from pdenets.regularisers import REGULARISERS

    console = common.tables()
    described = {name: (text, reference) for name, text, reference in pdenets.catalogue()}
    table = Table("architecture", "what it is", "reference")
    for name in registry.names():
        table.add_row(name, *described.get(name, ("registered by another package", "")))
    console.print(table)
    denoisers = Table("denoiser", "what it is", "reference")
    for row in denoiser_catalogue():
        denoisers.add_row(*row)
    console.print(denoisers)
    console.print(f"regularisers: {', '.join(REGULARISERS)}")
    console.print(f"data sets: {', '.join(data.names())}, or a .npz file")
