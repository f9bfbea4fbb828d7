"""Small genuine runs of every kind, made through the command: what the fault campaign damages and forges."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

import certify
from certify.checkpoints import Header, save
from certify_cli.main import app
from pdenets.baselines import mlp
from pdenets.noisy_resnet import noisy_resnet
from pdenets.unet import unet

#: The shape of the inputs, and how many of them every run certifies.
SHAPE, INPUTS = (1, 4, 4), 4
KINDS = (
    "radius", "grid", "decide", "fixed", "soft", "distribution", "attacked", "merged", "imported", "internal",
    "transferred", "pixels", "holm",
)  # fmt: skip
_CERTIFY = ("radius", "-m", "m.pt", "-s", 0.1, "--limit", INPUTS, "--n-max", 400, "--seed", 7)
_PIXELS = ("radius", "-m", "u.pt", "--n0", 10, "--n", 100, "--seed", 7)
_OPTIONS = {
    "radius": (),
    "grid": ("--mode", "grid", "--step", 0.05),
    "decide": ("--mode", "decide", "--radius", 0.05),
    "fixed": ("--mode", "fixed", "--n0", 20, "--n", 300, "--randomised"),
    "soft": ("--scores", "soft"),
    "distribution": ("--scores", "distribution", "--mode", "fixed", "--n0", 20, "--n", 300),
}


def cli(*words: object) -> Any:
    """The command in this process; ``exception`` is SystemExit unless something escaped."""
    return CliRunner().invoke(app, [str(word) for word in words])


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Runs name their model and data by relative paths."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def build(folder: Path, kinds: tuple[str, ...] = KINDS) -> Path:
    """Models, data and one finished run of each of ``kinds`` below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with inside(folder):
        _data_and_models()
        for kind in kinds:
            {"attacked": _attacked, "merged": _merged, "imported": _imported, "transferred": _transferred,
             "pixels": _pixels}.get(kind, lambda kind=kind: _ok(*resume(kind), "--out", kind))()  # fmt: skip
    return folder


def resume(kind: str) -> tuple[object, ...]:
    """The command that made a run of this kind, or would have made one like it."""
    if kind == "internal":
        return (
            "radius",
            "-m",
            "noisy.pt",
            "--noise",
            "internal",
            "--limit",
            INPUTS,
            "--n-max",
            300,
            "--seed",
            7,
        )
    if kind in ("pixels", "holm"):
        return (*_PIXELS, *(("--radius", 0.02, "--tolerate", 0.1) if kind == "holm" else ()))
    return (*_CERTIFY, *_OPTIONS.get(kind, ()))


def _attacked() -> None:
    _ok(*_CERTIFY, "--out", "attacked")
    _ok("attack", "attacked")
    _ok("attack", "attacked", "--base", "--eps", 0.3, "--limit", 2)
    _ok("bounds", "attacked", "--draws", 10, "--points", 10)
    _ok("compare", "attacked")


def _merged() -> None:
    for part in (1, 2):
        _ok(*_CERTIFY, "--shard", f"{part}/2", "--out", f"part{part}")
    _ok("merge", "part1", "part2", "--out", "merged")


def _imported() -> None:
    _ok("export", "radius", "--to", "locuslab", "--out", "log.tsv")
    _ok("import", "log.tsv", "-s", 0.1, "--n", 400, "--out", "imported")


def _ok(*words: object) -> None:
    done = cli(*words)
    assert done.exit_code == 0, (words, done.output, done.exception)


def _data_and_models() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(12, *SHAPE), dtype=np.uint8)
    np.savez("d.npz", x=x, y=(x.reshape(12, -1).mean(1) > 127).astype(int), classes=["dark", "light"])
    side = rng.integers(0, 256, size=(3, 1, 6, 6), dtype=np.uint8)
    np.savez("seg.npz", x=side, y=(side[:, 0] > 127).astype(np.int64))
    torch.manual_seed(0)
    light = mlp(num_classes=2, input_shape=SHAPE, width=8)
    _lean(light)
    save_as("m.pt", light.eval(), "mlp", {"width": 8})
    save_as("noisy.pt", _noisy(), "noisy-resnet", {"sigma": 0.25})
    net = unet(num_classes=2, input_shape=(1, 6, 6), width=2, depth=1).eval()
    save_as(
        "u.pt", net, "unet", {"width": 2, "depth": 1}, shape=(1, 6, 6), data="seg.npz", task="segmentation"
    )


def _noisy() -> nn.Module:
    return noisy_resnet(num_classes=2, input_shape=SHAPE, sigma=0.25).eval()


def _lean(net: nn.Module) -> None:
    """A little training, so that some inputs are certified and others are not."""
    x = torch.rand(1000, *SHAPE)
    y = (x.flatten(1).mean(1) > 0.5).long()
    steps = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        steps.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        steps.step()


def save_as(
    path: str, net: nn.Module, arch: str, arguments: dict, *, shape: tuple[int, ...] = SHAPE,
    data: str = "d.npz", task: str = "classification",
) -> None:  # fmt: skip
    """A checkpoint of a network with two classes, with its header."""
    header = Header(
        architecture=arch, arguments=arguments, num_classes=2, input_shape=shape, low=0.0, high=1.0,
        grid=1 / 255, dataset={"name": data}, training={"sigma": 0.1}, task=task,
    )  # fmt: skip
    save(path, net, header)


def _transferred() -> None:
    from certify.store import read_run
    from certify.transfer import transfer

    data = certify.data.load("d.npz")
    x, y = data.x[:INPUTS], data.y[:INPUTS]
    plain, coarse = (
        certify.Smoothed(certify.load("m.pt"), 0.1, data=data, dtype=dtype) for dtype in ("fp32", "bf16")
    )
    plain.certify(x, y, n_max=400, seed=7, store="source")
    transfer(read_run("source"), plain, coarse, x, samples=200, seed=1, store="transferred")


def _pixels() -> None:
    _ok(*_PIXELS, "--out", "pixels")
    _ok("attack", "pixels", "--eps", 0.05, "--limit", 1, "--preset", "smoothed")
