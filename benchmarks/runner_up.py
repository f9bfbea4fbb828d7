"""What a bound on the runner-up is worth: radii by both bounds beside those with p_B := 1 - p_A.

    CERTIFY_DATA=... python benchmarks/runner_up.py --folder runs/runner-up

Trains the network of `certify demo` on digits and a CNN on MNIST where the folder has none (MNIST is left
out where it is not at hand), certifies the first test inputs at several noise levels, and does the same with
a linear network of 100 classes that needs no training. Every mode is run with both bounds; the one-sided
radii of mode fixed are worked out from the same votes at the full alpha. Figures go to
results/runner_up.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, write
from torch import nn

import certify
from certify.bounds import binomial_lower
from certify.data import Dataset, load
from certify.errors import CertifyError
from certify.radii import radius_between, radius_down
from certify.records import Run
from certify.runner_up import SHARE, leader_lower, rivals_upper
from pdenets.training import train

ALPHA, N, INPUTS, SEED = 1e-3, 10_000, 60, 1
SIGMAS = (0.25, 0.5, 0.75)
#: Radii of mode grid per sigma.
STEPS = 40
#: Classes, leader, runner-up: rows of the table of single inputs.
SINGLE = ((10, 0.6, 0.35), (10, 0.8, 0.15), (100, 0.6, 0.15), (1000, 0.9, 0.02), (1000, 0.45, 0.1),
          (2, 0.6, 0.4), (10, 0.6, 0.4), (10, 1.0, 0.0))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/runner-up"), help="where checkpoints are kept"
    )
    parser.add_argument("--inputs", type=int, default=INPUTS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    studies = {"digits": _digits, "mnist": _mnist, "100 classes": _many}
    found = {}
    for name, prepare in studies.items():
        prepared = prepare(args.folder, args.inputs)
        if prepared is None:
            print(f"{name}: left out, the data are not at hand")
            continue
        found[name] = [study(*prepared, sigma) for sigma in SIGMAS]
        for row in found[name]:
            print(name, row["sigma"], {k: v["mean_radius"] for k, v in row["modes"].items()}, flush=True)
    report = {
        "alpha": ALPHA, "share": SHARE, "n": N, "inputs": args.inputs, "grid_steps": STEPS,
        "single": [single(*s) for s in SINGLE], "studies": found,
        "seconds": round(time.perf_counter() - began), "machine": machine(),
    }  # fmt: skip
    write(RESULTS / "runner_up.json", report)


def single(classes: int, leader: float, rival: float, n: int = 100_000) -> dict[str, Any]:
    """One input with known shares of the votes, in units of sigma."""
    k, m = round(leader * n), round(rival * n)
    both = radius_between(leader_lower(k, n, ALPHA), rivals_upper(m, n, ALPHA), 1.0)
    return {
        "classes": classes, "leader": leader, "rival": rival, "n": n,
        "one_sided": radius_down(binomial_lower(k, n, ALPHA), 1.0),
        "both": both if classes > 2 else radius_down(binomial_lower(k, n, ALPHA), 1.0),
    }  # fmt: skip


def study(model: nn.Module, data: Dataset, noise: str, sigma: float) -> dict[str, Any]:
    """Every mode at one noise level; radii are means over all inputs, 0 where nothing is certified."""
    g = certify.Smoothed(model, sigma, data=data, noise=noise, reduce=False)
    asked: dict[str, dict[str, Any]] = {
        "fixed": {"n": N}, "radius": {"n_max": N}, "grid": {"step": sigma / STEPS, "n_max": N},
        "decide": {"radius": sigma / 2, "n_max": N},
    }  # fmt: skip
    modes = {}
    for mode, options in asked.items():
        both = g.certify(data.x, data.labels, mode=mode, alpha=ALPHA, seed=SEED, **options)
        alone = None
        if mode != "fixed":
            alone = g.certify(
                data.x, data.labels, mode=mode, alpha=ALPHA, seed=SEED, runner_up=False, **options
            )
        modes[mode] = {
            **_means([r.radius for r in both], both),
            "one_sided": _one_sided(both) if alone is None else _means([r.radius for r in alone], alone),
        }
    return {"sigma": sigma, "inputs": len(data), "classes": g.num_classes, "modes": modes}


def _means(radii: Sequence[float], run: Run) -> dict[str, float]:
    return {
        "mean_radius": float(np.mean(radii)),
        "certified": sum(r.certified for r in run) / len(run),
        "mean_radius_right": run.mean_radius(),
        "samples": float(np.mean([r.samples for r in run])),
    }


def _one_sided(run: Run) -> dict[str, float]:
    """Mode fixed with p_B := 1 - p_A and all of alpha, from the votes of the run with both bounds."""
    tv = run.settings["mode_options"]["tv"]
    lower = [binomial_lower(r.counts[r.details["selected"]], N, ALPHA) - tv for r in run]
    radii = [radius_down(p, run.settings["sigma"]) for p in lower]
    right = [r * (record.details["selected"] == record.target) for r, record in zip(radii, run, strict=True)]
    return {
        "mean_radius": float(np.mean(radii)),
        "certified": sum(p > 0.5 for p in lower) / len(run),
        "mean_radius_right": float(np.mean(right)),
        "samples": float(run[0].samples),
    }


# -- networks ---------------------------------------------------------------------------------------


def _digits(folder: Path, inputs: int) -> tuple[nn.Module, Dataset, str]:
    """The network of `certify demo`."""
    path = folder / "digits.pt"
    if not path.exists():
        train(load("digits", split="train"), arch="convection-diffusion", out=path, sigma=0.25, seed=0)
    return certify.load(path), load("digits", split="test", limit=inputs), "lattice"


def _mnist(folder: Path, inputs: int) -> tuple[nn.Module, Dataset, str] | None:
    """A CNN, two epochs under noise of sigma 0.25."""
    path = folder / "mnist.pt"
    try:
        test = load("mnist", split="test", limit=inputs)
        if not path.exists():
            train(load("mnist", split="train"), arch="cnn", out=path, sigma=0.25, epochs=2, seed=0)
    except CertifyError:
        return None
    return certify.load(path), test, "lattice"


def _many(_: Path, inputs: int) -> tuple[nn.Module, Dataset, str]:
    """The nearest of 100 random points of the cube [0, 1]^64 (norms drawn alike), asked close to them."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(100, 64, generator=generator)
    linear = nn.Linear(64, 100)
    with torch.no_grad():
        linear.weight.copy_(points)
        linear.bias.copy_(-points.square().sum(1) / 2)
    y = torch.arange(inputs) % 100
    x = (0.8 * points[y] + 0.2 * torch.rand(inputs, 64, generator=generator)).float()
    return linear.eval(), certify.data.as_dataset(x, y, num_classes=100), "gaussian"


if __name__ == "__main__":
    main()
