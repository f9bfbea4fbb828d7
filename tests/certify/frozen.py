"""What a reader of evidence may rely on, as one table: settings, guarantees and records of every kind of run.

    python -m tests.certify.frozen --write      after a change that is meant; the commit says why

``frozen.json`` holds what the code said when it was written. Scores are integers computed in float64, so
that no rounding of a machine decides a vote under the lattice noise. What names the machine, the versions of
libraries or the bytecode of a model is left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import certify
from certify.canonical import canonical, sha256_text
from certify.inside.effective_sigma import NoiseStage
from certify.inside.internal_noise import SmoothedInside
from certify.store import read_run
from certify.store.manifest import build
from certify.store.merge import merge
from certify.transfer import transfer
from tests.certify import sample_run

FILE = Path(__file__).with_name("frozen.json")
SEED, SIGMA, CLASSES = 11, 0.25, 3
GRID = 1 / 255
#: What names the machine or the code rather than the claim.
LEFT_OUT = {"model", "device", "environment", "versions", "command", "audit"}
NOT_COMPARED = {"seconds"}


class Exact(nn.Module):
    """Integer scores of inputs on the 8-bit grid: the same on every machine."""

    def forward(self, x: Tensor) -> Tensor:
        q = x.double().mul(255).round()
        first, others = q.flatten(1)[:, 0], q.flatten(1)[:, 1:].sum(1)
        return torch.stack([others + 0.125, 3 * first, 384 - (first + others) / 2 + 0.25], 1)


class ExactTwo(nn.Module):
    """The first two of those classes."""

    def forward(self, x: Tensor) -> Tensor:
        return Exact()(x)[:, :2]


class ExactPixels(nn.Module):
    """The same for every pixel: (batch, 1, h, w) -> (batch, 3, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        q = x.double().mul(255).round()[:, 0]
        return torch.stack([q, 200 - q / 2 + 0.25, 128 - 2 * q + 0.125], 1)


class Inside(nn.Module):
    """A half-space behind two injections of noise around a doubling: all in closed form."""

    input_shape = (1, 2, 2)

    def noise_stages(self) -> list[NoiseStage]:
        return [NoiseStage(0.3, 1.0, 4), NoiseStage(0.5, 2.0, 4)]

    def noisy_logits(self, x: Tensor, normals: Tensor) -> Tensor:
        first, second = normals.split(4, dim=1)
        z = 2 * (x.flatten(1) - 0.3 + 0.3 * first) + 0.5 * second
        return torch.stack([-z[:, 0], z[:, 0]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.noisy_logits(x, x.new_zeros(len(x), 8))


def inputs(n: int = 4) -> tuple[Tensor, Tensor]:
    """(n, 1, 2, 2) on the 8-bit grid, and labels of which one is wrong."""
    x = torch.tensor([[0, 10, 20, 30], [20, 250, 240, 255], [250, 10, 5, 9], [85, 128, 127, 129]])
    return (x[:n].double() / 255).float().reshape(n, 1, 2, 2), torch.tensor([2, 0, 1, 0])[:n]


def images() -> tuple[Tensor, Tensor]:
    x = torch.arange(2 * 16).mul(8).reshape(2, 1, 4, 4)
    return (x.double() / 255).float(), (torch.arange(2 * 16).reshape(2, 4, 4) // 11)


MODES: dict[str, dict[str, Any]] = {
    "radius": {"n_max": 2000},
    "grid": {"step": 0.125, "n_max": 2000},
    "decide": {"radius": 0.25, "n_max": 2000},
    "fixed": {"n0": 50, "n": 400},
}
SCORES = {"soft": ("radius", "decide", "fixed"), "distribution": ("fixed",)}
LAWS = {
    "gaussian": ("2", "1", "inf"),
    "lattice": ("1", "inf", "3"),
    "uniform": ("1",),
    "laplace": ("1",),
    "anisotropic": ("2",),
}


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every run of the table by name."""
    for mode in MODES:
        yield f"classes, votes, {mode}", partial(run_of_classes, mode)
        yield f"two classes, votes, {mode}", partial(run_of_two, mode)
    for scores, modes in SCORES.items():
        for mode in modes:
            yield f"classes, {scores}, {mode}", partial(run_of_classes, mode, scores=scores)
    for law, norms in LAWS.items():
        for norm in norms:
            for mode in ("fixed", "decide"):
                yield (
                    f"classes, votes, {mode}, {law}, l{norm}",
                    partial(run_of_classes, mode, law=law, norm=norm),
                )
    for norm in ("2", "inf"):
        for radius in (None, 0.1):
            yield f"pixels, l{norm}, radius {radius}", partial(run_of_pixels, norm, radius)
    yield "internal noise", internal
    yield "in two shards, merged", sharded
    yield "resumed", resumed
    yield "carried over to another number type", carried
    yield "the two numbers of a prediction", predicted
    yield "a run from counts: its id, digest and files", from_counts


def smoothed(law: str = "lattice", norm: str = "2", **options: Any) -> certify.Smoothed:
    sigma: Any = torch.tensor([[[0.2, 0.25], [0.3, 0.35]]]) if law == "anisotropic" else SIGMA
    return certify.Smoothed(
        Exact().eval(), sigma, num_classes=CLASSES, noise=law, norm=norm, grid=GRID, bounds=(0.0, 1.0),
        batch_size=64, **options,
    )  # fmt: skip


def run_of_classes(mode: str, *, scores: str = "votes", law: str = "lattice", norm: str = "2") -> Any:
    x, y = inputs()
    run = smoothed(law, norm).certify(x, y, mode=mode, scores=scores, seed=SEED, **MODES[mode])
    return said(run, counted=law == "lattice" and scores == "votes")


def run_of_two(mode: str) -> Any:
    x, y = inputs()
    g = certify.Smoothed(ExactTwo().eval(), SIGMA, num_classes=2, grid=GRID, bounds=(0.0, 1.0), batch_size=64)
    return said(g.certify(x, y % 2, mode=mode, seed=SEED, **MODES[mode]), counted=True)


def run_of_pixels(norm: str, radius: float | None) -> Any:
    g = certify.SmoothedSegmentation(
        ExactPixels().eval(), SIGMA, num_classes=CLASSES, norm=norm, grid=GRID, bounds=(0.0, 1.0),
        batch_size=64,
    )  # fmt: skip
    x, y = images()
    return said(g.certify(x, y, radius=radius, n0=20, n=200, seed=SEED), counted=True)


def internal() -> Any:
    x, y = inputs()
    g = SmoothedInside(Inside().eval(), num_classes=2, bounds=None, batch_size=64)
    return said(g.certify(x, y % 2, mode="fixed", seed=SEED, **MODES["fixed"]), counted=False)


def sharded() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / "a", Path(folder) / "b"]
        x, y = inputs()
        for part, s in zip(parts, (slice(0, 4, 2), slice(1, 4, 2)), strict=True):
            ids = list(range(4))[s]
            smoothed().certify(x[s], y[s], ids=ids, seed=SEED, store=part, **MODES["radius"])
        merge(parts, Path(folder) / "whole")
        return said(read_run(Path(folder) / "whole").run, counted=True)


def resumed() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        x, y = inputs()
        for n in (2, 4):
            smoothed().certify(x[:n], y[:n], seed=SEED, store=Path(folder) / "run", **MODES["radius"])
        stored = read_run(Path(folder) / "run")
        return {**said(stored.run, counted=True), "manifest": shape_of(build(stored))}


def carried() -> Any:
    x, y = inputs()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        g = smoothed()
        g.certify(x, y, seed=SEED, store=place, **MODES["radius"])
        return said(
            transfer(read_run(place), g, smoothed(dtype="fp64"), x, samples=50, seed=SEED), counted=True
        )


def predicted() -> Any:
    x, _ = inputs()
    return [
        {"class": p.label, "p_value": float(f"{p.p_value:.6g}"), "samples": p.samples}
        for p in smoothed().predict(x, n=100, seed=SEED)
    ]


def from_counts() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        digest = sample_run.fill(Path(folder) / "run", range(8))
        stored = read_run(Path(folder) / "run")
        files = sorted(p.name for p in (Path(folder) / "run").iterdir())
        return {"id": stored.run_id, "digest": digest, "files": files, "manifest": shape_of(build(stored))}


def said(run: Any, *, counted: bool) -> dict[str, Any]:
    """What a run claims; ``counted``: no rounding decides its votes, so its records belong to it."""
    settings = json.loads(canonical({k: v for k, v in dict(run.settings).items() if k not in LEFT_OUT}))
    entries = getattr(run, "run", run)
    records = [{k: v for k, v in r.to_json().items() if k not in NOT_COMPARED} for r in entries]
    body = {
        "settings": settings,
        "guarantee": run.guarantee,
        "fields of a record": shape_of(records[0]),
        "left out": sorted(LEFT_OUT & set(run.settings)),
    }
    if counted:
        body["records"] = sha256_text(canonical(json.loads(json.dumps(records))))
        body["radii"] = [r.radius for r in entries]
    return body


def shape_of(value: Any) -> Any:
    """Keys and kinds of a JSON value, without what it holds."""
    if isinstance(value, dict):
        return {k: shape_of(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [shape_of(value[0])] if value else []
    return type(value).__name__


def table() -> dict[str, Any]:
    return {name: json.loads(json.dumps(make())) for name, make in cases()}


if __name__ == "__main__":
    from tests.certify import frozen  # under its name: classes of __main__ are told apart by their code

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="replace frozen.json")
    parser.parse_args()
    FILE.write_text(json.dumps(frozen.table(), indent=1, sort_keys=True) + "\n")
