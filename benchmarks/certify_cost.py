"""What a certificate costs: every mode beside the published loop and ART, same model, same inputs.

    python benchmarks/certify_cost.py --small          a minute on two cores
    python benchmarks/certify_cost.py                  the table of docs/results.md

One process, one run: three small networks are trained under noise, then each procedure certifies
inputs at the same alpha. Seconds are set against the bare forward pass of the same number of
samples (batch size tuned for it). The published loop is re-implemented here from its paper's
pseudocode; its cost per input does not depend on the input, so it is timed on a few and multiplied
("inputs timed" in the table says on how many). What the engine adds to the forward pass is
measured apart, engine and forward pass taking turns, since a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import certify
from certify.bounds import binomial_lower
from certify.radii import radius_down
from certify_cli.memory import keep_freed_memory

ALPHA, SIGMA = 0.001, 0.25
RADII = (0.0, 0.25, 0.5, 0.75)
PUBLISHED_N = 100_000
#: Name in the tables: architecture and its arguments.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("networks:small_cnn", {}),
    "strided cnn": ("cnn", {"width": 10}),
    "mlp": ("mlp", {"width": 256, "depth": 1}),
}


@dataclass(frozen=True)
class Cost:
    """One procedure on one model: cost per input and what it certified."""

    model: str
    method: str
    noise: str
    samples_per_input: float
    seconds_per_input: float
    ratio_to_forward: float
    inputs_timed: int
    certified_accuracy: dict[str, float]


def main() -> None:
    options = _options()
    keep_freed_memory()  # as the command does: for everything that is timed here
    torch.manual_seed(0)
    inputs = 20 if options.small else options.inputs
    data = certify.data.load(options.data, split="test", limit=inputs, skip=options.skip)
    costs: list[Cost] = []
    comparison = {}
    if options.engine_only:
        overheads = {name: _overhead(_trained(name, options), data, options) for name in NETWORKS}
        print(json.dumps(overheads, indent=2))
        kept = json.loads(Path(options.out).read_text()) if options.out and Path(options.out).exists() else {}
        return _write(kept | {"machine": machine(), "engine_over_forward": overheads}, options)
    overheads = {}
    for name in NETWORKS:
        model = _trained(name, options)
        forward = _forward_seconds(model, data.x)
        print(f"\n{name}: {_parameters(model):,} parameters, bare forward {forward * 1e6:.1f} us per sample")
        print(
            f"{'method':34} {'noise':9} {'samples':>9} {'ms/input':>10} {'x forward':>10}  certified accuracy"
        )
        rows = []
        for procedures in (_ours, _published, _art):
            for row in procedures(name, model, data, forward, options):
                _print(row)
                rows.append(row)
        costs += rows
        comparison[name] = _speedups(rows)
        overheads[name] = _overhead(model, data, options)
        print(f"engine / forward: {json.dumps(overheads[name])}", flush=True)
    result = {
        "machine": machine(),
        "alpha": ALPHA,
        "sigma": SIGMA,
        "data": data.name,
        "inputs": len(data),
        "published_n": PUBLISHED_N,
        "costs": [asdict(c) for c in costs],
        "speedup_over_published_loop": comparison,
        "engine_over_forward": overheads,
    }
    print(json.dumps(comparison, indent=2))
    _write(result, options)


def _write(result: dict[str, Any], options: Any) -> None:
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {options.out}")


def published_loop(
    model: nn.Module, x: Tensor, n0: int, n: int, batch_size: int
) -> tuple[int, float, np.ndarray]:
    """CERTIFY as in Cohen et al. (2019): one input at a time, counts on the host after every batch."""
    selected = int(_loop_counts(model, x, n0, batch_size).argmax())
    counts = _loop_counts(model, x, n, batch_size)
    p = binomial_lower(int(counts[selected]), n, ALPHA)
    return (selected, radius_down(p, SIGMA), counts) if p > 0.5 else (-1, 0.0, counts)


@torch.no_grad()
def _loop_counts(model: nn.Module, x: Tensor, count: int, batch_size: int) -> np.ndarray:
    counts = np.zeros(10, dtype=int)
    while count > 0:
        size = min(batch_size, count)
        count -= size
        batch = x.repeat((size, 1, 1, 1))
        noise = torch.randn_like(batch) * SIGMA
        for label in model(batch + noise).argmax(1).cpu().numpy():
            counts[label] += 1
    return counts


def _published(name: str, model: nn.Module, data: Any, forward: float, options: Any) -> Iterator[Cost]:
    timed = min(len(data), 2 if options.small else options.timed)
    n = 10_000 if options.small else PUBLISHED_N
    for batch_size in (400, 1000):
        began = time.perf_counter()
        found = [published_loop(model, data.x[i : i + 1], 100, n, batch_size)[:2] for i in range(timed)]
        seconds = (time.perf_counter() - began) / timed * (PUBLISHED_N + 100) / (n + 100)
        accuracy = {
            f"{r:g}": float(np.mean([a == int(data.y[i]) and b >= r for i, (a, b) in enumerate(found)]))
            for r in RADII
        }
        samples = PUBLISHED_N + 100
        yield Cost(name, f"published loop, batch {batch_size}", "gaussian", samples, seconds,
                   seconds / samples / forward, timed, accuracy)  # fmt: skip


def _ours(name: str, model: nn.Module, data: Any, forward: float, options: Any) -> Iterator[Cost]:
    modes: dict[str, dict[str, Any]] = {
        "decide 0.5": {"mode": "decide", "radius": 0.5},
        "fixed, n = 10,000": {"mode": "fixed", "n0": 100, "n": 10_000},
        "grid 0.25": {"mode": "grid", "step": 0.25},
        "radius": {"mode": "radius"},
    }
    for noise in ("gaussian", "lattice"):
        for label, asked in modes.items():
            g = certify.Smoothed(model, SIGMA, num_classes=10, noise=noise, grid=data.grid)
            # Plans are computed once per setting and cached; tuning and probing belong to a run's start.
            g.certify(data.x[:1], data.y[:1], alpha=ALPHA, seed=1, **asked)
            timed = len(data) if label.startswith("decide") else min(len(data), options.longer)
            began = time.perf_counter()
            run = g.certify(data.x[:timed], data.y[:timed], alpha=ALPHA, seed=0, **asked)
            seconds = (time.perf_counter() - began) / timed
            samples = float(np.mean([r.samples for r in run]))
            accuracy = {f"{e.at:g}": e.value for e in run.accuracy(RADII)}
            ratio = seconds / samples / forward
            yield Cost(name, label, noise, samples, seconds, ratio, timed, accuracy)


def _overhead(model: nn.Module, data: Any, options: Any) -> dict[str, dict[str, float]]:
    """Time of the engine over that of the bare forward pass of as many samples, in turns: quartiles."""
    inputs, n = data.x[: min(40, len(data))], 400 if options.small else 1900
    samples = len(inputs) * (n + 100)
    found = {}
    for noise in ("gaussian", "lattice"):
        g = certify.Smoothed(model, SIGMA, num_classes=10, noise=noise, grid=data.grid)
        ask = partial(g.certify, inputs, mode="fixed", n0=100, n=n)
        ask(seed=0)
        ratios = []
        for seed in range(3 if options.small else 9):
            forward = _forward_seconds(model, data.x)
            ratios.append(_timed(partial(ask, seed=seed)) / samples / forward)
        low, median, high = np.percentile(ratios, (25, 50, 75))
        found[noise] = {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}
    return found


def _art(name: str, model: nn.Module, data: Any, forward: float, options: Any) -> Iterator[Cost]:
    """The Adversarial Robustness Toolbox, where it is installed (the bench extra)."""
    try:
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    except ImportError:
        print("ART is not installed: pip install 'certify-robustness[bench]'")
        return
    n = 2000 if options.small else 10_000
    timed = min(len(data), 2 if options.small else options.timed)
    for batch_size in (32, 1000):
        classifier = PyTorchRandomizedSmoothing(
            model=model, loss=nn.CrossEntropyLoss(), input_shape=data.input_shape, nb_classes=10,
            clip_values=(0.0, 1.0), sample_size=100, scale=SIGMA, alpha=ALPHA, device_type="cpu",
        )  # fmt: skip
        x = data.x[:timed].numpy()
        began = time.perf_counter()
        label, radius = classifier.certify(x, n=n, batch_size=batch_size)
        seconds = (time.perf_counter() - began) / timed
        right = np.asarray(label).ravel() == data.y[:timed].numpy()
        accuracy = {f"{r:g}": float(np.mean(right & (np.asarray(radius).ravel() >= r))) for r in RADII}
        samples = n + 100
        ratio = seconds / samples / forward
        yield Cost(name, f"ART, batch {batch_size}", "gaussian", samples, seconds, ratio, timed, accuracy)


def _speedups(rows: list[Cost]) -> dict[str, float]:
    """Seconds of the faster published loop over seconds of each of our modes, per input."""
    loop = min(r.seconds_per_input for r in rows if r.method.startswith("published"))
    return {
        f"{r.method} ({r.noise})": round(loop / r.seconds_per_input, 1)
        for r in rows
        if not r.method.startswith(("published", "ART"))
    }


def _trained(name: str, options: Any) -> nn.Module:
    """The network, trained on noisy inputs by a few epochs of the package's own loop."""
    from pdenets.training import train

    path = Path(options.cache) / f"cost-{options.data}-{name.replace(' ', '-')}-{_of(name)}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = certify.data.load(options.data, split="train", limit=5000 if options.small else None)
        arch, arguments = NETWORKS[name]
        train(data, arch=arch, arguments=arguments, out=path, sigma=SIGMA, epochs=3, lr=2e-3)
    return certify.load(path, arch=NETWORKS[name][0])


def _of(name: str) -> str:
    """A few letters that change with the network's definition."""
    return hashlib.sha256(repr(NETWORKS[name]).encode()).hexdigest()[:8]


def _forward_seconds(model: nn.Module, x: Tensor) -> float:
    """Seconds per sample of the model alone at its best batch size: the least of several batches."""
    best = math.inf
    with torch.inference_mode():
        for size in (64, 128, 256, 512, 1000):
            batch = x[torch.arange(size) % len(x)] + SIGMA * torch.randn(size, *x.shape[1:])
            for _ in range(3):
                model(batch)
            times = [_timed(lambda batch=batch: model(batch)) for _ in range(20)]
            best = min(best, float(np.median(times)) / size)
    return best


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _print(r: Cost) -> None:
    accuracy = "  ".join(f"{k}: {v:.3f}" for k, v in r.certified_accuracy.items())
    print(
        f"{r.method:34} {r.noise:9} {r.samples_per_input:9.0f} {1e3 * r.seconds_per_input:10.1f} "
        f"{r.ratio_to_forward:10.2f}  {accuracy}  ({r.inputs_timed} inputs timed)",
        flush=True,
    )


def machine() -> dict[str, Any]:
    """The facts a timing is worthless without."""
    return {
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="20 inputs and short loops")
    parser.add_argument("--data", default=None, help="default: mnist where its files are, else digits")
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--timed", type=int, default=4, help="inputs on which the slow loops are timed")
    parser.add_argument("--longer", type=int, default=40, help="inputs for fixed, grid and radius")
    parser.add_argument("--cache", default="runs/benchmarks", help="where the trained networks are kept")
    parser.add_argument(
        "--engine-only", action="store_true", help="only what the engine adds; keeps the rest of --out"
    )
    parser.add_argument("--out", default=None, help="JSON file to write")
    options = parser.parse_args()
    options.data = options.data or _available()
    return options


def _available() -> str:
    try:
        certify.data.load("mnist", limit=1)
    except certify.CertifyError:
        return "digits"
    return "mnist"


if __name__ == "__main__":
    main()
