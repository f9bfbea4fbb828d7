"""What the noise costs: beside torch.randn, beside a forward pass, and inside a whole run.

    python benchmarks/noise_cost.py
    python benchmarks/noise_cost.py --threads 1 --out benchmarks/results/noise_cost.json

Three tables. (1) Nanoseconds per noisy coordinate of every law, and of ``torch.randn`` plus the
image, in batches of 128 images and in batches of 16 inputs with 8 samples each. (2) Noise per sample
as a share of one forward pass of a ResNet-20 on 3x32x32 and of a small convolutional network on
1x28x28. (3) Time of a certification run with lattice noise over one with Gaussian noise. Times are
the smallest of interleaved repetitions, so that a busy machine disturbs all rows alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import certify
from certify.noise import NAMES, Noise, make_noise
from pdenets.baselines import cnn
from pdenets.resnet import resnet

SHAPES = ((1, 28, 28), (3, 32, 32))
SIGMAS = (0.25, 1.0)
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=15, help="repetitions of each timing")
    parser.add_argument("--samples", type=int, default=512, help="samples per input in the third table")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "noise_cost.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {
        "machine": machine(args.threads),
        "draws": [row for shape in SHAPES for row in draw_costs(shape, args.repeats)],
        "forward": [forward_share(name, args.repeats) for name in MODELS],
        "runs": [run_ratio(name, args.samples, args.repeats) for name in MODELS],
    }
    show(result)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {args.out}")


MODELS: dict[str, tuple[Callable[..., torch.nn.Module], tuple[int, ...]]] = {
    "ResNet-20": (resnet, (3, 32, 32)),
    "small CNN": (cnn, (1, 28, 28)),
}


def draw_costs(shape: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Nanoseconds per coordinate: one input's samples, and eight samples of each of 16 inputs."""
    out, x = torch.empty(BATCH, *shape), images(1, shape)[0]
    work: dict[tuple[str, float, str], Callable[[], Any]] = {
        ("torch.randn * sigma + x", 0.25, "one input"): lambda: torch.randn(BATCH, *shape).mul_(0.25).add_(x)
    }
    for name in NAMES:
        for sigma in SIGMAS if name == "lattice" else SIGMAS[:1]:
            noise = law(name, sigma)
            for inputs, packing in ((1, "one input"), (16, "16 inputs")):
                work[name, sigma, packing] = filler(noise, out, x, inputs)
    seconds = interleaved(list(work.values()), repeats)
    return [
        {"shape": list(shape), "law": name, "sigma": sigma, "packing": packing, "ns": t / out.numel() * 1e9}
        for (name, sigma, packing), t in zip(work, seconds, strict=True)
    ]


def forward_share(name: str, repeats: int) -> dict[str, Any]:
    """Noise of a batch over the forward pass of the same batch."""
    factory, shape = MODELS[name]
    model, out, x = (
        factory(num_classes=10, input_shape=shape).eval(),
        torch.empty(BATCH, *shape),
        images(1, shape)[0],
    )

    def forward() -> None:
        with torch.inference_mode():
            model(out)

    work = [forward, *(filler(law(n, 0.25), out, x, 1) for n in ("gaussian", "lattice"))]
    seconds = interleaved(work, repeats)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "forward_us": seconds[0] / BATCH * 1e6,
        "gaussian_share": seconds[1] / seconds[0],
        "lattice_share": seconds[2] / seconds[0],
    }


def run_ratio(name: str, samples: int, repeats: int) -> dict[str, Any]:
    """Seconds of a fixed-n run under each noise: the same model, inputs and number of samples."""
    factory, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = factory(num_classes=10, input_shape=shape).eval(), images(4, shape)
    runs = []
    for noise in ("gaussian", "lattice"):
        g = certify.Smoothed(
            model, 0.25, num_classes=10, noise=noise, grid=1 / 255, bounds=(0, 1), batch_size=BATCH
        )
        g.certify(x, mode="fixed", n0=BATCH, n=BATCH, seed=0)
        runs.append(lambda g=g: g.certify(x, mode="fixed", n0=BATCH, n=samples - BATCH, seed=0))
    seconds = interleaved(runs, max(3, repeats // 3))
    return {
        "model": name,
        "samples": samples * len(x),
        "gaussian_s": seconds[0],
        "lattice_s": seconds[1],
        "ratio": seconds[1] / seconds[0],
    }


def law(name: str, sigma: float) -> Noise:
    value = np.full((1, 1, 1), sigma) if name == "anisotropic" else sigma
    return make_noise(name, sigma=value, grid=1 / 255, bounds=(0.0, 1.0))


def filler(noise: Noise, out: torch.Tensor, x: torch.Tensor, inputs: int) -> Callable[[], None]:
    base, each = noise.prepare(x), len(out) // inputs

    def fill() -> None:
        noise.fill(
            out, bases=[base] * inputs, ids=range(inputs), starts=[0] * inputs, counts=[each] * inputs, seed=1
        )

    return fill


def images(count: int, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), generator=generator) / 255


def interleaved(work: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Smallest seconds of each piece of work, taken in turns after one untimed round."""
    best = [float("inf")] * len(work)
    for attempt in range(repeats + 1):
        for k, run in enumerate(work):
            began = time.perf_counter()
            run()
            if attempt:
                best[k] = min(best[k], time.perf_counter() - began)
    return best


def machine(threads: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(result: dict[str, Any]) -> None:
    console = Console()
    columns = [(tuple(s), p) for s in SHAPES for p in ("one input", "16 inputs")]
    table = Table(
        "law", "sigma", *(f"{'x'.join(map(str, s))}, {p}" for s, p in columns), title="ns per coordinate"
    )
    cells = {(r["law"], r["sigma"], tuple(r["shape"]), r["packing"]): r["ns"] for r in result["draws"]}
    for name, sigma in dict.fromkeys((r["law"], r["sigma"]) for r in result["draws"]):
        values = [cells.get((name, sigma, s, p)) for s, p in columns]
        table.add_row(name, f"{sigma:g}", *("" if v is None else f"{v:.2f}" for v in values))
    console.print(table)
    table = Table(
        "model", "forward, us/sample", "Gaussian noise", "lattice noise", title="share of a forward pass"
    )
    for r in result["forward"]:
        shares = (f"{r[k]:.1%}" for k in ("gaussian_share", "lattice_share"))
        table.add_row(r["model"], f"{r['forward_us']:.0f}", *shares)
    console.print(table)
    table = Table("model", "samples", "Gaussian, s", "lattice, s", "ratio", title="a whole run")
    for r in result["runs"]:
        seconds = (f"{r[k]:.2f}" for k in ("gaussian_s", "lattice_s", "ratio"))
        table.add_row(r["model"], str(r["samples"]), *seconds)
    console.print(table)


if __name__ == "__main__":
    main()
