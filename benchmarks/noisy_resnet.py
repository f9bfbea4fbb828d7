"""Noise inside the network beside noise on the input: certified accuracy at equal total noise.

    python benchmarks/noisy_resnet.py --data digits --sigma 0.25 --limit 200 --out noisy.json

Rows: input noise only (a plain network with the same head), and noisy ResNets that spend the same
total variance sigma^2 on the input and after each block, without and with contraction; then input
noise at the contracting network's effective sigma. Every radius is certified with the effective
sigma; all certificates hold in exact arithmetic.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

import certify
from certify.data import load
from certify.inside.internal_noise import SmoothedInside
from pdenets.training import train

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
INTERNAL = "noisy-resnet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--sigma", type=float, default=0.25, help="root of the total noise variance")
    parser.add_argument("--train-limit", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--limit", type=int, default=200, help="certified inputs")
    parser.add_argument("--n", type=int, default=2000, help="samples per input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=None, help="write the table as JSON")
    options = parser.parse_args()
    rows = compare(options)
    print(table(rows))
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("out", "data_root")}
        Path(options.out).write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and certify every variant."""
    data = load(options.data, split="train", root=options.data_root, limit=options.train_limit)
    test = load(options.data, split="test", root=options.data_root, limit=options.limit)
    blocks = 2
    share = options.sigma / math.sqrt(1 + blocks)
    spread = {"sigma": share, "inner": share, "blocks": blocks}
    head = "cnn" if len(data.input_shape) == 3 else "mlp"
    rows = [
        _row("input noise", head, {}, data, test, options, options.sigma),
        _row("inside, no contraction", INTERNAL, {**spread, "decay": 0.0}, data, test, options),
        _row("inside, decay 0.4", INTERNAL, {**spread, "decay": 0.4}, data, test, options),
    ]
    matched = rows[-1]["effective_sigma"]
    rows.append(_row("input noise, matched s_eff", head, {}, data, test, options, matched))
    return rows


def _row(title, arch, arguments, data, test, options, sigma: float | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        train(
            data, arch=arch, out=path, arguments=arguments, sigma=sigma or 0.0,
            regulariser="none" if sigma is None else "gaussian", epochs=options.epochs, seed=options.seed,
        )  # fmt: skip
        model = (
            certify.load(path) if sigma is not None else certify.load(path, arch=arch, arguments=arguments)
        )
    if sigma is None:
        smoothed: Any = SmoothedInside(model, num_classes=test.num_classes, bounds=test.bounds)
        total = math.sqrt(sum(s.scale**2 for s in smoothed.stages))
    else:
        smoothed = certify.Smoothed(
            model, sigma, num_classes=test.num_classes, noise="gaussian", bounds=test.bounds
        )
        total = sigma
    run = smoothed.certify(test.x, test.y, mode="fixed", n=options.n, seed=options.seed, alpha=1e-3)
    accuracy = run.accuracy(at=RADII)
    with torch.no_grad():
        quiet = float((model(test.x).argmax(1) == test.y).double().mean())
    return {
        "title": title, "effective_sigma": smoothed.sigma_scale, "total_noise": total,
        "noise_free_accuracy": quiet, "certified": {str(a.at): a.value for a in accuracy},
        "intervals": {str(a.at): [a.low, a.high] for a in accuracy}, "mean_radius": run.mean_radius(),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    head = f"{'network':30s}{'total':>7s}{'s_eff':>7s}" + "".join(f"{'r=' + str(r):>8s}" for r in RADII)
    lines = [head + f"{'mean r':>9s}"]
    for row in rows:
        cells = "".join(f"{row['certified'][str(r)]:8.3f}" for r in RADII)
        lines.append(
            f"{row['title']:30s}{row['total_noise']:7.3f}{row['effective_sigma']:7.3f}{cells}"
            f"{row['mean_radius']:9.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
