"""``certify radius`` on a segmenter: certify the pixels of a data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from certify_cli import common, pixel_attack, provenance, summary
from certify_cli.summary import show_seed

if TYPE_CHECKING:
    from certify import SegmentationRun, SmoothedSegmentation
    from certify.data import Dataset

#: Radii at which the certified share is reported, in units of sigma (without a tested radius).
REPORT_AT = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
#: Options of `certify radius` that ask for what a segmentation does not have, and why.
_FOREIGN = {
    "n_max": "every image gets the n0 + n samples of mode fixed: use --n",
    "slack": "it belongs to mode radius",
    "step": "it belongs to mode grid",
    "randomised": "it draws a number between two counts of votes for one class of a whole image",
    "runner_up": "the pixels of an image are tested together, each against all other classes at once",
    "formulas": "the formulas are about one class of a whole image",
    "workers": "its votes are counted in this process",
    "address": "its votes are counted in this process",
}


def certify_pixels(
    ctx: typer.Context | None,
    network: Any,
    dataset: Dataset,
    *,
    part: Dataset,
    model: Path,
    sigma: float | None,
    asked: dict[str, Any],
    options: dict[str, Any],
    out: Path | None,
    recorded: dict[str, Any],
    gates: list[tuple[str, float | None, float]],
    as_json: bool,
    challenge: bool = False,
) -> None:
    """Certify ``part`` of ``dataset``; ``options`` go to SmoothedSegmentation, ``asked`` to its certify.

    ``ctx`` tells which options the user wrote. ``challenge``: attack the certified pixels afterwards.
    """
    if ctx is not None:
        refuse_foreign(ctx)
    _refuse_gates(gates)
    smoothed = _smoothed(network, sigma, dataset, **options)
    asked = {k: v for k, v in asked.items() if v is not None}
    described = provenance.provenance(
        model, network, dataset, part=part, skip=recorded.pop("skip"), limit=recorded.pop("limit")
    )
    described["environment"] = recorded | provenance.here()
    named: Any = smoothed
    place = out or provenance.default_directory(model, dataset, named, asked | {"mode": "pixels"}, described)
    common.refuse_unseeded(recorded["shard"], asked.get("seed"), place)
    began = time.perf_counter()
    run, fresh = _certify(smoothed, part, place, asked, described)
    result = summarize(run, place) | {"fresh_inputs": fresh, "wall_seconds": time.perf_counter() - began}
    result |= summary.judge(gates, lambda at: run.certified_correct([at or 0.0])[0].value)
    if as_json:
        common.print_json(result)
    else:
        show(result)
        summary.show_requirements(result)
    if challenge:
        pixel_attack.challenge(smoothed, run, part, place, seed=int(run.settings["seed"]) + 1)
    summary.enforce(result)


def refuse_foreign(ctx: typer.Context) -> None:
    """Raise InvalidSetting for an option that a segmentation run has no use for."""
    from certify.errors import InvalidSetting

    def refuse(option: str, why: str, remedy: str) -> None:
        raise InvalidSetting(f"{option} has no meaning for a segmentation model", why=why, remedy=remedy)

    given = {name for name in ctx.params if _typed(ctx, name)}
    values = ctx.params
    if "mode" in given and values["mode"] != "fixed":
        refuse(
            f"--mode {values['mode']}",
            "its pixels are tested on one number of samples, fixed beforehand: n0, then n (mode fixed)",
            "leave --mode out; add --radius R for one radius (Holm), or nothing for a radius per pixel",
        )
    if values["scores"] != "votes":
        refuse(f"--scores {values['scores']}", "its pixels are certified by votes", "leave --scores out")
    if values["noise"] == "internal":
        refuse("--noise internal", "no segmenter with noise inside is known here", "leave --noise out")
    if values["engine"] != "local":
        refuse(
            f"--engine {values['engine']}",
            "its votes are counted in this process",
            "use --shard i/n on several machines, then certify merge",
        )
    for name in sorted(given & set(_FOREIGN)):
        if values[name] not in (None, False):
            refuse(f"--{name.replace('_', '-')}", _FOREIGN[name], "leave it out")


def summarize(run: SegmentationRun, place: Path) -> dict[str, Any]:
    """The run in one JSON object: pixels, scores, the certified curve, cost, guarantee."""
    from certify.inputs import interval_notes

    records = run.run
    settings = run.settings
    pixels = sum(int(r.details["pixels"]) for r in records)
    certified = sum(int(r.details["certified"]) for r in records)
    tested = settings["mode_options"]["radius"]
    sigma = settings["sigma"]
    at = [tested] if tested is not None else [round(sigma * f, 6) for f in REPORT_AT]
    score = run.score() if run.labelled else None
    rows = [
        {
            "radius": e.at,
            "value": e.value,
            "low": e.low,
            "high": e.high,
            "level": e.level,
            "robust_low": e.robust_low,
        }
        for e in (run.certified_correct(at) if run.labelled else [])
    ]
    return {
        "run": str(place),
        "task": "segmentation",
        "inputs": len(records),
        "failed": len(records) - len(run),
        "pixels": pixels,
        "certified_pixels": certified,
        "abstained": 1 - certified / max(1, pixels),
        "correction": settings["mode_options"]["correction"],
        "pixel_accuracy": None if score is None else score.accuracy,
        "mean_iou": None if score is None else score.mean_iou,
        "plain_pixel_accuracy": None if score is None else score.plain_accuracy,
        "plain_mean_iou": None if score is None else score.plain_mean_iou,
        "certified_share": [
            {"radius": r, "value": v} for r, v in zip(at, run.certified_share(at), strict=True)
        ],
        "certified_accuracy": rows,
        "interval_notes": interval_notes(records.records, settings) if run.labelled else [],
        "samples_per_input": sum(r.samples for r in records) / max(1, len(records)),
        "settings": settings,
        "guarantee": run.guarantee,
    }


def show(summary: dict[str, Any]) -> None:
    """The summary as tables on stdout. Certified shares are rounded down."""
    from math import floor

    from rich.table import Table

    from reports.fronts import front_sentences

    def down(value: float) -> str:
        return f"{floor(value * 1e4) / 1e4:.4f}"

    console = common.tables()
    title = f"certified pixels, {summary['inputs']} images, correction {summary['correction']}"
    table = Table(title=title, title_justify="left")
    norm = summary["settings"]["norm"]
    for heading in (f"l{norm} radius", "certified", "and correct", "95 % interval over images"):
        table.add_column(heading, justify="right")
    labelled = summary["certified_accuracy"] or [None] * len(summary["certified_share"])
    for share, row in zip(summary["certified_share"], labelled, strict=True):
        right = ("", "") if row is None else (down(row["value"]), f"{row['low']:.3f} to {row['high']:.3f}")
        table.add_row(down(share["radius"]), down(share["value"]), *right)
    console.print(table)
    for note in summary["interval_notes"]:
        console.print(note)
    if summary["pixel_accuracy"] is not None:
        scores = Table(title="against the labels", title_justify="left")
        for heading in ("", "pixel accuracy", "mean IoU"):
            scores.add_column(heading, justify="right" if heading else "left")
        for name, prefix in (("smoothed, certified", ""), ("base model, no noise", "plain_")):
            values = [summary[f"{prefix}pixel_accuracy"], summary[f"{prefix}mean_iou"]]
            scores.add_row(name, *(f"{value:.4f}" for value in values))
        console.print(scores)
    failed = f", {summary['failed']} images failed" if summary["failed"] else ""
    console.print(
        f"certified {summary['certified_pixels']:,} of {summary['pixels']:,} pixels, "
        f"{summary['abstained']:.2%} abstain and count as wrong{failed}; "
        f"{summary['samples_per_input']:,.0f} samples per image"
    )
    console.print(f"\n{summary['guarantee']}\n")
    for sentence in front_sentences(summary["settings"]):
        console.print(f"{sentence}\n")
    show_seed(summary["settings"])
    console.print(f"run directory: {summary['run']}", soft_wrap=True)
    common.say_next(f"certify report {summary['run']}")


def _smoothed(network: Any, sigma: float | None, dataset: Dataset, **options: Any) -> SmoothedSegmentation:
    import certify
    from certify.errors import InvalidSetting

    header = getattr(network, "certify_header", None)
    if sigma is None and header is not None:
        sigma = header.training.get("sigma")
    if not sigma:
        raise InvalidSetting(
            "the noise level is missing",
            why="the model file does not say under which noise it was trained",
            remedy="add --sigma 0.25",
        )
    return certify.SmoothedSegmentation(network, sigma, data=dataset, **options)


def _certify(
    smoothed: SmoothedSegmentation, part: Dataset, place: Path, asked: dict, described: dict
) -> tuple[SegmentationRun, int]:
    from certify.forecast import Forecast
    from certify.interruption import telling
    from certify.progress import progress

    fresh = 0

    def show(more: int = 0) -> None:
        rate = forecast.drawn / max(time.perf_counter() - began, 1e-9)
        advance(more, note=f"{rate:,.0f} samples/s", left=forecast.left())

    forecast = Forecast(len(part.x), shown=show)

    def on_record(record: Any) -> None:
        nonlocal fresh
        fresh += 1
        forecast.done.append(record.samples)
        show(1)

    def kept() -> str:
        return f"{fresh} new images are certified and stored in {place}; the same command goes on from there"

    with telling(kept), progress("certifying pixels", len(part.x)) as advance:
        began = time.perf_counter()
        run = smoothed.certify(
            part.x, part.y, ids=part.ids.tolist(), store=str(place), settings=described,
            on_record=on_record, on_samples=forecast, **asked,
        )  # fmt: skip
    return run, fresh


def _refuse_gates(gates: list[tuple[str, float | None, float]]) -> None:
    from certify.errors import InvalidSetting

    for name, at, _ in gates:
        if at is None:
            raise InvalidSetting(
                f"--require {name} has no meaning for a segmentation model",
                why="an image has as many radii as pixels",
                remedy='write --require "certified@0.1>=0.8" (a share of labelled pixels) or "clean>=0.9"',
            )


def _typed(ctx: typer.Context, name: str) -> bool:
    """Whether the user wrote the option, rather than leaving it to its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
