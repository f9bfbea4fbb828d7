"""``certify radius``: certify the inputs of a data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common

if TYPE_CHECKING:
    from certify import Run, Smoothed
    from certify.data import Dataset

EPILOG = (
    "Example: certify radius --model ckpt.pt --sigma 0.25        "
    "Cohen's procedure: certify radius --model ckpt.pt --sigma 0.25 --mode fixed --n0 100 --n 10000"
)
#: Radii at which certified accuracy is reported, in units of sigma.
REPORT_AT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def register(app: typer.Typer) -> None:
    app.command("radius", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(radius))


def radius(
    model: common.Model,
    sigma: Annotated[
        float, typer.Option("--sigma", "-s", help="Standard deviation of the noise.", show_default=False)
    ],
    data: common.Data = None,
    split: common.Split = "test",
    limit: common.Limit = None,
    skip: common.Skip = 0,
    data_root: common.DataRoot = None,
    mode: Annotated[str, typer.Option("--mode", help="radius, grid, decide or fixed.")] = "radius",
    alpha: Annotated[float, typer.Option("--alpha", help="Probability that a certificate is wrong.")] = 0.001,
    n_max: Annotated[int, typer.Option("--n-max", help="Most samples spent on one input.")] = 100_000,
    slack: Annotated[
        float | None, typer.Option("--slack", help="radius: stop within this share of the best radius.")
    ] = None,
    step: Annotated[float | None, typer.Option("--step", help="grid: distance of the radii tried.")] = None,
    at: Annotated[float | None, typer.Option("--radius", help="decide: the radius in question.")] = None,
    n0: Annotated[int | None, typer.Option("--n0", help="fixed: samples to select the class.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="fixed: samples to bound its probability.")] = None,
    noise: Annotated[
        str, typer.Option("--noise", help="lattice (sound) or gaussian (exact arithmetic).")
    ] = "lattice",
    grid: Annotated[
        float | None, typer.Option("--grid", help="Step of the input lattice. Default: the checkpoint's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory. Default: runs/<model>-<settings>.")
    ] = None,
    seed: common.Seed = 0,
    device: common.Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="fp32 or bf16: part of the certified classifier.")
    ] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="Run the model through torch.compile.")] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Default: tuned. Only affects speed.")
    ] = None,
    arch: common.Arch = None,
    arch_args: common.ArchArgs = None,
    formulas: Annotated[bool, typer.Option("--formulas", help="Add the radius by every formula.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Prove, input by input, how far the smoothed classifier cannot change its class."""
    import certify

    arguments = common.json_object(arch_args, "--arch-args")
    options = _mode_options(mode, {"slack": slack, "step": step, "radius": at, "n0": n0, "n": n})
    if mode == "fixed":
        n_max = 0
    network = certify.load(model, device=common.pick_device(device), arch=arch, arguments=arguments)
    header = getattr(network, "certify_header", None)
    dataset = common.open_data(header, data, split=split, root=data_root, limit=limit, skip=skip)
    smoothed = certify.Smoothed(
        network,
        sigma,
        num_classes=dataset.num_classes,
        noise=noise,
        grid=grid if grid is not None else dataset.grid,
        bounds=(dataset.low, dataset.high),
        batch_size=batch_size,
        dtype=dtype,
        compiled=compiled,
    )
    described = provenance(model, network, dataset, skip=skip, limit=limit)
    asked = {"alpha": alpha, "mode": mode, "n_max": n_max, "seed": seed, **options}
    place = out or default_directory(model, dataset, smoothed, asked, described)
    began = time.perf_counter()
    run, fresh = _certify(smoothed, dataset, place, asked, described)
    summary = summarize(run, place) | {"fresh_inputs": fresh, "wall_seconds": time.perf_counter() - began}
    if formulas:
        summary["formulas"] = _formulas(run)
    if as_json:
        common.print_json(summary)
    else:
        _print(summary)


def provenance(path: Path, network: Any, dataset: Dataset, *, skip: int, limit: int | None) -> dict[str, Any]:
    """What the certificates are about: model and data by digest, versions, and the command."""
    import platform

    import numpy as np
    import torch

    import certify
    from certify.checkpoints import tensor_digest

    header = getattr(network, "certify_header", None)
    return {
        "model": {
            "path_name": str(path),
            "architecture": header.architecture if header else None,
            "arguments": dict(header.arguments) if header else None,
            "digest": tensor_digest(network.state_dict()),
        },
        "data": {"name": dataset.name, "split": dataset.split, "limit": limit, "skip": skip},
        "versions": {
            "certify": certify.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": common.command_line(),
    }


def default_directory(
    model: Path, dataset: Dataset, smoothed: Smoothed, asked: dict, described: dict
) -> Path:
    """runs/<model>-<data>-s<sigma>-<mode>-<digest of everything that decides a record>."""
    import hashlib
    import json

    decisive = [
        described["model"]["digest"],
        dataset.name,
        dataset.split,
        smoothed.sigma_scale,
        smoothed.noise.settings(),
        smoothed.grid,
        smoothed.classifier.dtype,
        smoothed.classifier.compiled,
        smoothed.device.type,
        asked,
    ]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path("runs") / f"{model.stem}-{dataset.name}-s{smoothed.sigma_scale:g}-{asked['mode']}-{digest}"


def summarize(run: Run, place: Path | None) -> dict[str, Any]:
    """The run in one JSON object: counts, accuracies with intervals, cost, guarantee."""
    from certify import Status

    tally = {status: sum(r.status is status for r in run) for status in Status}
    labelled = len(run) > 0 and all(r.target is not None for r in run)
    sigma = run.settings["sigma"]
    estimates = run.accuracy([round(sigma * f, 6) for f in REPORT_AT]) if labelled else []
    rows = [
        {"radius": e.at, "value": e.value, "low": e.low, "high": e.high, "level": e.level} for e in estimates
    ]
    return {
        "run": None if place is None else str(place),
        "inputs": len(run),
        "certified": tally[Status.CERTIFIED],
        "abstained": tally[Status.ABSTAINED],
        "failed": tally[Status.FAILED],
        "clean_accuracy": rows[0]["value"] if rows else None,
        "certified_accuracy": rows,
        "mean_radius": run.mean_radius(),
        "samples_per_input": sum(r.samples for r in run) / len(run) if len(run) else 0.0,
        "settings": run.settings,
        "guarantee": run.guarantee,
    }


def _mode_options(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that belong to ``mode``; one given for another mode is an error, not ignored."""
    from certify.errors import InvalidSetting

    belongs = {"radius": {"slack"}, "grid": {"step"}, "decide": {"radius"}, "fixed": {"n0", "n"}}
    if mode not in belongs:
        raise InvalidSetting(
            f"mode {mode!r} is unknown",
            why=f"a run has one of the modes {', '.join(belongs)}",
            remedy="use --mode radius (the default)",
        )
    given = {k: v for k, v in given.items() if v is not None}
    if stray := sorted(set(given) - belongs[mode]):
        raise InvalidSetting(
            f"--{stray[0]} has no meaning in mode {mode}",
            why=f"mode {mode} takes {', '.join('--' + o for o in sorted(belongs[mode]))}",
            remedy=f"leave --{stray[0]} out, or choose the mode it belongs to with --mode",
        )
    if mode == "decide" and "radius" not in given:
        raise InvalidSetting(
            "decide needs a radius",
            why="it answers whether each radius is at least the one asked for",
            remedy="add --radius 0.5",
        )
    return given


def _certify(
    smoothed: Smoothed, dataset: Dataset, place: Path, asked: dict, described: dict
) -> tuple[Run, int]:
    done: list[Any] = []
    samples = 0

    def on_samples(count: int) -> None:
        nonlocal samples
        samples += count
        advance(0, note=_note(done, samples, time.perf_counter() - began))

    def on_record(record: Any) -> None:
        done.append(record)
        advance(1, note=_note(done, samples, time.perf_counter() - began))

    with common.progress("certifying", len(dataset.x)) as advance:
        began = time.perf_counter()
        run = smoothed.certify(
            dataset.x,
            dataset.y,
            ids=dataset.ids.tolist(),
            store=str(place),
            settings=described,
            on_record=on_record,
            on_samples=on_samples,
            **asked,
        )
    return run, len(done)


def _note(done: list[Any], samples: int, elapsed: float) -> str:
    share = sum(bool(r.correct) for r in done) / len(done) if done else 0.0
    return f"{samples / max(elapsed, 1e-9):,.0f} samples/s, certified and correct {share:.1%}"


def _formulas(run: Run) -> list[dict[str, Any]]:
    from certify.radii import formula_table

    sigma, dim = run.settings["sigma"], run.settings["dim"]
    return [{"index": r.index, "radii": formula_table(r, sigma, dim)} for r in run if r.certified]


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    console = common.tables()
    table = Table(title=f"certified accuracy, {summary['inputs']} inputs", title_justify="left")
    for heading in ("l2 radius", "accuracy", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in summary["certified_accuracy"]:
        table.add_row(f"{row['radius']:.3f}", f"{row['value']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}")
    console.print(table)
    console.print(
        f"certified {summary['certified']}, abstained {summary['abstained']}, failed {summary['failed']}; "
        f"mean radius {int(summary['mean_radius'] * 1e4) / 1e4:.4f}; "
        f"{summary['samples_per_input']:,.0f} samples per input"
    )
    console.print(f"\n{summary['guarantee']}\n")
    console.print(f"run directory: {summary['run']}", soft_wrap=True)
    console.print(f"next: certify attack {summary['run']}", soft_wrap=True)
