"""Named arrays of a file as a data set: which is x, which is y, and what else they declare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.data.adapter import declare
from certify.data.dataset import Dataset
from certify.errors import InvalidInput, UnreadableFile
from certify.labels import MOST_CLASSES
from certify.noise.grid import MAX_DIVISOR

LAYOUT = (
    "x: (n, *shape), floats in the model's range or uint8 images (channels first); y: (n,) class "
    "indices; optional low, high and grid (a number, or one per feature), num_classes, classes (names)"
)
_INPUTS = ("x", "X", "images", "data", "inputs", "features")
_LABELS = ("y", "Y", "labels", "label", "targets", "target")
_DECLARED = ("low", "high", "grid", "num_classes", "classes")


def dataset_of(arrays: Mapping[str, Any], path: Path, split: str, *, notes: tuple[str, ...] = ()) -> Dataset:
    """The data set of named arrays or tensors; see ``LAYOUT``.

    Inputs may be called x, images or data, labels y, labels or targets, also with the split
    (``x_test``, ``test_images``). A file of inputs alone is a data set without labels. ``low``, ``high`` and
    ``grid`` per feature: every feature is held to its own range, the declared range is the widest, and the
    lattice is the coarsest that holds the lattices of all.

    Raises UnreadableFile for another layout, InvalidInput for values no certificate can speak about.
    """
    x_name, y_name = _named(arrays, path, split)
    x = arrays[x_name]
    y = None if y_name is None else _column(arrays[y_name])
    low, high = _bound(arrays, "low", path, x), _bound(arrays, "high", path, x)
    _check_ranges(x, low, high)
    grid = _common_step(_bound(arrays, "grid", path, x), path)
    notes += tuple(_about(arrays, low, high, grid))
    found = declare(
        x, y, name=str(path), split=split, classes=_names(arrays), num_classes=_classes(arrays, path),
        low=None if low is None else float(low.min()), high=None if high is None else float(high.max()),
        grid=grid,
    )  # fmt: skip
    return replace(found, notes=notes)


def _named(arrays: Mapping[str, Any], path: Path, split: str) -> tuple[str, str | None]:
    """The names of inputs and labels in the file."""
    inputs, labels = _found(arrays, _INPUTS, split), _found(arrays, _LABELS, split)
    others = [str(name) for name in arrays if name not in (*_DECLARED, *inputs, *labels)]
    if len(inputs) == 1 and len(labels) <= 1 and (labels or not others):
        return inputs[0], labels[0] if labels else None
    there = ", ".join(ascii(str(name))[1:-1][:60] for name in list(arrays)[:12]) or "nothing"
    if len(inputs) > 1 or len(labels) > 1:
        raise UnreadableFile(
            f"{path} has several arrays for {'inputs' if len(inputs) > 1 else 'labels'}",
            why=f"it holds {there}; expected {LAYOUT}",
            remedy="write it with one x and one y: numpy.savez(path, x=images, y=labels)",
        )
    missing = [name for name, found in (("x", inputs), ("y", labels)) if not found]
    raise UnreadableFile(
        f"{path} has no array {' and no array '.join(missing)}",
        why=f"it holds {there}; expected {LAYOUT}",
        remedy="write it with numpy.savez(path, x=images, y=labels)",
    )


def _found(arrays: Mapping[str, Any], names: tuple[str, ...], split: str) -> list[str]:
    plain = [name for name in names if name in arrays]
    if plain:
        return plain
    return [n for name in names for n in (f"{name}_{split}", f"{split}_{name}") if n in arrays]


def _column(y: Any) -> Any:
    """Labels (n, 1), as some files keep them, as (n,)."""
    return y.reshape(-1) if getattr(y, "ndim", 0) == 2 and y.shape[1] == 1 else y


def _names(arrays: Mapping[str, Any]) -> list[str] | None:
    return None if "classes" not in arrays else [str(c) for c in np.atleast_1d(np.asarray(arrays["classes"]))]


def _classes(arrays: Mapping[str, Any], path: Path) -> int | None:
    """The declared number of classes, which agrees with their names where both are there."""
    names = _names(arrays)
    if "num_classes" not in arrays:
        if names is not None and len(names) < 2:
            raise UnreadableFile(
                f"{path} names {len(names)} classes",
                why="there are at least two to choose from",
                remedy="give classes one name per class, in the order of the labels",
            )
        return None
    value = np.asarray(arrays["num_classes"])
    number = value.size == 1 and value.dtype.kind in "fiu" and bool(np.isfinite(value).all())
    count = float(value.reshape(())) if number else math.nan
    if not number or count != int(count) or not 2 <= count <= MOST_CLASSES:
        raise UnreadableFile(
            f"{path} declares num_classes = {count:g}",
            why=f"a class count is one whole number from 2 to {MOST_CLASSES:,}",
            remedy="write the true value, or leave it out",
        )
    if names is not None and len(names) != count:
        raise UnreadableFile(
            f"{path} names {len(names)} classes",
            why=f"it has {count:g} of them",
            remedy="give classes one name per class, in the order of the labels",
        )
    return int(count)


def _bound(arrays: Mapping[str, Any], key: str, path: Path, x: Any) -> np.ndarray | None:
    """A declared number, or one per feature, in a shape that broadcasts over a batch of inputs."""
    shape = tuple(x.shape[1:]) if getattr(x, "ndim", 0) > 1 else None
    if key not in arrays or shape is None:  # inputs without features are refused with the rest
        return None
    value = np.asarray(arrays[key])
    fits = value.ndim == 0 or value.shape == shape or (value.ndim == 1 and len(value) == shape[0])
    if not fits or value.dtype.kind not in "fiu" or not np.isfinite(value).all() or value.size == 0:
        raise UnreadableFile(
            f"{key} in {path} is not a number, nor one per feature",
            why=f"it has shape {value.shape} and type {value.dtype}; inputs have the shape {shape}",
            remedy=f"write it as a scalar, numpy.savez(path, x=x, y=y, {key}=1.0), or as {shape[0]} numbers",
        )
    value = value.astype(np.float64)
    return value if value.ndim in (0, len(shape)) else value.reshape(-1, *[1] * (len(shape) - 1))


def _check_ranges(x: Any, low: np.ndarray | None, high: np.ndarray | None) -> None:
    """Every feature stays in its own range. Ranges that are the same for all are checked with the rest."""
    values = x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if values.dtype.kind not in "fiu" or values.ndim < 2:
        return
    for bound, wrong in ((low, np.less), (high, np.greater)):
        if bound is None or bound.ndim == 0:
            continue
        with np.errstate(over="ignore"):  # a bound that float32 cannot hold bounds nothing
            outside = wrong(values.astype(np.float32), bound.astype(np.float32))
        if outside.any():
            place = tuple(int(i) for i in np.argwhere(outside)[0])
            limit = np.broadcast_to(bound, values.shape[1:])[place[1:]]
            raise InvalidInput(
                f"feature {', '.join(map(str, place[1:]))} of input {place[0]} is {values[place]:g}, "
                f"its declared {'low' if bound is low else 'high'} is {limit:g}",
                why="in other units every radius would be wrong",
                remedy="declare the true ranges, or rescale the features",
            )


def _common_step(grid: np.ndarray | None, path: Path) -> float | None:
    """The step of the coarsest lattice that holds the lattices of all features."""
    if grid is None:
        return None
    if not (grid > 0).all():
        raise UnreadableFile(
            f"{path} declares the grid {grid.min():g}",
            why="a grid is a positive step",
            remedy="write the true steps, or leave grid out",
        )
    if grid.ndim == 0:
        return float(grid.flat[0])
    steps = [_exact(float(step)) for step in np.unique(grid)]
    # A lattice has a step of 1/n or a power of two: the finer of the two that holds all is taken.
    whole = math.lcm(*(step.denominator for step in steps))
    common = Fraction(math.gcd(*(int(step * whole) for step in steps)), whole)
    power = common.numerator.bit_count() == 1 and common.denominator == 1
    common = common if power else Fraction(1, common.denominator)
    close = np.allclose([float(step) for step in steps], np.unique(grid), rtol=2.0**-22, atol=0)
    if not close or (common.denominator > MAX_DIVISOR and common.denominator.bit_count() > 1):
        raise UnreadableFile(
            f"the grids of the features in {path} have no common step",
            why=f"they are {', '.join(f'{s:g}' for s in np.unique(grid)[:6])}",
            remedy="round the features to powers of two, or bring them to one scale "
            "(certify.wrap(model, mean=..., std=...) takes it back inside the model)",
        )
    return float(common)


def _exact(step: float) -> Fraction:
    """A step as the fraction that was meant; powers of two are exact."""
    if math.frexp(step)[0] == 0.5:
        return Fraction(step)
    return Fraction(step).limit_denominator(MAX_DIVISOR)


def _about(
    arrays: Mapping[str, Any], low: np.ndarray | None, high: np.ndarray | None, grid: float | None
) -> list[str]:
    """What is done with declarations per feature, in words."""
    said = []
    if any(bound is not None and bound.ndim for bound in (low, high)):
        said.append(
            "every feature is in its own range; the range of the whole is the widest, and attacks keep to it"
        )
    if grid is not None and np.ndim(arrays["grid"]):
        said.append(f"the lattice of all features has the step {grid:g}, of which their own are multiples")
    return said


def tensors_as_arrays(found: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of any type as arrays numpy knows; all else as it is."""
    return {
        name: (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
        if isinstance(value, Tensor)
        else value
        for name, value in found.items()
    }
