"""Inverse evolution layers against noisy labels, with the two controls that need no layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from common import over_seeds
from torch import Tensor, nn
from torch.nn import functional as F

from certify.data.dataset import Dataset
from certify.data.shapes import shapes
from pdenets.evolution import heat
from pdenets.unet import unet

EPOCHS, BATCH, LR, CLIP, WIDTH = 100, 24, 2e-3, 5.0, 16
#: Label, noisy training labels, arguments of the layer.
ROWS: tuple[tuple[str, bool, dict[str, Any]], ...] = (
    ("clean labels, no layer", False, {}),
    ("clean labels, heat dt .1 n 20", False, {"evolution": "heat", "steps": 20}),
    ("noisy labels, no layer", True, {}),
    ("noisy labels, heat dt .1 n 20", True, {"evolution": "heat", "steps": 20}),
    ("noisy labels, heat dt .1 n 30", True, {"evolution": "heat", "steps": 30}),
    ("noisy labels, curve motion dt .1 n 20", True, {"evolution": "curve-motion", "steps": 20}),
    ("noisy labels, reaction-diffusion dt .1 n 20", True, {"evolution": "reaction-diffusion", "steps": 20}),
)


@dataclass(frozen=True)
class Fit:
    """mIoU on clean test labels after the last epoch, at the best epoch, and after 30 heat steps."""

    final: float
    best: float
    smoothed: float


def run(seeds: int) -> dict[str, Any]:
    fits = {label: [fit(noisy, layer, s) for s in range(seeds)] for label, noisy, layer in ROWS}
    rows = [
        {"training": label, "mIoU at the last epoch": over_seeds([f.final for f in found])}
        for label, found in fits.items()
    ]
    plain = fits["noisy labels, no layer"]
    rows += [
        {"training": "control: no layer, best epoch chosen on the test labels",
         "mIoU at the last epoch": over_seeds([f.best for f in plain])},
        {"training": "control: no layer, 30 heat steps on the finished logits",
         "mIoU at the last epoch": over_seeds([f.smoothed for f in plain])},
    ]  # fmt: skip
    mean = {row["training"]: row["mIoU at the last epoch"]["mean"] for row in rows}
    gain = mean["noisy labels, heat dt .1 n 20"] - mean["noisy labels, no layer"]
    drop = mean["clean labels, no layer"] - mean["clean labels, heat dt .1 n 20"]
    return {
        "rows": rows, "seeds": seeds, "epochs": EPOCHS,
        "bars": {f"gain {gain:.3f} >= .2": gain >= 0.2, f"clean-label drop {drop:.3f} <= .03": drop <= 0.03},
    }  # fmt: skip


def fit(noisy: bool, layer: dict[str, Any], seed: int) -> Fit:
    """Train a U-Net and measure it after every epoch (the package's loop reports pixel accuracy)."""
    train, test = shapes("train", seed=seed, noisy=noisy), shapes("test", seed=seed, noisy=False)
    torch.manual_seed(seed)
    model = unet(num_classes=3, input_shape=train.input_shape, width=WIDTH, **layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    scores = []
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(train)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(train.x[rows]), train.y[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        scores.append(mean_iou(logits(model, test), test.y))
    z, step = logits(model, test), heat()
    for _ in range(30):
        z = z + 0.1 * step(z)
    return Fit(scores[-1], max(scores), mean_iou(z, test.y))


@torch.no_grad()
def logits(model: nn.Module, data: Dataset) -> Tensor:
    return model.eval()(data.x)


def mean_iou(z: Tensor, y: Tensor) -> float:
    """Intersection over union, averaged over the classes that occur."""
    predicted = z.argmax(1)
    values = []
    for k in range(z.shape[1]):
        union = int(((predicted == k) | (y == k)).sum())
        if union:
            values.append(int(((predicted == k) & (y == k)).sum()) / union)
    return sum(values) / len(values)
