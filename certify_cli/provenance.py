"""What a run is about: model and data by digest, versions, the command, and the place it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset


def provenance(path: Path, network: Any, dataset: Dataset, *, skip: int, limit: int | None) -> dict[str, Any]:
    """What the certificates are about: model and data by digest, versions, and the command."""
    import platform

    import numpy as np
    import torch

    import certify
    from certify.checkpoints import model_digest

    header = getattr(network, "certify_header", None)
    return {
        "model": {
            "path_name": str(path),
            "architecture": header.architecture if header else None,
            "arguments": dict(header.arguments) if header else None,
            "digest": model_digest(network),
        },
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "classes": list(dataset.classes),
            "limit": limit,
            "skip": skip,
        },
        "versions": {
            "certify": certify.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": common.command_line(),
    }


def default_directory(
    model: Path, dataset: Dataset, smoothed: Smoothed, asked: dict[str, Any], described: dict[str, Any]
) -> Path:
    """runs/<model>-<data>-s<sigma>-<mode>-<digest of everything that decides a record>."""
    import hashlib
    import json

    decisive = [
        described["model"]["digest"],
        dataset.name,
        dataset.split,
        smoothed.sigma_scale,
        smoothed.noise.settings(),
        smoothed.norm,
        smoothed.grid,
        smoothed.classifier.dtype,
        smoothed.classifier.compiled,
        smoothed.device.type,
        asked,
    ]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:8]
    shard = described["environment"]["shard"]
    parts = [model.stem, dataset.name, f"s{smoothed.sigma_scale:g}", asked["mode"], digest]
    if shard is not None:
        parts.append("shard" + shard.replace("/", "of"))
    return Path("runs") / "-".join(parts)
