"""Certified accuracy on MNIST: training methods side by side, on all test images and beside published logs.

    python benchmarks/mnist_table.py run --folder runs/mnist-table [--device cuda] [--only best-0.25,...]
    python benchmarks/mnist_table.py table --folder runs/mnist-table --logs LOGS

``run`` trains each network that is missing in the folder and certifies the test images in parts of 1,000
(sequential tests, grid mode, alpha .001); a part that is there is not done again. One log per network lies
in the folder then, in the columns of published ones (and the samples of each image). ``table`` sets them
beside the published logs of the same images, with paired differences, and writes results/mnist_table.json.
Recipes are chosen on held-out training images alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, machine, write

import certify
from certify import checkpoints
from certify.data import Dataset, load
from pdenets.training import train
from reports.paired import difference

SIGMAS = (0.25, 0.5, 1.0)
PART = 1_000
STEP, ALPHA = 0.25, 1e-3
#: The most samples of one image, meant to keep the mean below a tenth of the published 100,000.
N_MAX = {0.25: 20_000, 0.5: 10_000, 1.0: 10_000}


@dataclass(frozen=True)
class Method:
    """A network and how it is trained; ``options`` of the regulariser may depend on sigma."""

    regulariser: str
    arch: str = "cnn"
    arguments: dict[str, Any] = field(default_factory=lambda: {"width": 16})
    options: dict[str, Any] = field(default_factory=dict)
    at: dict[float, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def options_at(self, sigma: float) -> dict[str, Any]:
        return self.options | self.at.get(sigma, {})


#: Every method but the best has the same time-honoured recipe: Adam, a cosine, batches of 256.
COMMON = {"epochs": 24, "lr": 2e-3, "batch_size": 256}
ATTACKED = {"radius": 1.0, "steps": 4, "copies": 2}
METHODS = {
    "gaussian": Method("gaussian"),
    "convection-diffusion": Method(
        "diffusion", arch="convection-diffusion", arguments={}, options={"weight": 10.0, "share": 0.25}
    ),
    "consistency": Method(
        "consistency", options={"weight": 10.0}, at={0.5: {"weight": 5.0}, 1.0: {"weight": 5.0}}
    ),
    "macer": Method("macer"),
    "smoothadv": Method("smoothadv", options=ATTACKED),
    "smoothadv-consistency": Method("smoothadv", options=ATTACKED | {"consistency": 1.0}),
    "best": Method(
        "smoothadv", arguments={"width": 48},
        options={"radius": 0.75, "steps": 4, "copies": 2, "consistency": 1.0},
        at={0.5: {"radius": 1.0, "consistency": 2.0}, 1.0: {"radius": 1.0, "consistency": 5.0}},
        training={"epochs": 40, "lr": 3e-3, "batch_size": 512, "augment": "shift", "average": 0.999},
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and logs, kept between calls")
    parser.add_argument("--only", default=None, help="rows such as best-0.25, separated by commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-root", default=None, help="folder with mnist/")
    parser.add_argument("--parts", type=int, default=None, help="certify so many parts of each at most")
    parser.add_argument("--train-only", action="store_true", help="stop before certifying")
    parser.add_argument("--logs", type=Path, default=None, help="folder with the published logs")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "table":
        if options.logs is None:
            raise SystemExit(
                "which published logs? --logs FOLDER, with files such as mnist-lenet-macer-0.25.tsv"
            )
        write(RESULTS / "mnist_table.json", compared(options.folder, options.logs))
        return
    torch.set_num_threads(1)
    root = {} if options.data_root is None else {"root": options.data_root}
    data, test = (load("mnist", split=split, **root) for split in ("train", "test"))
    wanted = options.only.split(",") if options.only else [f"{m}-{s:g}" for s in SIGMAS for m in METHODS]
    for row in wanted:
        name, sigma = row.rsplit("-", 1)
        checkpoint = trained(METHODS[name], float(sigma), data, options.folder / f"{row}.pt", options.device)
        if not options.train_only:
            certified(
                certify.load(checkpoint),
                float(sigma),
                test,
                options.folder / row,
                options.device,
                options.parts,
            )


def trained(method: Method, sigma: float, data: Dataset, out: Path, device: str) -> Path:
    """The checkpoint of a method at a level, made where it is missing."""
    if not out.exists():
        result = train(
            data, arch=method.arch, arguments=method.arguments, sigma=sigma, regulariser=method.regulariser,
            options=method.options_at(sigma), out=out, device=device, **(COMMON | method.training),
        )  # fmt: skip
        print(f"{out.stem}: {result.seconds:.0f} s, held out {result.final}", flush=True)
    return out


def certified(
    model: Any, sigma: float, test: Dataset, folder: Path, device: str, parts: int | None = None
) -> None:
    """Logs of all parts in ``folder``: a part is written when its last image is certified."""
    folder.mkdir(parents=True, exist_ok=True)
    # With rounded products more rows are too close to call from a batch, and each is evaluated alone.
    torch.backends.cudnn.allow_tf32 = False
    for first in list(range(0, len(test), PART))[:parts]:
        log = folder / f"{first:05d}.tsv"
        if log.exists():
            continue
        part, began = test.part(first, first + PART), time.perf_counter()
        smoothed = certify.Smoothed(model, sigma, data=test, device=device)
        run = smoothed.certify(
            part.x, part.y, ids=part.ids.tolist(), mode="grid", step=STEP, alpha=ALPHA, n_max=N_MAX[sigma],
            seed=2026,
        )  # fmt: skip
        spent = time.perf_counter() - began
        lines = ["idx\tlabel\tpredict\tradius\tcorrect\tsamples"]
        for r in run:
            said = r.label if r.certified else -1
            cells = (r.index, r.target, said, f"{r.radius:g}", int(said == r.target), r.samples)
            lines.append("\t".join(map(str, cells)))
        log.with_suffix(".tmp").write_text("\n".join(lines) + "\n")
        facts = {"seconds": spent, "device": device, "samples": sum(r.samples for r in run)}
        log.with_suffix(".json").write_text(json.dumps(facts))
        log.with_suffix(".tmp").replace(log)
        print(f"{folder.name} {first}: {spent:.1f} s, {facts['samples'] / spent:,.0f} samples/s", flush=True)


# -- beside the published logs -----------------------------------------------------------------

#: idx -> (radius, or -1 where the answer was wrong or withheld; samples).
Log = dict[int, tuple[float, int]]
PUBLISHED_SAMPLES = 100_100


def compared(folder: Path, logs: Path) -> dict[str, Any]:
    """Every network in the folder beside every published one of its level, on the images both have."""
    rows = []
    for sigma in SIGMAS:
        published = {
            path.stem.removeprefix("mnist-lenet-").rsplit("-", 1)[0]: read_log(path)
            for path in sorted(logs.glob(f"mnist-lenet-*-{sigma:.2f}.tsv"))
        }
        for name in METHODS:
            parts = sorted((folder / f"{name}-{sigma:g}").glob("*.tsv"))
            ours: Log = {}
            for part in parts:
                ours |= read_log(part)
            if ours:
                facts = [json.loads(part.with_suffix(".json").read_text()) for part in parts]
                header, _ = checkpoints.read(folder / f"{name}-{sigma:g}.pt")
                rows.append(
                    described(name, sigma, ours, published)
                    | {"training_seconds": header.training.get("seconds"), "device": facts[0]["device"],
                       "certifying_seconds": sum(f["seconds"] for f in facts)}
                )  # fmt: skip
    return {"rows": rows, "alpha": ALPHA, "step": STEP, "n_max": {f"{s:g}": n for s, n in N_MAX.items()},
            "published_samples": PUBLISHED_SAMPLES, "machine": machine()}  # fmt: skip


def described(name: str, sigma: float, ours: Log, published: dict[str, Log]) -> dict[str, Any]:
    """One row: accuracies at the multiples of the step, and what published networks have on these images."""
    radii = [k * STEP for k in range(1 + int(4 * sigma / STEP))]
    beside = {
        method: {
            "accuracy": accuracies(theirs, ours, radii),
            "differences": [paired(ours, theirs, radius) for radius in radii],
        }
        for method, theirs in published.items()
        if ours.keys() <= theirs.keys()
    }
    return {
        "method": name, "sigma": sigma, "images": len(ours), "accuracy": accuracies(ours, ours, radii),
        "mean_radius": sum(max(r, 0.0) for r, _ in ours.values()) / len(ours),
        "samples_per_image": sum(n for _, n in ours.values()) / len(ours), "published": beside,
    }  # fmt: skip


def accuracies(log: Log, on: Log, radii: list[float]) -> dict[str, float]:
    """Shares of the images of ``on`` that are right with at least these radii."""
    return {f"{radius:g}": sum(log[i][0] >= radius for i in on) / len(on) for radius in radii}


def paired(ours: Log, theirs: Log, radius: float) -> dict[str, float]:
    """Our certified accuracy minus theirs on the same images, with its interval and exact p-value."""
    d = difference(
        [ours[i][0] >= radius for i in ours], [theirs[i][0] >= radius for i in ours], radius=radius,
        level=0.95,
    )  # fmt: skip
    return {"radius": radius, "value": d.value, "low": d.low, "high": d.high, "p": d.p_value}


def read_log(path: Path) -> Log:
    """A log of this benchmark, or a published one: its samples are those of the protocol."""
    head, *lines = (line.split("\t") for line in path.read_text().splitlines())
    found: Log = {}
    for line in lines:
        cells = dict(zip(head, line, strict=True))
        radius = float(cells["radius"]) if cells["correct"] == "1" else -1.0
        found[int(cells["idx"])] = (radius, int(cells.get("samples", PUBLISHED_SAMPLES)))
    return found


if __name__ == "__main__":
    main()
