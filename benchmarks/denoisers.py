"""Networks that never saw noise, behind every rung of the ladder of denoisers.

    python benchmarks/denoisers.py mnist --folder runs/denoisers
    python benchmarks/denoisers.py cifar10 --folder runs/denoisers --train train.npz --test test.npz

Trains what is missing in the folder (a clean network, denoisers in front of it, a network trained under
noise to compare with), certifies the same test inputs behind each, attacks what was certified, and writes
the figures to results/denoisers.json. Every part resumes where it was interrupted. Numbers of classical
denoisers are matched on training images; no rung sees a test input before it is certified.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, machine
from torch import nn

import certify
from certify import checkpoints
from certify.data import Dataset, load
from pdenets.denoisers.identity import Identity
from pdenets.denoisers.matching import match_denoiser
from pdenets.denoisers.measuring import measure
from pdenets.denoisers.surrogate import surrogate_for
from pdenets.denoisers.training import train_denoiser
from pdenets.training import hold_out, train

CLASSICAL = ("heat", "tv", "perona-malik")
RADII = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class Study:
    """One data set: the clean network, the learned denoiser, and how much is certified."""

    arch: str
    clean: dict[str, Any]
    width: int
    sigmas: tuple[float, ...]
    mse: dict[str, Any]
    stability: dict[str, Any]
    limit: int
    n_max: int
    #: Rungs certified at the second noise level too, and whether labels-only and noise-trained rows are made.
    beside: tuple[str, ...] = ()
    extra: bool = True
    bf16: bool = False
    bars: dict[str, Callable[[dict[str, Any]], bool]] = field(default_factory=dict)


STUDIES = {
    "mnist": Study(
        arch="cnn", clean={"epochs": 3}, width=24, sigmas=(0.25,),
        mse={"epochs": 2, "lr": 1e-3}, stability={"epochs": 2, "lr": 5e-4},
        limit=1000, n_max=2000, bf16=True,
        bars={
            "certified accuracy behind stability at least .95 at .25": lambda r: r["stability"][0.25] >= 0.95,
            "certified accuracy behind stability at least .88 at .5": lambda r: r["stability"][0.5] >= 0.88,
        },
    ),
    "cifar10": Study(
        arch="resnet", clean={"epochs": 30, "lr": 3e-3, "weight_decay": 5e-4, "augment": "crop-flip"},
        width=64, sigmas=(0.12, 0.25), mse={"epochs": 30, "lr": 1e-3, "batch_size": 128},
        stability={"epochs": 24, "lr": 3e-4, "batch_size": 128},
        limit=500, n_max=1000, beside=("none", "stability"), extra=False, bf16=True,
        bars={
            "certified accuracy behind stability at .25 at least .15 over none":
                lambda r: r["stability"][0.25] >= r["none"][0.25] + 0.15,
            "certified accuracy behind stability at .25 at least .40": lambda r: r["stability"][0.25] >= 0.4,
            "clean accuracy behind the denoiser within .20 of the network alone":
                lambda r: r["stability"]["clean"] >= r["none"]["clean"] - 0.2,
        },
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--folder", required=True, help="checkpoints and runs, kept between calls")
    parser.add_argument("--train", default=None, help=".npz with training images, instead of the named set")
    parser.add_argument("--test", default=None, help=".npz with test images")
    parser.add_argument("--limit", type=int, default=None, help="certified inputs")
    parser.add_argument("--only", default=None, help="rungs, separated by commas")
    parser.add_argument("--attacked", type=int, default=100, help="certified inputs that are attacked")
    parser.add_argument("--device", default="cpu", help="where networks are trained and noise is drawn")
    parser.add_argument("--train-only", action="store_true", help="stop before certifying")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study, folder = STUDIES[options.study], Path(options.folder) / options.study
    folder.mkdir(parents=True, exist_ok=True)
    data = named(options.study, options.train, "train")
    test = named(options.study, options.test, "test").part(0, options.limit or study.limit)
    device = torch.device(options.device)
    rungs = prepared(study, data, folder, device)
    if options.train_only:
        return
    # With rounded products more rows are too close to call from a batch, and each is evaluated alone.
    torch.backends.cudnn.allow_tf32 = False
    rungs = {name: rung.to(device) for name, rung in rungs.items()}
    wanted = options.only.split(",") if options.only else ["none", *CLASSICAL, *list(rungs)[1:]]
    rows = [
        row(study, rungs, name, sigma, data, test, folder, device) for name, sigma in pairs(study, wanted)
    ]
    attacked = attack(study, rungs, test, folder, options.attacked, device) if "stability" in wanted else None
    write(options.study, study, rows, attacked, len(test), folder)


def named(name: str, file: str | None, split: str) -> Dataset:
    """A split of the named set, from a file where one is given."""
    return load(name, split=split) if file is None else replace(load(file, split=split), name=name)


def prepared(study: Study, data: Dataset, folder: Path, device: torch.device) -> dict[str, nn.Module]:
    """The base classifier of every rung, trained or loaded."""
    clean = once(
        folder / "clean.pt",
        lambda out: train(data, arch=study.arch, out=out, sigma=0.0, device=device, **study.clean),
    ).to(device)
    common: dict[str, Any] = {
        "device": device, "denoiser": "unet", "arguments": {"width": study.width}, "sigmas": study.sigmas,
        "progress": say, "augment": study.clean.get("augment", "none"),
    }  # fmt: skip
    # Without the cache: it keeps a weight's copy as long as the context lasts, here through every step.
    fast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if study.bf16 else nullcontext()

    def learn(out: Path, **options: Any) -> None:
        with fast:
            train_denoiser(data, out=out, **common, **options)

    mse = once(folder / "mse.pt", lambda out: learn(out, loss="mse", **study.mse))
    begin = mse.state_dict()
    kept = once(
        folder / "stability.pt",
        lambda out: learn(out, loss="stability", classifier=clean, start=begin, **study.stability),
    )
    rungs: dict[str, Any] = {"none": clean, "mse": mse, "stability": kept}
    if study.extra:
        with_labels = folder / "surrogate.pt"

        def queried(out: Path) -> None:
            taught = surrogate_for(clean, data, out=with_labels, arch="mlp").network
            learn(out, loss="stability", classifier=taught, judge=clean, start=begin, **study.stability)

        rungs["labels only"] = once(folder / "labels.pt", queried)
        rungs["trained under noise"] = once(
            folder / "noise.pt",
            lambda out: train(
                data, arch=study.arch, out=out, sigma=study.sigmas[-1], device=device, **study.clean
            ),
        )
    return rungs


def once(path: Path, make: Callable[[Path], Any]) -> nn.Module:
    """The network in ``path``, made first where it is missing."""
    if not path.exists():
        make(path)
    return certify.load(path)


def say(progress: Any) -> None:
    if progress.step == progress.steps:
        losses = " ".join(f"{name} {value:.5f}" for name, value in progress.losses.items())
        print(f"{time.strftime('%H:%M:%S')} epoch {progress.epoch}/{progress.epochs} {losses}", flush=True)


def pairs(study: Study, wanted: list[str]) -> list[tuple[str, float]]:
    """(rung, sigma) of all rows: every rung at the last level, some at the others."""
    rows = [(name, study.sigmas[-1]) for name in wanted]
    return rows + [(name, sigma) for sigma in study.sigmas[:-1] for name in study.beside if name in wanted]


def row(
    study: Study,
    rungs: dict[str, Any],
    name: str,
    sigma: float,
    data: Dataset,
    test: Dataset,
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    """Certify the test inputs behind one rung; one row of the table."""
    clean, held = rungs["none"], hold_out(data, seed=0)[1]
    settings: dict[str, Any] = {}
    if name == "none":
        denoiser, base = Identity(), clean
    elif name == "trained under noise":
        denoiser, base = Identity(), rungs[name]
    elif name in CLASSICAL:
        found = match_denoiser(name, hold_out(data, seed=0)[0], sigma=sigma)
        denoiser, settings = found.denoiser.to(device), found.arguments
        base = certify.denoised(clean, denoiser, sigma=sigma)
    else:
        denoiser = rungs[name]
        base = certify.denoised(clean, denoiser, sigma=sigma)
    restored = measure(Told(denoiser), held, [sigma])
    began = time.process_time()
    run = certified(base, sigma, study, test, folder / f"{name.replace(' ', '-')}-{sigma:g}", device)
    seconds = time.process_time() - began
    samples = sum(r.samples for r in run)
    accuracy = dict(zip(RADII, run.accuracy(list(RADII)), strict=True))
    with torch.inference_mode():
        right = torch.cat([base(x.to(device)).argmax(1).cpu() for x in test.x.split(100)]) == test.y
    result = {
        "rung": name, "sigma": sigma, "settings": settings, "inputs": len(run),
        "psnr": restored.psnr[f"{sigma:g}"], "clean": float(right.double().mean()),
        "certified": {f"{radius:g}": e.value for radius, e in accuracy.items()},
        "intervals": {f"{radius:g}": [e.low, e.high] for radius, e in accuracy.items()},
        "samples_per_input": samples / len(run), "milliseconds_per_sample": speed(base, sigma, test, device),
        "certifying_seconds": seconds, "device": device.type,
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    return result


class Told(nn.Module):
    """A denoiser that ``measure`` can call with a level, whether it takes one or not."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        from certify.denoising import takes_sigma

        return self.denoiser(x, sigma=sigma) if takes_sigma(self.denoiser) else self.denoiser(x)


def certified(base: Any, sigma: float, study: Study, test: Dataset, place: Path, device: torch.device) -> Any:
    """The run in ``place``, finished where it was interrupted; noise from the lattice, as by default."""
    smoothed = certify.Smoothed(base, sigma, data=test, device=device)
    return smoothed.certify(
        test.x, test.y, ids=test.ids.tolist(), mode="grid", step=0.25, n_max=study.n_max, seed=7,
        store=str(place),
    )  # fmt: skip


def speed(base: Any, sigma: float, test: Dataset, device: torch.device) -> float:
    """Milliseconds of one noisy sample through the whole, the faster of two: on a CPU those of one core."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    smoothed = certify.Smoothed(base, sigma, data=test, device=device)
    smoothed.predict(test.x[:1], n=200, seed=1)
    times = []
    for seed in (2, 3):
        began = clock()
        smoothed.predict(test.x[:2], n=500, seed=seed)
        times.append((clock() - began) / 1000 * 1e3)
    return min(times)


def attack(
    study: Study, rungs: dict[str, Any], test: Dataset, folder: Path, count: int, device: torch.device
) -> dict[str, Any]:
    """Attack certified balls behind the learned denoiser: gradients through it, fresh noise confirms."""
    from attacks import challenge

    base = certify.denoised(rungs["none"], rungs["stability"], sigma=study.sigmas[-1])
    smoothed = certify.Smoothed(base, study.sigmas[-1], data=test, device=device)
    place = folder / f"stability-{study.sigmas[-1]:g}"
    run = certified(base, study.sigmas[-1], study, test, place, device)
    chosen = [r for r in run if r.certified and r.radius > 0][:count]
    at = {int(id): i for i, id in enumerate(test.ids)}
    rows = torch.tensor([at[r.index] for r in chosen])
    part = certify.Run(chosen, run.settings, run.guarantee)
    found = challenge(smoothed, part, test.x[rows], ids=test.ids[rows].tolist(), seed=11)
    return {"attacked": len(found), "contradictions": len(part.contradictions(found)),
            "counts": {str(k): v for k, v in found.counts().items()}}  # fmt: skip


def write(
    name: str, study: Study, rows: list[dict[str, Any]], attacked: Any, inputs: int, folder: Path
) -> None:
    """The figures, and which bars they meet, beside those of other studies."""
    path = RESULTS / "denoisers.json"
    table = json.loads(path.read_text()) if path.exists() else {}
    measured = {(r["rung"], r["sigma"]) for r in rows}
    before = table.get(name, {})
    rows = [r for r in before.get("rows", []) if (r["rung"], r["sigma"]) not in measured] + rows
    attacked = attacked or before.get("attack")
    level = study.sigmas[-1]
    by_rung = {
        r["rung"]: {float(k): v for k, v in r["certified"].items()} | {"clean": r["clean"]}
        for r in rows if r["sigma"] == level
    }  # fmt: skip
    bars = {bar: holds(by_rung) for bar, holds in study.bars.items() if "stability" in by_rung}
    table[name] = {"rows": rows, "bars": bars, "attack": attacked, "inputs": inputs, "n_max": study.n_max,
                   "training": trainings(folder), "machine": machine()}  # fmt: skip
    path.write_text(json.dumps(table, indent=1) + "\n")
    for bar, met in bars.items():
        print(f"{'met' if met else 'NOT met'}: {bar}")


def trainings(folder: Path) -> dict[str, Any]:
    """What the headers of the checkpoints say: seconds, and the held-out measurements of every epoch."""
    found = {}
    for path in sorted(folder.glob("*.pt")):
        header, tensors = checkpoints.read(path)
        said = header.training
        kept = {k: said[k] for k in ("seconds", "epochs", "stages", "final") if k in said}
        history = [{k: v for k, v in m.items() if k != "epoch"} for m in said.get("history", [])]
        parameters = sum(t.numel() for t in tensors.values())
        found[path.stem] = kept | {"parameters": parameters} | ({"history": history} if history else {})
    return found


if __name__ == "__main__":
    main()
