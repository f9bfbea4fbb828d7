"""Folders as Hugging Face keeps a model: the weights in one file, or in several with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from certify.errors import UnreadableFile
from certify.files.safe import open_regular, unreadable, untrusted
from certify.files.tensor_files import read_safetensors

KIND = "model folder"
WHOLE = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
#: An index lists a name of about a hundred bytes for every tensor.
MAX_INDEX_BYTES = 2**24
_MOST_PARTS = 1000


def weights_file(folder: Path) -> Path:
    """The file of a folder that holds (or lists) the weights. Raises UnreadableFile naming the layout."""
    for name in (WHOLE[0], INDEX, WHOLE[1]):
        if (folder / name).is_file():
            return folder / name
    found = sorted(p.name for p in folder.iterdir())[:6] if folder.is_dir() else []
    wanted = ", ".join((WHOLE[0], INDEX, WHOLE[1]))
    raise UnreadableFile(
        f"{folder} is not a model folder",
        why=f"it has none of {wanted}; it holds {', '.join(found) or 'nothing'}",
        remedy="give the file with the weights, or a folder as Hugging Face's save_pretrained writes it",
    )


def read_parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all parts that an index lists; each must be where the index says, once.

    Raises UnreadableFile for a part or a tensor that is missing, UntrustedFile for parts outside the folder.
    """
    with open_regular(index, KIND) as file:
        text = file.read(MAX_INDEX_BYTES + 1)
    if len(text) > MAX_INDEX_BYTES:
        raise untrusted(index, f"it has more than {MAX_INDEX_BYTES} bytes")
    try:
        places: Any = json.loads(text.decode("utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise unreadable(index, KIND, f"it lists no weights ({error!r})") from error
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise unreadable(index, KIND, "it lists no weights")
    parts = sorted(set(places.values()))
    if len(parts) > _MOST_PARTS or any(Path(part).name != part or part in (".", "..") for part in parts):
        raise untrusted(index, "its parts are not files of its own folder")
    found: dict[str, Tensor] = {}
    for part in parts:
        _, tensors = read_safetensors(index.parent / part)
        for name, tensor in tensors.items():
            if places.get(name) != part:
                raise unreadable(index, KIND, f"{part} holds {name!r}, which the index places elsewhere")
            found[name] = tensor
    missing = next((name for name in places if name not in found), None)
    if missing is not None:
        raise unreadable(index, KIND, f"{places[missing]} lacks {missing!r}, which the index places there")
    return found
