"""An unfinished training on disk: written after every epoch, removed when training is done."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from certify.errors import RunConflict, UnreadableFile
from certify.files import write_atomically


def state_path(out: Path) -> Path:
    """Where the unfinished training of checkpoint ``out`` lives."""
    return out.with_name(out.name + ".unfinished")


def save_state(
    path: Path, *, settings: Mapping[str, Any], history: list[dict[str, Any]], tensors: Mapping[str, Any]
) -> None:
    """Replace the state file as a whole. ``tensors``: state dicts of the model and the optimiser."""
    buffer = io.BytesIO()
    # Settings and history travel as JSON text, so that reading needs tensors and plain types only.
    torch.save(
        {"settings": _text(settings), "history": json.dumps(history), "tensors": dict(tensors)}, buffer
    )
    write_atomically(path, buffer.getvalue())


def load_state(
    path: Path, *, settings: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """(history, tensors) of an unfinished training with the same settings; None where there is none.

    Raises RunConflict where the file belongs to other settings, UnreadableFile where it is damaged.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found, history, tensors = (
            json.loads(state["settings"]),
            json.loads(state["history"]),
            state["tensors"],
        )
    except Exception as cause:
        raise UnreadableFile(
            f"the unfinished training {path} cannot be read",
            why=f"{type(cause).__name__}: {cause}",
            remedy=f"delete {path} to train from the start",
        ) from cause
    wanted = json.loads(_text(settings))
    if found != wanted:
        keys = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        raise RunConflict(
            f"{path} is an unfinished training with other settings",
            why="; ".join(f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} now"[:120] for key in keys),
            remedy=f"train with the old settings to finish it, choose another --out, or delete {path}",
        )
    return history, tensors


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=list)
