"""Quasi-linear hyperbolic networks on scikit-learn's digits: equations and activations."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from common import over_seeds

import certify
from certify.data import load
from pdenets.training import evaluate, train

ROWS = (
    {"equation": "3", "activation": "softball"},
    {"equation": "3", "activation": "hardball"},
    {"equation": "3", "activation": "none"},
    {"equation": "3", "activation": "relu", "placement": "all"},
    {"equation": "4", "activation": "softball"},
    {"equation": "5", "activation": "softball"},
    {"equation": "6", "activation": "softball"},
    {"equation": "7", "activation": "softball"},
    {"equation": "factored", "activation": "softball"},
)


def run(seeds: int) -> dict[str, Any]:
    rows = []
    for arguments in ROWS:
        found = [one(arguments, seed) for seed in range(seeds)]
        rows.append(
            {
                "equation": arguments["equation"],
                "activation": f"{arguments['activation']}@{arguments.get('placement', 'ds')}",
                "parameters": found[0][1],
                "test accuracy": over_seeds([f[0] for f in found]),
                "training s": round(found[0][2], 1),
            }
        )
    best = rows[0]["test accuracy"]["mean"]
    return {
        "rows": rows,
        "seeds": seeds,
        "epochs": 12,
        "bars": {f"Eq. (3), softball: {best} >= .975": best >= 0.975},
    }


def one(arguments: dict[str, Any], seed: int) -> tuple[float, int, float]:
    test = load("digits", split="test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        result = train(
            load("digits", split="train"), test, arch="quasi-linear", arguments=arguments, out=path,
            sigma=0.0, regulariser="none", epochs=12, batch_size=32, lr=5e-3, seed=seed,
        )  # fmt: skip
        accuracy = evaluate(certify.load(path), test, sigma=0.0).accuracy
    return accuracy, result.parameters, result.seconds
