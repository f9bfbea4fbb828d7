"""``certify demo``: the whole road on data that comes with the package, in minutes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from certify_cli import attack as attack_verb
from certify_cli import bounds as bounds_verb
from certify_cli import common
from certify_cli import compare as compare_verb
from certify_cli import radius as radius_verb
from certify_cli import report as report_verb
from certify_cli import train as train_verb

EPILOG = "Example: certify demo --out runs/demo"
KEPT = "what each finished step wrote is kept; the same command goes on from there"


def register(app: typer.Typer) -> None:
    app.command("demo", epilog=EPILOG, rich_help_panel="Start")(common.guarded(demo, kept=KEPT))


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run directory to write.")] = Path("runs/demo"),
    sigma: Annotated[float, typer.Option("--sigma", "-s", help="Standard deviation of the noise.")] = 0.25,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Inputs to certify.")] = 100,
    attacked: Annotated[int, typer.Option("--attacked", min=1, help="Inputs to attack.")] = 40,
    seed: common.Seed = 0,
) -> None:
    """Train a diffusion-regularised network on digits, certify it, attack it, bound it, report it."""
    began = time.perf_counter()
    model = out.parent / f"{out.name}-model.pt"
    model.parent.mkdir(parents=True, exist_ok=True)
    steps = (
        (
            f"train a convection-diffusion network on 8x8 digits under noise of sigma {sigma:g}",
            lambda: _train(model, sigma, seed),
        ),
        (
            f"certify the first {limit} test digits",
            lambda: radius_verb.radius(model=model, sigma=sigma, limit=limit, out=out, seed=seed),
        ),
        (
            f"attack the smoothed classifier on {attacked} of them; every hit is confirmed with fresh noise",
            lambda: attack_verb.attack(run=out, limit=attacked, seed=seed + 1),
        ),
        (
            "bound the network's risk by every theorem at hand",
            lambda: bounds_verb.bounds(run=out, weight_radius=2.0),
        ),
        ("set theory beside measurement", lambda: compare_verb.compare(runs=[out])),
        ("write the report", lambda: report_verb.report(runs=[out])),
    )
    for number, (title, step) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {title}", file=sys.stderr)
        step()
    print(f"\ndone in {time.perf_counter() - began:.0f} s: open {out / 'report.html'}", file=sys.stderr)


def _train(model: Path, sigma: float, seed: int) -> None:
    """Train, unless an earlier demo left its checkpoint: its run can only go on with that one."""
    if model.exists():
        print(f"using the checkpoint {model} of an earlier demo", file=sys.stderr)
    else:
        train_verb.train(data="digits", out=model, sigma=sigma, seed=seed)
