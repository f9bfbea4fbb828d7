"""Three MNIST networks of about 524 parameters: convolution, residual block, Global layer.

Trained as the authors' public code trains them: SGD at a constant rate .01, Nesterov momentum .9,
weight decay 5e-4 on every parameter, gradients clipped at l2 norm 5, batches of 128, 30
epochs, accuracy on the test set after the last. Every finished network is a line of
results/mnist_trio.jsonl; a network that is there with the same settings is not trained again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, over_seeds, text

import certify
from certify.data import load
from pdenets.global_nets import tiny_global
from pdenets.training import train
from seeds import fast_trio

RUNS = RESULTS / "mnist_trio.jsonl"
SETTINGS = {
    "optimizer": "sgd", "lr": 0.01, "schedule": "constant", "nesterov": True, "weight_decay": 5e-4,
    "batch_size": 128, "epochs": 30,
}  # fmt: skip
#: What the sources disagree on: the reproduction has no weight decay.
VARIANTS = {"nothing": {}, "no weight decay": {"weight_decay": 0.0}}
#: Accuracy in percent in the paper and in the reproduction.
REPORTED = {"convolution": (92.01, 91.5), "residual": (92.53, 93.39), "global": (95.03, 93.96)}


def run(seeds: int) -> dict[str, Any]:
    """Train what is missing of the first ``seeds`` seeds, a whole trio at a time, and sum up."""
    return summary(networks(range(seeds)))


def variants(seeds: int) -> dict[str, Any]:
    """The trio with one setting changed at a time."""
    rows, seconds = [], 0.0
    for name, change in VARIANTS.items():
        found = networks(range(seeds), SETTINGS | change)
        last = {b: [line["accuracy %"] for line in of.values()] for b, of in found.items()}
        gaps = [g - c for g, c in zip(last["global"], last["convolution"], strict=True)]
        accuracies = {f"{b} %": over_seeds(values) for b, values in last.items()}
        rows.append({"changed": name} | accuracies | {"global - convolution": over_seeds(gaps)})
        seconds += sum(line["seconds"] for of in found.values() for line in of.values())
    return {"rows": rows, "seeds": seeds, "settings": SETTINGS, "seconds": seconds}


def networks(seeds: range, settings: dict[str, Any] = SETTINGS) -> dict[str, dict[int, dict[str, Any]]]:
    """backbone -> seed -> its line; trains those that are missing."""
    before = finished(settings)
    missing = [(seed, backbone) for seed in seeds for backbone in REPORTED if seed not in before[backbone]]
    if missing:
        fast_trio.check()
    for seed, backbone in missing:
        line = {"backbone": backbone, "seed": seed} | one(backbone, seed, settings)
        with RUNS.open("a") as file:
            file.write(json.dumps(line | {"settings": settings}) + "\n")
    return {name: {s: of[s] for s in seeds} for name, of in finished(settings).items()}


def finished(settings: dict[str, Any] = SETTINGS) -> dict[str, dict[int, dict[str, Any]]]:
    """The networks trained with ``settings`` so far."""
    found: dict[str, dict[int, dict[str, Any]]] = {backbone: {} for backbone in REPORTED}
    for row in RUNS.read_text().splitlines() if RUNS.exists() else []:
        line = json.loads(row)
        if line["settings"] == settings:
            found[line["backbone"]][line["seed"]] = line
    return found


def one(backbone: str, seed: int, settings: dict[str, Any] = SETTINGS) -> dict[str, Any]:
    """Train one network; its accuracy after every epoch is on the test set and chooses nothing."""
    test = load("mnist", split="test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        result = train(
            load("mnist", split="train"), test, arch="seeds.fast_trio:network",
            arguments={"backbone": backbone}, out=path, sigma=0.0, regulariser="none", seed=seed, **settings,
        )  # fmt: skip
        trained = certify.load(path, arch="seeds.fast_trio:network").state_dict()
    model = tiny_global(num_classes=10, input_shape=(1, 28, 28), backbone=backbone).eval()
    model.load_state_dict(trained)
    with torch.no_grad():
        predicted = torch.cat([model(x).argmax(1) for x in test.x.split(1000)])
    three, five = test.y == 3, test.y == 5
    swapped = ((predicted == 5) & three).sum() + ((predicted == 3) & five).sum()
    return {
        "accuracy %": 100 * float((predicted == test.y).double().mean()),
        "confusion %": 100 * float(swapped / (three | five).sum()),
        "every epoch %": [round(100 * metrics.accuracy, 2) for metrics in result.history],
        "parameters": result.parameters,
        "seconds": round(result.seconds, 1),
    }


def summary(found: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Mean and interval over seeds beside each seed; the bars of the mean accuracies."""
    rows, last = [], {}
    for backbone, (paper, reproduction) in REPORTED.items():
        lines = found[backbone].values()
        last[backbone] = [line["accuracy %"] for line in lines]
        best_epoch = max(max(line["every epoch %"]) for line in lines)
        rows.append(
            {
                "backbone": backbone, "parameters": next(iter(lines))["parameters"],
                "accuracy %": over_seeds(last[backbone]),
                "each seed %": ", ".join(f"{a:.2f}" for a in last[backbone]),
                "best seed % (and epoch)": f"{max(last[backbone]):.2f} ({best_epoch:.2f})",
                "paper %": paper, "reproduction %": reproduction,
                "3 taken for 5 or 5 for 3 %": over_seeds([line["confusion %"] for line in lines]),
            }
        )  # fmt: skip
    gaps, beside_residual = (
        [g - other for g, other in zip(last["global"], last[name], strict=True)]
        for name in ("convolution", "residual")
    )
    gap, mean = over_seeds(gaps), {row["backbone"]: row["accuracy %"]["mean"] for row in rows}
    near = {
        f"{name}: mean {mean[name]:.2f} within 1.5 points of the paper or the reproduction": min(
            abs(mean[name] - value) for value in pair
        ) <= 1.5
        for name, pair in REPORTED.items()
    }  # fmt: skip
    return {
        "rows": rows,
        "seeds": len(gaps),
        "settings": SETTINGS,
        "global - convolution": gap | {"each": [round(g, 2) for g in gaps]},
        "global - residual": over_seeds(beside_residual),
        "seconds": sum(line["seconds"] for of in found.values() for line in of.values()),
        "bars": {f"mean of Global - Conv over seeds: {text(gap)} >= 1.5 points": gap["mean"] >= 1.5} | near,
    }
