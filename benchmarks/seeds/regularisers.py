"""What each regulariser does on MNIST: accuracy, certificates, attacks, generalization gap, cost.

One network, one optimiser, one number of epochs; only the loss (or the optimiser's
decay, or dropout) changes. Inverse evolution has no row: it acts on maps of logits,
and a classifier has one vector.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from common import over_seeds

import certify
from attacks import Threat, attack
from certify.data import load
from certify.data.dataset import Dataset
from pdenets.training import train

SIGMA, EPOCHS, RADII, EPS = 0.25, 4, (0.25, 0.5, 0.75), 1.0
CERTIFIED_INPUTS, ATTACKED_INPUTS, SAMPLES = 200, 100, 2000
#: Label, regulariser, its options, the network's arguments, weight decay.
ROWS: tuple[tuple[str, str, dict[str, Any], dict[str, Any], float], ...] = (
    ("none", "none", {}, {}, 0.0),
    ("weight decay .1", "none", {}, {}, 0.1),
    ("dropout .5", "none", {}, {"dropout": 0.5}, 0.0),
    ("Gaussian augmentation", "gaussian", {}, {}, 0.0),
    ("diffusion residual alone, weight 10", "residual", {}, {}, 0.0),
    ("augmentation + residual, weight 1", "diffusion", {"weight": 1.0}, {}, 0.0),
    ("augmentation + residual, weight 10", "diffusion", {}, {}, 0.0),
    ("consistency", "consistency", {}, {}, 0.0),
    ("adversarial training of the smoothed network", "smoothadv", {}, {}, 0.0),
)


def run(seeds: int) -> dict[str, Any]:
    rows = []
    for label, *settings in ROWS:
        found = [one(*settings, seed) for seed in range(seeds)]
        rows.append({"regulariser": label} | {key: over_seeds([f[key] for f in found]) for key in found[0]})
    return {
        "rows": rows, "seeds": seeds, "sigma": SIGMA, "epochs": EPOCHS, "samples": SAMPLES,
        "certified_inputs": CERTIFIED_INPUTS, "attacked_inputs": ATTACKED_INPUTS,
        "attack": f"AutoAttack's four attacks on the base network, l2, eps {EPS}",
    }  # fmt: skip


def one(
    regulariser: str, options: dict[str, Any], arguments: dict[str, Any], weight_decay: float, seed: int
) -> dict[str, float]:
    data, test = load("mnist", split="train"), load("mnist", split="test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        result = train(
            data, test.part(limit=500), arch="convection-diffusion", arguments=arguments, out=path,
            sigma=SIGMA, regulariser=regulariser, options=options, epochs=EPOCHS, weight_decay=weight_decay,
            seed=seed,
        )  # fmt: skip
        model = certify.load(path)
    clean = accuracy(model, test)
    part = test.part(limit=CERTIFIED_INPUTS)
    run = certify.Smoothed(model, sigma=SIGMA).certify(part.x, part.y, mode="fixed", n=SAMPLES, seed=seed)
    certified = {f"certified at {e.at}": e.value for e in run.accuracy(at=RADII)}
    few = test.part(limit=ATTACKED_INPUTS)
    broken = attack(model, few.x, few.y, threat=Threat(norm=2, eps=EPS), preset="standard", seed=seed)
    return {
        "clean": clean, **certified, f"AutoAttack l2 {EPS:g}": broken.robust_accuracy().value,
        "gap": accuracy(model, data) - clean, "training s": result.seconds,
    }  # fmt: skip


@torch.no_grad()
def accuracy(model: torch.nn.Module, data: Dataset) -> float:
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(data.x.split(1000), data.y.split(1000), strict=True)
    )
    return right / len(data)
