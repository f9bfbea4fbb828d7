"""``certify bounds``: complexities and generalization bounds for a data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from certify_cli import common

EPILOG = (
    "Example: certify bounds runs/demo --weight-radius 2        or: certify bounds --data mnist --points 1000"
)


def register(app: typer.Typer) -> None:
    app.command("bounds", epilog=EPILOG, rich_help_panel="Evidence")(common.guarded(bounds))


def bounds(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run directory: its data set; the result is stored.", show_default=False),
    ] = None,
    data: common.Data = None,
    data_root: common.DataRoot = None,
    weight_radius: Annotated[
        float, typer.Option("--weight-radius", "-W", help="Norm bound of the weights.")
    ] = 1.0,
    points: Annotated[int, typer.Option("--points", min=2, help="How many training inputs.")] = 1000,
    draws: Annotated[
        int, typer.Option("--draws", min=2, help="Sign vectors of the Monte Carlo estimate.")
    ] = 1000,
    seed: common.Seed = 0,
    as_json: common.AsJson = False,
) -> None:
    """Estimate the Rademacher complexity of linear classes and set every bound beside it."""
    import torch

    import analysis
    from certify import data as datasets
    from certify.errors import InvalidSetting
    from certify.store import open_run

    stored = common.run_directory(run) if run is not None else None
    if stored is not None and data is None:
        data = stored.settings["data"].get("path") or stored.settings["data"]["name"]
    if data is None:
        raise InvalidSetting(
            "no data set given",
            why="a bound is computed on a sample",
            remedy="give a run directory or --data NAME",
        )
    sample = datasets.load(data, split="train", root=data_root, limit=points)
    results = []
    for norm in (1, 2, math.inf):
        cls = analysis.Linear(norm=norm, radius=weight_radius)
        generator = torch.Generator().manual_seed(seed)
        results.append(analysis.empirical_rademacher(cls, sample.x, draws=draws, generator=generator))
        results += analysis.linear_bounds(cls, sample.x)
    document = {
        "results": [r.to_json() for r in results],
        "data": sample.name,
        "points": len(sample),
        "weight_radius": weight_radius,
    }
    if run is not None and stored is not None:
        with open_run(run, stored.settings, stored.guarantee) as store:
            store.put_document("bounds", document)
    if as_json:
        common.print_json(document)
    else:
        _print(results, f"{sample.name}, N = {len(sample)}, |w| <= {weight_radius:g}")


def _print(results: list[Any], title: str) -> None:
    from rich.table import Table

    table = Table(
        "R_S of", "estimate or bound", "value", "interval", "validity", title=title, title_justify="left"
    )
    for r in results:
        interval = f"{r.low:.4g} to {r.high:.4g}" if r.side == "estimate" else ""
        table.add_row(r.predictor.removeprefix("class: "), r.name, f"{r.value:.4g}", interval, r.validity)
    common.tables().print(table)
