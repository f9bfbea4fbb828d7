"""A user's own arrays in files: ``.npz``, ``.npy``, tensors saved by torch, ``.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from certify.data.arrays import dataset_of, tensors_as_arrays
from certify.data.dataset import Dataset
from certify.data.gathering import gather
from certify.errors import UnreadableFile
from certify.files.npz import read_npy, read_npz
from certify.files.pickle_machine import Opaque
from certify.files.pickle_plan import TensorPlan
from certify.files.safe import untrusted
from certify.files.stored import Stored
from certify.files.tensor_files import read_safetensors
from certify.files.torch_archive import open_archive, program_kind, refuse_program

TORCH = (".pt", ".pth", ".th")
ENDINGS = (".npz", ".npy", ".safetensors", *TORCH)
#: Items of a list of (x, y) pairs; more belong into two tensors.
_MOST_ITEMS = 200_000
#: A list of pairs of a list of numbers and a label is as deep as data go.
_DEEPEST = 4


def array_file(path: Path, split: str) -> Dataset:
    """The data set in a file of arrays; the file is one split, unless its arrays are named by split.

    Raises UnreadableFile and UntrustedFile, as the readers of each format, and as ``dataset_of``.
    """
    if path.suffix == ".npz":
        return dataset_of(read_npz(path), path, split)
    if path.suffix == ".npy":
        labels = _labels_beside(path)
        notes = () if labels is None else (f"labels from {labels.name}",)
        arrays = {"x": read_npy(path)} | ({} if labels is None else {"y": read_npy(labels)})
        return dataset_of(arrays, path, split, notes=notes)
    if path.suffix == ".safetensors":
        return dataset_of(tensors_as_arrays(read_safetensors(path)[1]), path, split)
    program = program_kind(path)
    if program is not None:
        raise refuse_program(path, program)
    with open_archive(path) as stored:
        return dataset_of(_of_torch(stored), path, split)


def _labels_beside(path: Path) -> Path | None:
    """The file of labels that belongs to a file of inputs, by its name. Raises UnreadableFile for two."""
    stem = path.stem
    names = [f"{stem}_labels", f"{stem}_y", f"{stem}-labels", "labels", "y", "targets"]
    for inputs, labels in (("images", "labels"), ("data", "labels"), ("x", "y"), ("X", "y"), ("X", "Y")):
        parts = stem.replace("-", "_").split("_")
        if inputs in parts:
            names.insert(0, stem.replace(inputs, labels))
    found = [path.with_name(f"{name}.npy") for name in dict.fromkeys(names) if name != stem]
    found = [place for place in found if place.is_file()]
    own = [place for place in found if place.stem not in ("labels", "y", "targets")]
    chosen = own or found
    if len(chosen) > 1:
        raise UnreadableFile(
            f"the labels of {path} may be in {' or in '.join(place.name for place in chosen)}",
            why="both files lie beside it",
            remedy=f"keep one of them, or write one file: numpy.savez('{stem}.npz', x=x, y=y)",
        )
    return chosen[0] if chosen else None


def _of_torch(stored: Stored) -> dict[str, Any]:
    """The arrays of what torch.save wrote: a tensor, a pair, a dictionary, or a list of pairs."""
    content = stored.content
    if isinstance(content, TensorPlan):
        return tensors_as_arrays({"x": stored.read(content)})
    if isinstance(content, Mapping):
        if len(content) > 16 and all(isinstance(value, TensorPlan) for value in content.values()):
            raise _weights(stored.path, content)
        content = {str(name): _read(stored, value) for name, value in content.items()}
        return tensors_as_arrays(content)
    if isinstance(content, list | tuple) and len(content) <= _MOST_ITEMS:
        items = [_read(stored, item) for item in content]
        found = gather(tuple(items) if len(items) == 2 else items)
        return tensors_as_arrays({"x": found.x} | ({} if found.y is None else {"y": found.y}))
    raise _no_data(stored.path, content)


def _read(stored: Stored, value: Any, depth: int = 0) -> Any:
    """A value with its tensors read; numbers, text and lists of them stay."""
    if isinstance(value, TensorPlan):
        return stored.read(value)
    if depth > _DEEPEST:
        raise UnreadableFile(
            f"{stored.path} holds no data set",
            why="it holds lists inside lists inside lists",
            remedy="write it with torch.save({'x': x, 'y': y}, path)",
        )
    if isinstance(value, list | tuple):
        return type(value)(_read(stored, item, depth + 1) for item in value)
    if isinstance(value, Mapping):
        return {name: _read(stored, item, depth + 1) for name, item in value.items()}
    if isinstance(value, Opaque):
        raise _no_data(stored.path, value)
    return value


def _no_data(path: Path, content: Any) -> Exception:
    if isinstance(content, Opaque):
        return untrusted(
            path,
            f"it holds {content.what}: building it runs code that the file names",
            "save the tensors: torch.save({'x': x, 'y': y}, path)",
        )
    return UnreadableFile(
        f"{path} holds no data set",
        why=f"it contains a {type(content).__name__}, not a tensor x, a pair (x, y) or a dictionary of both",
        remedy="write it with torch.save({'x': x, 'y': y}, path)",
    )


def _weights(path: Path, content: Mapping[Any, Any]) -> UnreadableFile:
    first = ", ".join(ascii(str(name))[1:-1][:40] for name in list(content)[:3])
    return UnreadableFile(
        f"{path} holds the weights of a network, not data",
        why=f"its entries are {first}, ...",
        remedy=f"give it as the model: --model {path}",
    )
