"""A ResNet-20 (3x32x32) certified with a fixed number of samples, beside the bare forward pass.

    python benchmarks/engine_cost.py --out benchmarks/results/engine_cost.json

Four things take turns in one process: the forward pass as PyTorch gives it, the same with channels
last (each at its best batch size), and the engine with Gaussian and with lattice noise. The engine
draws the noise and counts the votes too; it evaluates batches on every core at once, and chooses
batch size and layout. A result holds the least and the median of the turns; one call adds one process
to the file, since what a race chooses differs between processes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, machine
from torch import Tensor, nn

import certify
from certify_cli.memory import keep_freed_memory
from pdenets.resnet import resnet

SHAPE, SIGMA = (3, 32, 32), 0.25
BATCHES = (16, 32, 64, 128, 256)
NOISES = ("gaussian", "lattice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000, help="samples of each input")
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine_cost.json")
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    begun = time.perf_counter()
    found = measured(options.inputs, options.samples, options.turns)
    found["seconds"] = round(time.perf_counter() - begun, 1)
    print(json.dumps(found, indent=2))
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    calls = {call["samples"]: call["processes"] for call in kept.get("calls", [])}
    calls.setdefault(options.samples, []).append(found)
    kept = {
        "machine": machine(), "network": "ResNet-20", "shape": SHAPE, "inputs": options.inputs,
        "calls": [{"samples": samples, "processes": runs} for samples, runs in sorted(calls.items())],
    }  # fmt: skip
    options.out.write_text(json.dumps(kept, indent=2) + "\n")


def measured(inputs: int, samples: int, turns: int) -> dict[str, Any]:
    """Milliseconds per sample of the bare passes and the engine, and the ratios."""
    torch.manual_seed(0)
    network = resnet(input_shape=SHAPE, num_classes=10, depth=20).eval()
    x = (torch.randint(0, 256, (inputs, *SHAPE)) / 255).float()
    contenders: dict[str, Callable[[], float]] = {
        "bare": best_pass(network, x, torch.contiguous_format),
        "channels last": best_pass(network, x, torch.channels_last),
    }
    for noise in NOISES:
        contenders[noise] = engine(network, x, noise, samples)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, once in contenders.items():
            times[name].append(once() * 1e3)
    least = {name: min(values) for name, values in times.items()}
    return {
        "milliseconds_per_sample": {name: round(value, 4) for name, value in least.items()},
        "median": {name: round(sorted(values)[len(values) // 2], 4) for name, values in times.items()},
        "over_bare": {noise: round(least[noise] / least["bare"], 3) for noise in NOISES},
        "over_channels_last": {noise: round(least[noise] / least["channels last"], 3) for noise in NOISES},
    }


def best_pass(network: nn.Module, x: Tensor, layout: torch.memory_format) -> Callable[[], float]:
    """Seconds per sample of the network alone, at the batch size that was fastest."""
    laid: Any = resnet(
        input_shape=SHAPE, num_classes=10, depth=20
    ).eval()  # torch's stubs miss this form of ``to``
    laid = laid.to(memory_format=layout)
    laid.load_state_dict(network.state_dict())

    def seconds(size: int, repeats: int = 4) -> float:
        batch = (x[torch.arange(size) % len(x)] + SIGMA * torch.randn(size, *SHAPE)).to(memory_format=layout)
        with torch.inference_mode():
            laid(batch)
            begun = time.perf_counter()
            for _ in range(repeats):
                laid(batch)
        return (time.perf_counter() - begun) / (repeats * size)

    best = min(BATCHES, key=lambda size: min(seconds(size) for _ in range(3)))
    return lambda: seconds(best, max(1, 1024 // best))


def engine(network: nn.Module, x: Tensor, noise: str, samples: int) -> Callable[[], float]:
    """Seconds per sample of a whole certification, noise and votes included; the race is over before."""
    smoothed = certify.Smoothed(network, SIGMA, num_classes=10, noise=noise, grid=1 / 255)
    smoothed.certify(x, mode="fixed", n0=100, n=samples, seed=0)
    seeds = iter(range(1, 10_000))

    def seconds() -> float:
        begun = time.perf_counter()
        smoothed.certify(x, mode="fixed", n0=100, n=samples, seed=next(seeds))
        return (time.perf_counter() - begun) / (len(x) * (samples + 100))

    return seconds


if __name__ == "__main__":
    main()
