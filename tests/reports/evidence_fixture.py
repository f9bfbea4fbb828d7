"""A run with known geometry: half-space classifiers, so that every true distance is exact.

Input i lies at distance t_i from the decision boundary of its half-space; votes at noise sigma
are Binomial(n, Phi(t_i / sigma)); the nearest adversarial example is at exactly t_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from certify.bounds import binomial_lower, binomial_upper
from certify.radii import radius_down
from certify.records import Record, Run, Status

GUARANTEE = (
    "For each certified input, with probability at least 0.999 over the noise, the smoothed classifier "
    "returns the certified class on every grid point within the certified l2 distance."
)
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass
class FakeStored:
    """The attributes of certify.store.StoredRun that reports read."""

    path: Path | None
    settings: dict[str, Any]
    guarantee: str
    run: Run
    attacks: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    stored_arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        return self.stored_arrays.get(name)


def stored_run(
    path: Path | None = None, *, inputs: int = 200, sigma: float = 0.25, side: int = 8, seed: int = 3
) -> FakeStored:
    """A certified, attacked and bounded run of ``inputs`` images of side x side pixels."""
    rng = np.random.default_rng(seed)
    dim, alpha, n = side * side, 1e-3, 10_000
    distance = np.abs(rng.normal(0.45, 0.3, inputs))
    target = rng.integers(0, 10, inputs)
    label = np.where(rng.random(inputs) < 0.95, target, (target + 1) % 10)
    settings = {
        "format_version": 1,
        "model": {"path_name": "model.pt", "architecture": "convection-diffusion", "digest": "9f2c" * 16},
        "data": {
            "name": "digits",
            "split": "test",
            "limit": inputs,
            "skip": 0,
            "digest": "ab12" * 16,
            "classes": list(CLASSES),
        },
        "sigma": sigma,
        "diffusion_sigma": sigma / math.sqrt(2),
        "noise": "lattice",
        "grid": 1 / 16,
        "bounds": [0.0, 1.0],
        "scores": "votes",
        "norm": "2",
        "alpha": alpha,
        "mode": "fixed",
        "mode_options": {"n0": 100, "n": n},
        "n_max": n,
        "seed": 7,
        "dtype": "float32",
        "num_classes": 10,
        "input_shape": [1, side, side],
        "dim": dim,
        "device": "cpu",
        "versions": {"certify": "0.1.0", "torch": "2.13.0"},
        "command": "certify radius --model model.pt --sigma 0.25 --mode fixed --n 10000 --seed 7",
    }
    records = []
    for i in range(inputs):
        k = int(rng.binomial(n, special.ndtr(distance[i] / sigma)))
        records.append(_record(i, k, n, alpha, sigma, int(label[i]), int(target[i])))
    run = Run(records, settings, GUARANTEE)
    stored = FakeStored(path, settings, GUARANTEE, run)
    stored.attacks = [
        o
        for smoothed in (True, False)
        for o in _attacks(rng, records, distance, label, target, smoothed=smoothed)
    ]
    stored.documents = {"ledger": ledger(), "bounds": bounds()}
    stored.stored_arrays["adversarial"] = _images(rng, stored, side)
    return stored


def _record(index: int, k: int, n: int, alpha: float, sigma: float, label: int, target: int) -> Record:
    low, high = binomial_lower(k, n, alpha), binomial_upper(k, n, alpha)
    counts = [0] * 10
    counts[label], counts[(label + 1) % 10] = k, n - k
    certified = low > 0.5
    return Record(
        index=index,
        status=Status.CERTIFIED if certified else Status.ABSTAINED,
        label=label if certified else None,
        target=target,
        radius=radius_down(low, sigma) if certified else 0.0,
        radius_upper=radius_down(high, sigma) if certified else 0.0,
        p_lower=low,
        p_upper=high,
        pb_lower=0.0,
        pb_upper=1 - low,
        samples=n + 100,
        counts=tuple(counts),
        seconds=0.031 + 0.001 * (index % 7),
    )


def _attacks(rng, records, distance, label, target, *, smoothed: bool):
    for r in records:
        right = bool(label[r.index] == target[r.index])
        found = float(distance[r.index]) * (1 + abs(rng.normal(0, 0.12)))
        found *= 1.0 if smoothed else 0.55
        status = "clean_error" if not right else "broken" if rng.random() < 0.93 else "unconfirmed"
        broken = status == "broken"
        yield {
            "index": r.index,
            "target": int(target[r.index]),
            "smoothed": smoothed,
            "norm": "2",
            "eps": None,
            "preset": "smoothed" if smoothed else "minimal",
            "clean_correct": right,
            "status": status,
            "distance": found if broken else None,
            "distance_l2": found if broken else None,
            "distance_linf": found / 4 if broken else None,
            "prediction": int((target[r.index] + 1) % 10) if broken else int(target[r.index]),
            "by_attack": "pgd-l2",
            "margin32": -0.01,
            "margin64": -0.01,
            "in_ball": True,
            "in_box": True,
            "forwards": 400,
            "backwards": 400,
            "seconds": 0.4,
            "seed": 7,
        }


def _images(rng, stored: FakeStored, side: int) -> dict[str, np.ndarray]:
    broken = [o for o in stored.attacks if o["smoothed"] and o["status"] == "broken"]
    x, adversarial = [], []
    yy, xx = np.mgrid[0:side, 0:side] / (side - 1)
    for o in broken:
        centre = rng.random(2)
        image = np.exp(-8 * ((xx - centre[0]) ** 2 + (yy - centre[1]) ** 2))
        image = np.round(image * 16) / 16
        change = rng.normal(size=image.shape)
        change *= o["distance_l2"] / np.linalg.norm(change)
        x.append(image[None])
        adversarial.append((image + change)[None])
    return {
        "index": np.array([o["index"] for o in broken]),
        "x": np.array(x, dtype=np.float32),
        "x_adv": np.array(adversarial, dtype=np.float32),
    }


def ledger() -> dict[str, Any]:
    """Three claims: one that holds, the printed one violated, one undetermined."""

    def claim(name, statement, verdict, theory, measured, status, violations=0, checked=0, example=None):
        return {
            "claim": name,
            "statement": statement,
            "assumption": "votes in {0, 1}",
            "reference": "Cohen et al. 2019",
            "verdict": verdict,
            "sound": verdict == "sound",
            "quantity": "median radius / attack distance",
            "theory": theory,
            "measured": measured,
            "low": None if measured is None else measured * 0.9,
            "high": None if measured is None else measured * 1.1,
            "slack": None if measured is None else measured - theory,
            "status": status,
            "vacuous": False,
            "violations": violations,
            "checked": checked,
            "example": example,
            "note": "",
        }

    return {
        "claims": [
            claim("T1", "radius sigma sqrt(d) / (pA - pB) as printed", "not a certificate", 2.2, 0.48,
                  "violated", 171, 173, {"index": 4, "claimed": 2.13, "distance": 0.47}),
            claim("T2", "radius (sigma/2)(Phi^-1(pA) - Phi^-1(pB))", "sound", 0.43, 0.48, "holds", 0, 173),
            claim("R1", "covering bound, corrected", "sound", 0.376, None, "undetermined"),
        ]
    }  # fmt: skip


def bounds() -> dict[str, Any]:
    """Two bounds, one of them vacuous."""

    def result(name, value, side="upper"):
        return {
            "name": name,
            "reference": "Massart 2000",
            "target": "0-1 risk",
            "predictor": "smoothed",
            "side": side,
            "validity": "with probability 0.95",
            "value": value,
            "low": None,
            "high": None,
            "terms": {"complexity": value / 2},
            "delta": 0.05,
            "data_used": "training set",
            "assumptions": ["i.i.d."],
            "seed": 1,
            "seconds": 0.1,
        }

    return {
        "results": [result("test-set Clopper-Pearson", 0.115), result("Rademacher l2", 1.36)],
        "measured_gap": {
            "predictor": "deterministic network",
            "value": 0.03,
            "low": 0.01,
            "high": 0.06,
            "delta": 0.05,
            "train_error": 0.01,
            "test_error": 0.04,
            "test_low": 0.02,
            "test_high": 0.07,
            "n_train": 1000,
            "n_test": 361,
        },
    }
