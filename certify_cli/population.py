"""``certify population``: one statement about a population, from a few noisy copies of each input."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certify_cli import common, completion, denoisers, engines, models, provenance, summary
from certify_cli.smoothed import smoothed_for

if TYPE_CHECKING:
    from certify import Run, Smoothed
    from certify.data import Dataset

EPILOG = (
    "Example: certify population --model ckpt.pt --radius 0.5\n\n"
    "one pass per input: certify population --model ckpt.pt --radius 0.25 --one-pass"
)


def register(app: typer.Typer) -> None:
    app.command("population", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(population))


def population(
    model: common.Model,
    radius: Annotated[
        list[float],
        typer.Option("--radius", help="l2 radius to state. May be repeated: the radii share the level."),
    ],
    sigma: common.Sigma = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Noisy copies of each input. Default: 25; 1 with --one-pass."),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Of all lower ends together; of all upper ends together.")
    ] = 0.999,
    pilot: Annotated[
        float | None,
        typer.Option(
            "--pilot", help="Share of inputs that chooses the rule, uncounted. Default: 0.1; 0 for one copy."
        ),
    ] = None,
    about: Annotated[
        str,
        typer.Option("--about", help="population, or set: the very split that the inputs are drawn from."),
    ] = "population",
    one_pass: Annotated[
        bool,
        typer.Option(
            "--one-pass", help="State the attacked accuracy of the classifier that looks once, too."
        ),
    ] = False,
    shift: Annotated[
        float | None,
        typer.Option(
            "--shift", help="With --one-pass: its accuracy after a shift of this mean l2 size, too."
        ),
    ] = None,
    data: common.Data = None,
    split: common.Split = "test",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=2, help="Only M inputs of the split, drawn at random by the seed."),
    ] = None,
    data_root: common.DataRoot = None,
    noise: Annotated[
        str,
        typer.Option(
            "--noise",
            help="lattice (sound), or gaussian: exact arithmetic.",
            autocompletion=completion.one_of("lattice", "gaussian"),
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
    denoiser: denoisers.Denoiser = None,
    denoiser_args: denoisers.DenoiserArgs = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help='Exit 1 unless, such as "population@0.5>=0.9". May be repeated.'),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """State on what share of a population the model is right and stays right; certify no single input."""
    gates = parse_gates(require or [], radius, one_pass=one_pass)
    where = engines.pick(engine, workers, address)
    network, dataset = common.open_model(
        model, data=data, split=split, root=data_root, device=device, arch=arch, arch_args=arch_args,
        trust=trust, entry=entry, mean=mean, std=std,
    )  # fmt: skip
    refuse_training_data(network, dataset)
    front = denoisers.Asked(denoiser, denoiser_args, data_root)
    network, sigma = denoisers.with_denoiser(network, dataset, sigma, front)
    smoothed = smoothed_for(
        network, sigma, dataset, noise=noise, norm="2", grid=grid, batch_size=batch_size, dtype=dtype,
        compiled=compiled,
    )  # fmt: skip
    described = provenance.provenance(model, network, dataset, part=dataset, skip=0, limit=None)
    described["environment"] = {
        "shard": shard, "batch_size": batch_size, "engine": engine, "workers": workers,
        **provenance.here(),
    }  # fmt: skip
    asked = {
        "radii": radius, "samples": samples, "inputs": limit, "confidence": confidence, "pilot": pilot,
        "about": about, "one_pass": one_pass, "shift": shift, "seed": seed,
    }  # fmt: skip
    place = out or provenance.default_directory(
        model, dataset, smoothed, asked | {"mode": "population"}, described
    )
    common.refuse_unseeded(shard, seed, place)
    began = time.perf_counter()
    run, passes = _count(smoothed, dataset, place, asked, described, where, _part(shard, dataset))
    result = summarize(run, place) | {"fresh_passes": passes, "wall_seconds": time.perf_counter() - began}
    result |= judge(gates, result)
    if as_json:
        common.print_json(result)
    else:
        show(result)
    summary.enforce(result)


def _count(
    smoothed: Smoothed, dataset: Dataset, place: Path, asked: dict[str, Any], described: dict[str, Any],
    engine: Any, part: tuple[int, int],
) -> tuple[Run, int]:  # fmt: skip
    """The run as it is afterwards, and the passes that were made now."""
    from certify.interruption import telling
    from certify.population.run import count_population
    from certify.progress import progress

    inputs = passes = 0

    def on_samples(more: int, drawn: int) -> None:
        nonlocal inputs, passes
        inputs, passes = inputs + more, passes + drawn
        advance(more, note=f"{passes / max(time.perf_counter() - began, 1e-9):,.0f} samples/s")

    def kept() -> str:
        return f"{inputs} new inputs are counted and stored in {place}; the same command goes on from there"

    total = -(-(asked["inputs"] or len(dataset)) // part[1])
    with telling(kept), progress("counting", total) as advance:
        began = time.perf_counter()
        run = count_population(
            smoothed, dataset.x, dataset.labels, store=place, settings=described, part=part,
            on_samples=on_samples, engine=engine, **asked,
        )  # fmt: skip
    return run, passes


def summarize(run: Run, place: Path) -> dict[str, Any]:
    """The statements in one JSON object: the first radius at the top, all of them under "statements".

    ``complete`` is false, and nothing is stated, where inputs are missing (a shard, lost workers).
    """
    from dataclasses import asdict

    from certify.population.statements import missing, state

    left = missing(run)
    stated = [] if left else [asdict(s) for s in state(run).statements]
    options = run.settings["mode_options"]
    empty = {
        "radius": options["radii"][0], "samples_per_input": options["n"], "inputs": options["inputs"],
        "passes": sum(r.samples for r in run), "lower": None, "upper": None,
        "confidence": 1 - options["alpha"], "method": None, "one_pass": None,
        "statement": f"Nothing is stated yet: {left} of {options['inputs']} inputs have no counts.",
    }  # fmt: skip
    return {
        "run": str(place), "task": "population", "complete": not left, **(stated[0] if stated else empty),
        "statements": stated, "settings": run.settings, "guarantee": run.guarantee,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """The statements as a table and as sentences on stdout."""
    from rich.table import Table

    from reports.numbers import distance_up, radius_down

    console = common.tables()
    if result["complete"]:
        table = Table(
            title=f"share of the {result['settings']['mode_options']['about']}", title_justify="left"
        )
        one = result["one_pass"] is not None
        for heading in ("l2 radius", "at least", "at most", *(["one copy, at least"] if one else [])):
            table.add_column(heading, justify="right")
        for row in result["statements"]:
            last = [radius_down(row["one_pass"], 4)] if one else []
            table.add_row(
                f"{row['radius']:g}", radius_down(row["lower"], 4), distance_up(row["upper"], 4), *last
            )
        console.print(table)
    for row in result["statements"] or [result]:
        console.print(f"{row['statement']}\n", soft_wrap=True)
    summary.show_requirements(result)
    console.print(
        f"{result['passes']:,} passes; run directory: {result['run']}", soft_wrap=True, markup=False
    )
    if result["complete"]:
        common.say_next(f"certify verify {result['run']}")


def parse_gates(
    texts: list[str], radii: list[float], *, one_pass: bool
) -> list[tuple[str, str, float, float]]:
    """(text, quantity, radius, least value) of gates such as "population@0.5>=0.9"."""
    from certify.errors import InvalidSetting

    number = r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)"
    gates = []
    for text in texts:
        found = re.fullmatch(rf"\s*(population|one_pass)@{number}\s*>=\s*{number}\s*", text)
        if found is None or float(found[3]) > 1:
            raise InvalidSetting(
                f"--require {text!r} is not a requirement",
                why="it names a stated share at a radius and the least it must be, at most 1",
                remedy='write --require "population@0.5>=0.9" or, with --one-pass, "one_pass@0.25>=0.8"',
            )
        if float(found[2]) not in radii or (found[1] == "one_pass" and not one_pass):
            raise InvalidSetting(
                f"--require {text!r} asks for what is not stated",
                why=f"the radii are {', '.join(f'{r:g}' for r in radii)}"
                + ("" if one_pass else ", and the one-copy classifier is left out"),
                remedy=f"add --radius {found[2]}" + (" --one-pass" if found[1] == "one_pass" else ""),
            )
        gates.append((f"{found[1]}@{found[2]}", found[1], float(found[2]), float(found[3])))
    return gates


def judge(gates: list[tuple[str, str, float, float]], result: dict[str, Any]) -> dict[str, Any]:
    """What was required beside what is proved; a shard or an incomplete run meets nothing."""
    by_radius = {row["radius"]: row for row in result["statements"]}
    rows = []
    for name, quantity, at, least in gates:
        row = by_radius.get(at) or {}
        value = row.get("lower" if quantity == "population" else "one_pass") or 0.0
        rows.append({"quantity": name, "least": least, "value": value, "met": bool(row) and value >= least})
    return {"requirements": rows} if rows else {}


def refuse_training_data(network: Any, dataset: Dataset) -> None:
    """Raise InvalidSetting where the checkpoint says that it was trained on these inputs."""
    from certify.errors import InvalidSetting

    header = getattr(network, "certify_header", None)
    trained = header.dataset.get("name") if header is not None else None
    if dataset.split == "train" and (trained is None or trained == dataset.name):
        raise InvalidSetting(
            "nothing can be stated from the inputs that a model was trained on",
            why=f"{dataset.name!r}, split 'train', is what the model file names as its training data"
            if trained
            else "the split is 'train', and the model file does not say what it was trained on",
            remedy="use --split test, or inputs from the same population that the model has never seen",
        )


def _part(shard: str | None, dataset: Dataset) -> tuple[int, int]:
    """(i, n) of --shard i/n."""
    if shard is None:
        return 1, 1
    common.shard_of(dataset, shard)  # names what is no shard
    i, n = shard.split("/")
    return int(i), int(n)
