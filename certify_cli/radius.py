"""``certify radius``: certify the inputs of a data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import (
    attack,
    choosing,
    common,
    completion,
    denoisers,
    engines,
    models,
    pixels,
    provenance,
    summary,
)
from certify_cli.smoothed import smoothed_for

if TYPE_CHECKING:
    from certify import Run, Smoothed
    from certify.data import Dataset

EPILOG = (
    "Example: certify radius --model ckpt.pt --sigma 0.25\n\n"
    "Cohen's procedure: certify radius --model ckpt.pt --sigma 0.25 --mode fixed --n0 100 --n 10000\n\n"
    "pixels of a segmenter at one radius: certify radius --model unet.pt --radius 0.17"
)


def register(app: typer.Typer) -> None:
    app.command("radius", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(radius))


def radius(
    model: common.Model,
    sigma: common.Sigma = None,
    data: common.Data = None,
    label: common.Label = None,
    split: common.Split = "test",
    limit: common.Limit = None,
    skip: common.Skip = 0,
    data_root: common.DataRoot = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="radius (any number), grid (multiples of --step), decide (--radius: yes or no) or "
            "fixed (--n0 and --n samples).",
            autocompletion=completion.one_of(*completion.MODES),
        ),
    ] = "radius",
    scores: Annotated[
        str,
        typer.Option(
            "--scores",
            help="votes, or mean softmax scores: soft, distribution.",
            autocompletion=completion.one_of(*completion.SCORES),
        ),
    ] = "votes",
    alpha: Annotated[float, typer.Option("--alpha", help="Probability that a certificate is wrong.")] = 0.001,
    n_max: Annotated[int, typer.Option("--n-max", help="Most samples spent on one input.")] = 100_000,
    slack: Annotated[
        float | None,
        typer.Option("--slack", help="radius: stop within this share of the best radius. Default: 0.05."),
    ] = None,
    step: Annotated[float | None, typer.Option("--step", help="grid: distance of the radii tried.")] = None,
    at: Annotated[
        float | None, typer.Option("--radius", help="decide, segmentation: the radius in question.")
    ] = None,
    correction: Annotated[
        str | None,
        typer.Option("--correction", help="segmentation: holm (default with --radius) or bonferroni."),
    ] = None,
    tolerate: Annotated[
        float | None,
        typer.Option(
            "--tolerate", help="segmentation: share of an image's pixels that may be certified wrongly."
        ),
    ] = None,
    n0: Annotated[int | None, typer.Option("--n0", help="fixed: samples to select the class.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="fixed: samples to bound its probability.")] = None,
    randomised: Annotated[
        bool,
        typer.Option("--randomised", help="fixed: draw a number between two counts; larger bounds."),
    ] = False,
    runner_up: Annotated[
        bool | None,
        typer.Option(
            "--runner-up/--no-runner-up",
            help="Bound the other classes, too: larger radii. Default: with more than two classes.",
            show_default=False,
        ),
    ] = None,
    norm: Annotated[str, typer.Option("--norm", help="2, inf, 1 or another p >= 1.")] = "2",
    noise: Annotated[
        str,
        typer.Option(
            "--noise",
            help="lattice (sound); exact arithmetic: gaussian, uniform, laplace, internal.",
            autocompletion=completion.one_of(*completion.NOISES),
        ),
    ] = "lattice",
    grid: Annotated[
        float | None, typer.Option("--grid", help="Step of the input lattice. Default: the checkpoint's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Run directory; a run that is there goes on. Default: runs/<model>-..."),
    ] = None,
    seed: common.RunSeed = None,
    device: common.Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="fp32 or bf16: part of the certified classifier.")
    ] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="Run the model through torch.compile.")] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Default: tuned. Only affects speed.")
    ] = None,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="Attack inside every certified ball; exit 1 on a hit.")
    ] = False,
    denoiser: denoisers.Denoiser = None,
    denoiser_args: denoisers.DenoiserArgs = None,
    pilot: Annotated[
        float | None,
        typer.Option(
            "--pilot", help="Share of the inputs that choose among several denoisers, not certified."
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="i/n: every n-th input from the i-th on; see certify merge.")
    ] = None,
    engine: engines.Engine = "local",
    workers: engines.Workers = None,
    address: engines.Address = None,
    arch: common.Arch = None,
    arch_args: common.ArchArgs = None,
    trust: common.Trust = False,
    entry: models.Entry = None,
    mean: models.Mean = None,
    std: models.Std = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help='Exit 1 unless, such as "certified@0.5>=0.9". May be repeated.'),
    ] = None,
    formulas: Annotated[bool, typer.Option("--formulas", help="Add the radius by every formula.")] = False,
    as_json: common.AsJson = False,
    ctx: typer.Context = None,  # type: ignore[assignment]  # the command passes it, a caller need not
) -> None:
    """Prove, input by input, how far the smoothed classifier cannot change its class."""
    gates = summary.parse_gates(require or [])
    where = engines.pick(engine, workers, address)
    network, dataset = common.open_model(
        model, data=data, split=split, root=data_root, limit=limit, skip=skip,
        device=device, arch=arch, arch_args=arch_args, trust=trust, pixels=True,
        entry=entry, mean=mean, std=std, label=label,
    )  # fmt: skip
    front = denoisers.Asked(denoiser, denoiser_args, data_root)
    chosen = choosing.pick(network, dataset, sigma, front, share=pilot)
    network, sigma, dataset = chosen.network, chosen.sigma, chosen.dataset
    part = common.shard_of(dataset, shard)
    if dataset.task == "segmentation":
        pixels.certify_pixels(
            ctx, network, dataset, part=part, model=model, sigma=sigma, out=out, gates=gates, as_json=as_json,
            challenge=challenge,
            asked={"alpha": alpha, "radius": at, "correction": correction, "n0": n0, "n": n, "seed": seed,
                   "tolerate": tolerate},
            options={"noise": noise, "norm": norm, "grid": grid, "dtype": dtype, "compiled": compiled,
                     "batch_size": batch_size},
            recorded={"shard": shard, "batch_size": batch_size, "skip": skip, "limit": limit},
        )  # fmt: skip
        return
    given = {"slack": slack, "step": step, "radius": at, "n0": n0, "n": n, "randomised": randomised or None}
    options = _mode_options(mode, given)
    options |= {} if runner_up is None else {"runner_up": runner_up}
    _refuse_correction({"--correction": correction, "--tolerate": tolerate})
    smoothed = smoothed_for(
        network,
        sigma,
        dataset,
        noise=noise,
        norm=norm,
        grid=grid,
        batch_size=batch_size,
        dtype=dtype,
        compiled=compiled,
    )
    described = provenance.provenance(model, network, dataset, part=part, skip=skip, limit=limit)
    described["environment"] = {
        "shard": shard,
        "batch_size": batch_size,
        "engine": engine,
        "workers": workers,
        **provenance.here(),
    }
    if chosen.record:
        described["denoiser_choice"] = chosen.record
        described["environment"] |= chosen.seen
    asked = {"alpha": alpha, "mode": mode, "scores": scores, "n_max": n_max, "seed": seed, **options}
    place = out or provenance.default_directory(model, dataset, smoothed, asked, described)
    common.refuse_unseeded(shard, seed, place)
    began = time.perf_counter()
    run, fresh = _certify(smoothed, part, place, asked, described, where)
    result = summary.summarize(run, place) | {
        "fresh_inputs": fresh,
        "wall_seconds": time.perf_counter() - began,
        **summary.judge(gates, lambda at: run.mean_radius() if at is None else run.accuracy([at])[0].value),
    }
    if formulas:
        result["formulas"] = summary.formulas(run)
    if as_json:
        common.print_json(result)
    else:
        summary.show(result)
    _refuse_overlaps(run, dataset)
    _keep_maps(network, run, dataset, place)
    if challenge:
        attack.challenge(smoothed, run, part, place, seed=int(run.settings["seed"]) + 1)
    summary.enforce(result)


def _refuse_correction(given: dict[str, Any]) -> None:
    from certify.errors import InvalidSetting

    for option in (name for name, value in given.items() if value is not None):
        raise InvalidSetting(
            f"{option} has no meaning for a classifier",
            why="it says how the pixels of one image are tested together",
            remedy="leave it out, or certify a segmentation model",
        )


def _mode_options(mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that belong to ``mode``; one given for another mode is an error, not ignored."""
    from certify.errors import InvalidSetting

    belongs = {
        "radius": {"slack"},
        "grid": {"step"},
        "decide": {"radius"},
        "fixed": {"n0", "n", "randomised"},
    }
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
    smoothed: Smoothed, dataset: Dataset, place: Path, asked: dict, described: dict, engine: Any
) -> tuple[Run, int]:
    from certify.forecast import Forecast
    from certify.interruption import telling
    from certify.progress import progress

    done: list[Any] = []
    stored = _stored(place)

    def show(more: int = 0) -> None:
        note = _note(done, forecast.drawn, time.perf_counter() - began)
        advance(more, note=note, left=forecast.left())

    forecast = Forecast(len(dataset.x) - stored, shown=show)

    def on_record(record: Any) -> None:
        done.append(record)
        forecast.done.append(record.samples)
        show(1)

    def kept() -> str:
        return (
            f"{len(done)} new inputs of {len(dataset.x)} are certified and stored in {place}; the same "
            "command goes on from there"
        )

    with telling(kept), progress("certifying", len(dataset.x), done=stored) as advance:
        began = time.perf_counter()
        run = smoothed.certify(
            dataset.x,
            dataset.labels,
            ids=dataset.ids.tolist(),
            store=str(place),
            settings=described,
            on_record=on_record,
            on_samples=forecast,
            engine=engine,
            **asked,
        )
    return run, len(done)


def _stored(place: Path) -> int:
    """How many inputs an earlier call has certified there. What is wrong there, the call itself will say."""
    from certify.errors import CertifyError
    from certify.store import read_run

    try:
        return len(read_run(place).run.records)
    except (CertifyError, OSError):
        return 0


def _refuse_overlaps(run: Run, dataset: Dataset) -> None:
    """Two balls that meet must not carry different classes: it would refute one of them."""
    import torch

    from certify.overlaps import refuse_overlaps

    if run.settings["norm"] not in ("1", "2", "inf"):
        return
    place = {int(id): i for i, id in enumerate(dataset.ids)}
    here = [r for r in run if r.index in place]
    rows = torch.tensor([place[r.index] for r in here], dtype=torch.int64)
    refuse_overlaps(dataset.x[rows], here, norm=run.settings["norm"])


def _keep_maps(network: Any, run: Run, dataset: Dataset, place: Path) -> None:
    """For networks with a diffusion-advection layer: its coefficients on the first input, for the report."""
    from torch import nn

    import reports
    from certify.store import open_run
    from pdenets.global_nets import coefficient_maps

    layers = coefficient_maps(network, dataset.x[:1]) if isinstance(network, nn.Module) else []
    if layers:
        with open_run(place, run.settings, run.guarantee) as store:
            store.put_document("maps", reports.maps_document(layers))


def _note(done: list[Any], samples: int, elapsed: float) -> str:
    """Once inputs are done, the share of them that is proved (right, where labelled); and the rate so far."""
    rate = f"{samples / max(elapsed, 1e-9):,.0f} samples/s"
    if not done:
        return rate
    labelled = all(r.target is not None for r in done)
    share = sum(bool(r.correct) if labelled else r.certified for r in done) / len(done)
    return f"{'proved right' if labelled else 'certified'} {share:.1%}, {rate}"
