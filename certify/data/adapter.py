"""``as_dataset``: any source of inputs as a data set with a declared range and lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.calls import checked
from certify.contract import check_inputs
from certify.data.dataset import Dataset, whole_split
from certify.data.gathering import from_frame, gather
from certify.errors import CertifyError, InvalidInput, InvalidSetting
from certify.labels import IGNORE, MOST_CLASSES, Numbered, largest_label
from certify.noise.grid import make_grid

_PIXEL = 1 / 255


@checked
def as_dataset(
    source: Any,
    y: Any = None,
    *,
    label: str | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    low: float | None = None,
    high: float | None = None,
    grid: float | None = None,
    limit: int | None = None,
    name: str = "data",
    split: str = "test",
) -> Dataset:
    """A ``Dataset`` of what ``certify.data.gather`` can read: loaders, data sets, lists, frames, pictures.

    ``y``: labels (n,), or label maps (n, height, width); without any the data set has none
    (``Dataset.labelled`` is False). ``label``: the column of a DataFrame that holds them. ``classes``:
    the names of the classes, in the order of the model's outputs; needed for labels that are names.
    ``num_classes`` (default: of ``classes``, else largest label + 1, counted). ``low``, ``high``: the
    declared range (default 0 and 1). ``grid``: the step of the lattice; uint8 inputs and values that
    all are k/255 lie on 1/255, other inputs on none unless it is given. ``limit``: read this many at most.

    A ``Dataset`` comes back as it is. Raises InvalidInput and InvalidSetting, as ``gather`` and
    ``certify.contract.check_inputs``.
    """
    if isinstance(source, Dataset):
        return source
    if label is not None:
        source, y = _split_frame(source, y, label)
    found = gather(source, y, limit=limit)
    x = found.x if limit is None else found.x[:limit]
    labels = found.y if limit is None or found.y is None else found.y[:limit]
    return declare(
        x,
        labels,
        name=name,
        split=split,
        classes=classes,
        num_classes=num_classes,
        low=low,
        high=high,
        grid=grid,
    )


def declare(
    x: Any,
    y: Any,
    *,
    name: str,
    split: str,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    low: float | None = None,
    high: float | None = None,
    grid: float | None = None,
) -> Dataset:
    """The data set of arrays x (n, *shape) and y (or None), and what is declared about them."""
    if _is_uint8(x):
        x, grid = _as_pixels(x), _PIXEL
    low, high = 0.0 if low is None else float(low), 1.0 if high is None else float(high)
    labels = None if y is None else _class_indices(y, classes)
    counted = num_classes is None and classes is None
    count = _count(labels, classes, num_classes)
    dense = labels is not None and labels.ndim == 3
    inputs, checked = check_inputs(x, labels, bounds=(low, high), num_classes=count, dense=dense)
    if grid is None and on_pixels(inputs):
        grid = _PIXEL
    if checked is None:
        checked = torch.full((len(inputs),), IGNORE, dtype=torch.int64)
    names = Numbered(count) if classes is None else tuple(str(c) for c in classes)
    task = "segmentation" if dense else "classification"
    ids = whole_split(len(inputs))
    return Dataset(name, split, inputs, checked, count, low, high, grid, ids, names, task, counted)


def on_pixels(x: Tensor) -> bool:
    """Whether every value of ``x`` is k/255 for a whole k from 0 to 255, as 8-bit images are."""
    try:
        make_grid(_PIXEL, (0.0, 1.0)).integers(x)
    except CertifyError:
        return False
    return True


def _split_frame(frame: Any, y: Any, label: str) -> tuple[Any, Any]:
    columns = list(getattr(frame, "columns", ()))
    if y is not None or label not in columns:
        raise InvalidInput(
            f"there is no label column {label!r}" if y is None else "the labels are given twice",
            why=f"the columns are {', '.join(map(str, columns)) or 'none: this is no table'}",
            remedy="name one of them as label, or pass the labels as y and the other columns as inputs",
        )
    return from_frame(frame.drop(columns=label)), frame[label].to_numpy()


def _is_uint8(x: Any) -> bool:
    return isinstance(x, Tensor | np.ndarray) and x.dtype in (torch.uint8, np.uint8)


def _as_pixels(x: Any) -> Tensor:
    """8-bit values as the floats k/255, rounded once."""
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    return torch.from_numpy(array.astype(np.float32) / np.float32(255))


def _class_indices(y: Any, classes: Sequence[str] | None) -> Any:
    """Labels as an array; names of classes become their positions in ``classes``."""
    try:
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.array(y)
    except Exception as error:  # ragged lists, and what has labels of its own kind, fail with any error
        raise InvalidInput(
            "the labels cannot be read as an array",
            why=f"they must be one whole number per input or pixel, alike for all inputs ({error})",
            remedy="pass y as a tensor, an array or a flat list of class indices",
        ) from error
    if labels.dtype.kind in "OUST" and labels.size and isinstance(labels.flat[0], str | np.str_):
        found = sorted({str(name) for name in labels.flat})
        places = {str(name): k for k, name in enumerate(classes or ())}
        unknown = [name for name in found if name not in places]
        if unknown:
            shown = ", ".join(found[:8])
            raise InvalidInput(
                f"the label {unknown[0]!r} is the name of a class, and its number is not known",
                why=f"which output of the model stands for which name is not said; the names are {shown}",
                remedy=f"name them in the order of the model's outputs: classes={found[:8]!r}, "
                "or pass y as numbers",
            )
        return np.array([places[str(name)] for name in labels.flat], dtype=np.int64).reshape(labels.shape)
    return labels


def _count(labels: Any, classes: Sequence[str] | None, num_classes: int | None) -> int:
    """The number of classes: declared, or counted from the labels."""
    if num_classes is None and classes is not None:
        num_classes = len(classes)
    if num_classes is None:
        num_classes = 2 if labels is None else max(largest_label(labels) + 1, 2)
    if num_classes != int(num_classes) or not 2 <= num_classes <= MOST_CLASSES:
        raise InvalidSetting(
            f"num_classes = {num_classes:g} cannot be used",
            why=f"a class count is a whole number from 2 to {MOST_CLASSES:,}",
            remedy="check the labels: class indices count from 0",
        )
    if classes is not None and len(classes) != int(num_classes):
        raise InvalidSetting(
            f"{len(classes)} classes are named, there are {int(num_classes)}",
            why="every output of the model has one name",
            remedy="give one name per class, in the order of the labels",
        )
    return int(num_classes)
