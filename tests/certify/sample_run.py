"""A small, honest run without a model: Cohen's procedure on counts of known classifiers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from certify.bounds import binomial_lower, binomial_upper
from certify.radii import radius_down
from certify.records import Record, Status
from certify.store import open_run

ALPHA, SIGMA, N, N0 = 0.001, 0.25, 10_000, 100
GUARANTEE = "With probability at least 0.999 per input the class is constant within the radius."


def settings(**changes):
    base = {
        "format_version": 1,
        "model": {"path_name": "toy.pt", "architecture": "linear", "digest": "a" * 64},
        "data": {"name": "toy", "split": "test", "limit": 8, "skip": 0, "digest": "b" * 64},
        "sigma": SIGMA,
        "noise": {"name": "gaussian"},
        "alpha": ALPHA,
        "mode": "fixed",
        "mode_options": {"n0": N0, "n": N},
        "seed": "7",
        "num_classes": 3,
        "device": "cpu",
        "versions": {"certify": "0", "torch": "2", "python": "3.11"},
        "environment": {"batch_size": 100},
        "command": "certify radius --model toy.pt --sigma 0.25",
    }
    base |= changes
    drawn = {"name": "gaussian", "sigma": base["sigma"]}
    return {"noise_settings": drawn, "input_shape": [2], "dim": 2} | base


def record(index: int, *, seconds: float = 0.5) -> Record:
    """Input ``index``: class ``index % 3``, a vote share between .45 and .999."""
    k = 4500 + (index * 1237) % 5490
    counts = [0, 0, 0]
    label = index % 3
    counts[label] = k
    counts[(label + 1) % 3] = N - k
    p_lower, p_upper = binomial_lower(k, N, ALPHA), binomial_upper(k, N, ALPHA)
    certified = p_lower > 0.5
    return Record(
        index=index,
        status=Status.CERTIFIED if certified else Status.ABSTAINED,
        label=label if certified else None,
        target=(index * 7) % 3,
        radius=radius_down(p_lower, SIGMA) if certified else 0.0,
        radius_upper=radius_down(p_upper, SIGMA),
        p_lower=p_lower,
        p_upper=p_upper,
        pb_lower=0.0,
        pb_upper=1 - p_lower,
        samples=N + N0,
        counts=tuple(counts),
        seconds=seconds,
        details={"mode": "fixed"},
    )


def fill(path: Path, indexes: Iterable[int], **changes: Any) -> str:
    """Write a run of these inputs; returns its digest."""
    with open_run(path, settings(**changes), GUARANTEE) as store:
        for i in indexes:
            store.add(record(i))
        return store.digest()
