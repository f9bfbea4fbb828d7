"""Class labels as people bring them: whole numbers of any width in, int64 out, all else refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, overload

import numpy as np
import torch
from torch import Tensor

from certify.errors import InvalidInput

#: Label of a pixel that has no class (segmentation); torch's cross entropy skips it by default.
IGNORE = -100
#: More classes than any classifier has: a larger label is a number of something else.
MOST_CLASSES = 2**24


class Numbered(Sequence[str]):
    """The class names "0", "1", ... of a data set that names none; each is made when it is asked for."""

    def __init__(self, count: int) -> None:
        self._range = range(count)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[str, ...]: ...
    def __getitem__(self, key: int | slice) -> str | tuple[str, ...]:
        found = self._range[key]
        return str(found) if isinstance(found, int) else tuple(map(str, found))

    def __iter__(self) -> Iterator[str]:
        return map(str, self._range)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbered):
            return self._range == other._range
        return isinstance(other, Sequence) and len(other) == len(self) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self._range)

    def __repr__(self) -> str:
        return f"Numbered({len(self)})"


def check_labels(
    y: Any, n: int, *, num_classes: int, dense: bool = False, input_shape: Sequence[int] | None = None
) -> Tensor:
    """The labels of ``n`` inputs as int64 on the CPU.

    ``y``: a tensor, array or list of whole numbers in [0, num_classes): (n,), or with ``dense`` (n, height,
    width), where ``IGNORE`` marks pixels without a class. Signed and unsigned integers of any width and byte
    order are taken. ``input_shape``: that of one input, for the message where the batch axis is missing.

    Raises InvalidInput for text, objects, fractions, truth values, masked arrays; for one-hot and multi-hot
    rows; for another number of labels; for a label that is no class.
    """
    values = _numbers(y)
    _check_shape(values, n, dense, input_shape)
    if values.dtype.kind not in "iu":
        _refuse_type(values.dtype.name, _as_integers(values))
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low >= 0 and high < num_classes:
        return torch.from_numpy(values.astype(np.int64))
    wrong = (values < 0) | (values >= num_classes)
    if dense:
        wrong &= values != IGNORE
    if wrong.any():
        value = int(values[wrong][0])
        first = int(np.flatnonzero(wrong.reshape(n, -1).any(axis=1))[0])
        raise InvalidInput(
            f"label {value} of input {first} is not a class",
            why=f"the model has {num_classes} classes: labels are 0 to {num_classes - 1}",
            remedy="check the data set's labels (some files count from 1), or the model's num_classes",
        )
    return torch.from_numpy(values.astype(np.int64))


def largest_label(y: np.ndarray) -> int:
    """The largest label of an array of whole numbers; -1 where there is none, or another type.

    Raises InvalidInput for one that no class has.
    """
    largest = int(y.max()) if y.dtype.kind in "iu" and y.size else -1
    if largest >= MOST_CLASSES:
        raise InvalidInput(
            f"the label {largest} is not a class",
            why=f"labels count classes from 0, and no classifier has more than {MOST_CLASSES:,} of them",
            remedy="number the classes 0, 1, 2, ...: classes, y = numpy.unique(y, return_inverse=True)",
        )
    return largest


def _numbers(y: Any) -> np.ndarray:
    """The labels as an array of numbers in the machine's byte order."""
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        _refuse_type("masked array", "give every input a label (of pixels without a class: IGNORE)")
    try:
        values = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    except (TypeError, ValueError, RuntimeError):
        kind = y.dtype if isinstance(y, Tensor) and y.layout == torch.strided else type(y).__name__
        _refuse_type(str(kind).removeprefix("torch."), "pass an array of class indices, one per input")
    if values.dtype.kind not in "iufb":
        _refuse_no_numbers(values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _refuse_no_numbers(values: np.ndarray) -> NoReturn:
    """Text, objects, dates and the like."""
    texts = [v for v in values.flat[:3] if isinstance(v, str | bytes)]
    if texts or values.dtype.kind in "UST":
        shown = ", ".join(repr(bytes(v) if isinstance(v, bytes) else str(v)) for v in texts)
        raise InvalidInput(
            f"the labels are text: {shown}, ...",
            why="a label is a class index: a whole number from 0 on",
            remedy="classes, y = numpy.unique(names, return_inverse=True) numbers them in sorted order "
            "(a .npz file keeps the names beside y as classes=classes)",
        )
    name = "Python objects (dtype object)" if values.dtype.kind == "O" else f"type {values.dtype.name}"
    raise InvalidInput(
        f"the labels are {name}",
        why="a label is a class index: a whole number",
        remedy="pass y as int64 class indices: numpy.asarray(y, dtype='int64')",
    )


def _check_shape(values: np.ndarray, n: int, dense: bool, input_shape: Sequence[int] | None) -> None:
    if values.ndim == 3 and values.shape[0] == n if dense else values.shape == (n,):
        return
    expected = f"({n}, height, width)" if dense else f"({n},)"
    why = f"there are {n} inputs and each needs {'one label per pixel' if dense else 'one label'}"
    remedy = "pass the labels that belong to these inputs"
    if values.size == 1 and n != 1 and input_shape is not None:
        whole = (n, *input_shape)
        why += f"; or the inputs are one input of shape {whole} without a batch axis"
        remedy = "for one input pass x.unsqueeze(0), of shape (1, *input_shape), and y of shape (1,)"
    elif not dense and values.shape == (n, 1):
        remedy = "pass y.reshape(-1)"
    elif not dense and values.ndim == 2 and values.shape[0] == n:
        why, remedy = _about_rows(values)
    raise InvalidInput(f"the labels have shape {values.shape}, expected {expected}", why=why, remedy=remedy)


def _about_rows(values: np.ndarray) -> tuple[str, str]:
    """Why one row of numbers per input is no label, and what to do."""
    if not np.isin(values, (0, 1)).all():
        return (
            "each input needs one class index; these are rows of numbers",
            "pass one class index per input (of scores or probabilities: y.argmax(1))",
        )
    if (values.sum(axis=1) == 1).all():
        return "each input needs one class index; these rows are one-hot", "pass y.argmax(1)"
    return (
        "some rows mark several classes or none (multi-hot): here every input has exactly one class",
        "certify one label at a time: a two-class model of label k, and y[:, k] as int64",
    )


def _as_integers(values: np.ndarray) -> str:
    whole = values.dtype.kind == "b" or bool((values == np.floor(values)).all())
    return (
        "pass y as int64 class indices: y.astype('int64'), y.long() of a tensor"
        if whole
        else "pass whole numbers: these labels have fractions (of scores: y.argmax(1))"
    )


def _refuse_type(kind: str, remedy: str) -> NoReturn:
    raise InvalidInput(
        f"the labels are of type {kind}", why="a label is a class index: a whole number", remedy=remedy
    )
