"""``certify plan``: what a full run will cost, before it is paid for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, completion, denoisers, models

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset

EPILOG = "Example: certify plan --model ckpt.pt --sigma 0.25 --inputs 10000 --hours 2"


def register(app: typer.Typer) -> None:
    app.command("plan", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(plan))


def plan(
    model: common.Model,
    sigma: common.Sigma = None,
    data: common.Data = None,
    label: common.Label = None,
    split: common.Split = "test",
    data_root: common.DataRoot = None,
    inputs: Annotated[
        int | None, typer.Option("--inputs", min=1, help="Inputs of the full run. Default: the whole split.")
    ] = None,
    pilot: Annotated[int, typer.Option("--pilot", min=2, help="Inputs of the pilot.")] = 30,
    pilot_samples: Annotated[
        int, typer.Option("--pilot-samples", min=10, help="Samples per pilot input.")
    ] = 1000,
    alpha: Annotated[float, typer.Option("--alpha", help="Probability that a certificate is wrong.")] = 0.001,
    n_max: Annotated[int, typer.Option("--n-max", help="Most samples spent on one input.")] = 100_000,
    at: Annotated[float, typer.Option("--radius", help="The radius of mode decide.")] = 0.5,
    step: Annotated[float, typer.Option("--step", help="The step of mode grid.")] = 0.25,
    hours: Annotated[float, typer.Option("--hours", help="Time limit that workers are counted for.")] = 1.0,
    noise: Annotated[
        str,
        typer.Option(
            "--noise",
            help="lattice, gaussian or internal.",
            autocompletion=completion.one_of("lattice", "gaussian", "internal"),
        ),
    ] = "lattice",
    grid: Annotated[float | None, typer.Option("--grid", help="Step of the input lattice.")] = None,
    denoiser: denoisers.Denoiser = None,
    denoiser_args: denoisers.DenoiserArgs = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    arch: common.Arch = None,
    arch_args: common.ArchArgs = None,
    trust: common.Trust = False,
    entry: models.Entry = None,
    mean: models.Mean = None,
    std: models.Std = None,
    as_json: common.AsJson = False,
) -> None:
    """Sample a few inputs, then forecast samples, hours and workers of a full run in every mode."""
    import numpy as np

    from certify.planning import forecast
    from certify.procedures import make_procedure
    from certify_cli.smoothed import smoothed_for

    network, dataset = common.open_model(
        model,
        data=data,
        split=split,
        root=data_root,
        device=device,
        arch=arch,
        arch_args=arch_args,
        trust=trust,
        entry=entry,
        mean=mean,
        std=std,
        label=label,
    )
    front = denoisers.Asked(denoiser, denoiser_args, data_root)
    network, sigma = denoisers.with_denoiser(network, dataset, sigma, front)
    smoothed = smoothed_for(network, sigma, dataset, noise=noise, grid=grid)
    counts, rate = _pilot(smoothed, dataset, min(pilot, len(dataset)), pilot_samples, seed)
    total = inputs or len(dataset)
    modes: dict[str, dict[str, Any]] = {
        "decide": {"radius": at}, "grid": {"step": step}, "radius": {}, "fixed": {"n0": 100, "n": n_max},
    }  # fmt: skip
    rows = []
    for mode, options in modes.items():
        procedure = make_procedure(
            mode, alpha=alpha, sigma=smoothed.sigma_scale, n_max=n_max, classes=counts.shape[1], **options
        )
        found = forecast(counts, procedure, inputs=total, generator=np.random.default_rng(seed))
        needed = found.hours(rate)
        per = found.samples_per_input
        rows.append(
            {
                "mode": mode,
                "options": options,
                "samples_per_input": {
                    "value": per.value,
                    "low": per.low,
                    "high": per.high,
                    "level": per.level,
                },
                "certified": found.certified,
                "hours": {"value": needed.value, "low": needed.low, "high": needed.high},
                "workers": found.workers(rate, hours),
            }
        )
    result = {
        "inputs": total, "pilot_inputs": len(counts), "pilot_samples": pilot_samples,
        "samples_per_second": rate, "hours_limit": hours, "modes": rows,
    }  # fmt: skip
    if as_json:
        common.print_json(result)
    else:
        _print(result)
        again = f"{common.own_network(arch)}{denoisers.repeat(front)}"
        common.say_next(f"certify radius --model {model}{again} --mode radius")


def _pilot(smoothed: Smoothed, dataset: Dataset, pilot: int, samples: int, seed: int) -> tuple[Any, float]:
    """Class counts of ``pilot`` inputs spread evenly over the split, and samples per second."""
    import numpy as np

    rows = np.linspace(0, len(dataset) - 1, pilot).round().astype(int)
    x, ids = dataset.x[rows], dataset.ids[rows].tolist()
    smoothed.predict(x[:1], n=10, seed=seed, ids=ids[:1])  # tunes the batch size outside the timing
    began = time.perf_counter()
    found = smoothed.predict(x, n=samples, seed=seed, ids=ids)
    rate = pilot * samples / (time.perf_counter() - began)
    return np.array([p.counts for p in found]), rate


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    console = common.tables()
    title = f"forecast for {result['inputs']:,} inputs from a pilot of {result['pilot_inputs']}"
    table = Table(title=title, title_justify="left")
    for heading in (
        "mode",
        "samples per input",
        "hours, 1 worker",
        f"workers for {result['hours_limit']:g} h",
    ):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for row in result["modes"]:
        option = ", ".join(f"{k} {v:g}" for k, v in row["options"].items())
        per, hours = row["samples_per_input"], row["hours"]
        table.add_row(
            f"{row['mode']} {option}".strip(),
            f"{per['value']:,.0f} ({per['low']:,.0f} to {per['high']:,.0f})",
            f"{hours['value']:.3g} ({hours['low']:.3g} to {hours['high']:.3g})",
            str(row["workers"]),
        )
    console.print(table)
    console.print(f"{result['samples_per_second']:,.0f} samples per second here; intervals at 95 %")
