"""What a run is about: model and data by digest, versions, the command, and the place it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from certify import Smoothed
    from certify.data import Dataset


#: Class numbers that a run writes down as names.
_MOST_NUMBERS = 10_000


def provenance(
    path: Path, network: Any, dataset: Dataset, *, part: Dataset, skip: int, limit: int | None
) -> dict[str, Any]:
    """What the certificates are about: model and data by digest, versions, and the command.

    ``part``: what is certified here of ``dataset``; a shard names the whole that it is a part of.
    """
    import platform

    import numpy as np
    import torch

    import certify
    from certify.checkpoints import model_digest
    from certify.inputs import Rows

    header = getattr(network, "certify_header", None)
    return {
        "model": {
            "path_name": str(path),
            "architecture": header.architecture if header else None,
            "arguments": dict(header.arguments) if header else None,
            "digest": model_digest(network),
            **_taken(network),
        },
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "classes": _names(dataset),
            "limit": limit,
            "skip": skip,
            **(Rows.of(dataset.ids, dataset.x, dataset.labels).named() if len(part) < len(dataset) else {}),
        },
        "versions": {
            "certify": certify.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": common.command_line(),
    }


def here() -> dict[str, Any]:
    """The day and the machine, for a run's ``environment``: recorded with a session, binding nothing."""
    from datetime import datetime

    from certify.store.manifest import hardware

    return {"date": datetime.now().date().isoformat(), "hardware": hardware()}


def _names(dataset: Dataset) -> list[str]:
    """The classes' names; none where thousands are only numbered, as nothing is learnt from those."""
    from certify.labels import Numbered

    numbered = isinstance(dataset.classes, Numbered) and len(dataset.classes) > _MOST_NUMBERS
    return [] if numbered else list(dataset.classes)


def _taken(network: Any) -> dict[str, Any]:
    """What of its file the network is, where that was chosen, and what stands in front of it."""
    from certify.denoising import Denoised

    source = None
    if isinstance(network, Denoised):
        source, network = network.certify_source, network.model
    loaded = getattr(network, "certify_loaded", None)
    found: dict[str, Any] = {"loaded": loaded.to_json()} if loaded is not None and loaded.lines() else {}
    normalise = getattr(network, "certify_normalise", None)
    found |= {"normalise": normalise} if normalise else {}
    return found | ({} if source is None else {"denoiser_path": source})


def short_denoiser(model: Any) -> str | None:
    """A short name for the denoiser in front of the model: its file's, or its kind; None without one."""
    from certify.denoising import behind_denoiser

    found = behind_denoiser(model)
    if found is None:
        return None
    header = getattr(found.denoiser, "certify_header", None)
    if found.certify_source:
        return Path(found.certify_source).stem
    return header.architecture if header else "denoised"


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
    front = short_denoiser(smoothed.model)
    parts = [
        model.stem if front is None else f"{model.stem}-{front}",
        dataset.name,
        f"s{smoothed.sigma_scale:g}",
        asked["mode"],
        digest,
    ]
    if shard is not None:
        parts.append("shard" + shard.replace("/", "of"))
    return Path("runs") / "-".join(parts)
