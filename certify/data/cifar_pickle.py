"""CIFAR's Python batches, which are pickles, read as data: nothing in them is imported or called."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from certify.files.pickle_machine import Name, RefusedPickle, run
from certify.files.safe import open_regular, unreadable, untrusted

KIND = "CIFAR batch"
_PIXELS = 3 * 32 * 32
#: The largest genuine batch, CIFAR-100's training file, has 155 MB.
MAX_BYTES = 2**28


def read_batch(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3072) and labels (n,) of one batch, both uint8.

    Raises UntrustedFile when the pickle holds anything but arrays of bytes, lists and numbers,
    UnreadableFile when those are not a batch.
    """
    with open_regular(path, KIND) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise untrusted(path, f"it has more than {MAX_BYTES} bytes, more than any batch of this data set")
        program = file.read()
    try:
        content = run(program, _Arrays())
    except RefusedPickle as error:
        raise untrusted(
            path,
            f"its pickle does more than describe images: {error}",
            "use the binary version of the data set, or fetch the file again from its source",
        ) from error
    if not isinstance(content, dict):
        raise unreadable(path, KIND, "it holds no table")
    table = {_text(key): value for key, value in content.items()}
    data, labels = table.get("data"), table.get(label_key)
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise unreadable(path, KIND, f"it has no array 'data' or no list {label_key!r}")
    if data.shape != (len(labels), _PIXELS) or len(data.content) != len(labels) * _PIXELS:
        raise unreadable(path, KIND, f"it has {len(labels)} labels and data of shape {data.shape}")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise unreadable(path, KIND, "its labels are not class numbers")
    images = np.frombuffer(data.content, dtype=np.uint8).reshape(data.shape)
    return images, np.array(labels, dtype=np.uint8)


@dataclass
class _Array:
    """Stands for a numpy array of bytes in row order."""

    shape: tuple[int, ...] = ()
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class _Dtype:
    """Stands for a numpy type; only unsigned bytes are accepted."""

    code: str


_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_KNOWN = (*_RECONSTRUCT, "numpy.ndarray", "numpy.dtype", "_codecs.encode")


class _Arrays:
    """The globals that numpy and Python write for arrays of bytes."""

    def allow(self, name: Name) -> None:
        if str(name) not in _KNOWN:
            raise RefusedPickle(f"it refers to {name}, which is code, not numbers")

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        if str(function) in _RECONSTRUCT:
            return _Array()
        if str(function) == "numpy.dtype" and _text(arguments[0]) == "u1":
            return _Dtype("u1")
        if str(function) == "_codecs.encode" and len(arguments) == 2 and isinstance(arguments[0], str):
            return arguments[0].encode("latin-1")
        raise RefusedPickle(f"it calls {function} with unusual arguments")

    def new(self, kind: Name, arguments: tuple[Any, ...]) -> Any:
        raise RefusedPickle(f"it makes a {kind}")

    def build(self, target: Any, state: Any) -> Any:
        if isinstance(target, _Dtype):
            return target
        if not isinstance(target, _Array) or not isinstance(state, tuple) or len(state) != 5:
            raise RefusedPickle("it sets the state of an object")
        _version, shape, dtype, column_order, content = state
        content = content.encode("latin-1") if isinstance(content, str) else content
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not whole or dtype != _Dtype("u1") or column_order is not False or not isinstance(content, bytes):
            raise RefusedPickle("an array in it is no array of bytes in row order")
        target.shape, target.content = shape, content
        return target

    def persistent(self, token: Any) -> Any:
        raise RefusedPickle("it refers to something outside itself")


def _text(key: Any) -> Any:
    return key.decode("latin-1") if isinstance(key, bytes) else key
