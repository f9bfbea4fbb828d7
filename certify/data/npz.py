"""A user's own arrays: an ``.npz`` file with ``x`` and ``y``, and what is declared about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from certify.contract import check_inputs
from certify.data.dataset import Dataset, whole_split
from certify.errors import UnreadableFile
from certify.files.npz import read_npz

_LAYOUT = (
    "x: (n, *shape), floats in the model's range or uint8 images (channels first); y: (n,) class "
    "indices; optional scalars low, high, grid, num_classes and strings classes"
)


def npz(path: Path, split: str) -> Dataset:
    """Read x and y; uint8 images become floats in [0, 1] with step 1/255.

    Optional entries declare more: ``low``, ``high`` (default 0 and 1), ``grid`` (the step of
    the lattice), ``num_classes`` (default: largest label + 1), ``classes`` (their names). Labels of
    shape (n, height, width) make it a segmentation set. The file is one split, whatever its name.

    Raises UnreadableFile for a missing or damaged file or another layout, UntrustedFile for
    pickled objects or sizes beyond the file's own, InvalidInput for values no certificate can
    speak about.
    """
    arrays = read_npz(path)
    missing = {"x", "y"} - set(arrays)
    if missing:
        raise UnreadableFile(
            f"{path} has no array {' and no array '.join(sorted(missing))}",
            why=f"it holds {', '.join(sorted(arrays)) or 'nothing'}; expected {_LAYOUT}",
            remedy="write it with numpy.savez(path, x=images, y=labels)",
        )
    x, y = arrays["x"], arrays["y"]
    grid = _scalar(arrays, "grid", path)
    if x.dtype == np.uint8:
        x, grid = x.astype(np.float32) / np.float32(255), 1 / 255
    low = _scalar(arrays, "low", path, 0.0)
    high = _scalar(arrays, "high", path, 1.0)
    dense = y.ndim == 3
    largest = int(y.max(initial=-1)) if y.dtype.kind in "iu" else -1
    num_classes = _scalar(arrays, "num_classes", path, float(max(largest + 1, 2)))
    if num_classes != int(num_classes) or num_classes < 2 or (grid is not None and grid <= 0):
        raise UnreadableFile(
            f"{path} declares num_classes = {num_classes:g} and grid = {grid}",
            why="a class count is a whole number of at least 2, and a grid is a positive step",
            remedy="write the true values, or leave these entries out",
        )
    num_classes = int(num_classes)
    inputs, labels = check_inputs(x, y, bounds=(low, high), num_classes=num_classes, dense=dense)
    assert labels is not None
    names = tuple(str(c) for c in np.atleast_1d(arrays.get("classes", np.arange(num_classes))))
    if len(names) != num_classes:
        raise UnreadableFile(
            f"{path} names {len(names)} classes",
            why=f"it has {num_classes} of them",
            remedy="give classes one name per class, in the order of the labels",
        )
    task = "segmentation" if dense else "classification"
    return Dataset(
        str(path),
        split,
        inputs,
        labels,
        num_classes,
        low,
        high,
        grid,
        whole_split(len(inputs)),
        names,
        task,
        counted="num_classes" not in arrays and "classes" not in arrays,
    )


def _scalar(arrays: dict[str, np.ndarray], key: str, path: Path, default: Any = None) -> Any:
    if key not in arrays:
        return default
    value = arrays[key]
    if value.ndim != 0 or value.dtype.kind not in "fiu" or not np.isfinite(value):
        raise UnreadableFile(
            f"{key} in {path} is not a number",
            why=f"it has shape {value.shape} and type {value.dtype}",
            remedy=f"write it as a scalar: numpy.savez(path, x=x, y=y, {key}=1.0)",
        )
    return float(value)
