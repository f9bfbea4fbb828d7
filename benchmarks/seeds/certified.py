"""Every system from training to attack: its certificates must survive the attacks on them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import certify
from attacks import Threat, attack
from certify.data import load
from pdenets.training import train

SAMPLES = 2000
#: Label, architecture, arguments, data set, sigma, epochs, regulariser.
ROWS: tuple[tuple[str, str, dict[str, Any], str, float, int, str], ...] = (
    ("convection-diffusion", "convection-diffusion", {}, "digits", 0.25, 20, "diffusion"),
    ("convection-diffusion", "convection-diffusion", {}, "moons", 0.25, 100, "diffusion"),
    ("Global layer", "tiny-global", {}, "mnist", 0.25, 3, "gaussian"),
    ("quasi-linear", "quasi-linear", {}, "digits", 0.25, 12, "gaussian"),
    ("Neural ODE", "neural-ode", {}, "moons", 0.25, 60, "gaussian"),
)


def run(seeds: int) -> dict[str, Any]:
    rows = [one(*row, inputs=40) for row in ROWS]
    total = sum(row["contradictions"] for row in rows)
    return {"rows": rows, "samples": SAMPLES, "bars": {f"{total} contradictions": total == 0}}


def one(
    label: str, arch: str, arguments: dict[str, Any], data: str, sigma: float, epochs: int, regulariser: str,
    *, inputs: int,
) -> dict[str, Any]:  # fmt: skip
    test = load(data, split="test", limit=inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        train(
            load(data, split="train"), test, arch=arch, arguments=arguments, out=path, sigma=sigma,
            regulariser=regulariser, epochs=epochs,
        )  # fmt: skip
        g = certify.Smoothed(certify.load(path), sigma=sigma)
    run = g.certify(test.x, test.y, mode="fixed", n=SAMPLES, seed=0)
    broken = attack(g, test.x, test.y, threat=Threat(norm=2, bounds=test.bounds), preset="smoothed", seed=0)
    zero, half = (estimate.value for estimate in run.accuracy(at=(0.0, 0.25)))
    return {
        "system": label, "data": data, "sigma": sigma, "certified accuracy": zero, "at radius .25": half,
        "mean radius": run.mean_radius(), "attacks confirmed": sum(o.broken for o in broken),
        "contradictions": len(run.contradictions(broken)),
    }  # fmt: skip
