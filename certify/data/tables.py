"""Tables in text files (.csv, .tsv) with a header line: numeric columns, one of them the label."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from certify.data.adapter import declare
from certify.data.dataset import Dataset
from certify.errors import InvalidInput, InvalidSetting, UnreadableFile
from certify.files.kinds import START, what_is
from certify.files.safe import open_regular, unreadable, untrusted
from certify.noise.grid import MAX_INTEGER

KIND = "table"
ENDINGS = {".csv": ",", ".tsv": "\t"}
#: A table is parsed in memory, with a small object for every word of text.
MAX_BYTES = 2**28
#: A column takes an object however few rows it has.
_MOST_COLUMNS = 2**15
#: Columns that hold the label where none is named.
_USUAL = ("label", "target", "class", "y")
#: Steps that decimal numbers and halves lie on, the coarsest first.
_STEPS = (
    1.0,
    0.5,
    0.25,
    0.1,
    0.125,
    0.05,
    2.0**-4,
    2.0**-5,
    0.01,
    2.0**-6,
    2.0**-8,
    0.001,
    2.0**-10,
    2.0**-12,
    1e-4,
)
#: Ranges of columns so far apart that one sigma cannot suit both.
_APART = 100


def table(path: Path, split: str, *, label: str | None, name: str) -> Dataset:
    """The rows of a table with a header line as inputs (n, columns); the ``label`` column gives the classes.

    Without ``label`` it is the column called label, target, class or y. Labels are class indices. The
    lattice is the coarsest of the usual decimal and binary steps on which every number lies; the range
    is that of the numbers, outwards to whole numbers. Both are said in ``Dataset.notes``.

    Raises UnreadableFile for damage, a missing header and missing columns; InvalidInput for columns that
    hold text, empty cells, and labels that are no class indices.
    """
    frame = parsed_table(path)
    label = _label_of(path, [str(column) for column in frame.columns], label)
    names = [str(column) for column in frame.columns if str(column) != label]
    if not names:
        raise UnreadableFile(
            f"{path} has no column besides {label!r}",
            why="there is nothing to certify",
            remedy="add the features",
        )
    x = np.stack([_numbers(frame[column], column, path) for column in names], axis=1)
    y = _classes(frame[label], label, path)
    low, high = float(np.floor(x.min())), float(np.ceil(x.max()))
    high = high if high > low else low + 1
    grid = _step(x)
    found = declare(x.astype(np.float32), y, name=name, split=split, low=low, high=high, grid=grid)
    return replace(found, notes=tuple(_about(label, names, x, found)))


def parsed_table(path: Path) -> Any:
    """A table as a pandas DataFrame, with a header line and at least one row.

    Raises UnreadableFile for what is no such table, UntrustedFile for one of more than 256 MB.
    """
    import pandas as pd

    with open_regular(path, KIND) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise untrusted(
                path,
                f"it has more than {MAX_BYTES // 2**20} MB",
                "keep a part of its rows, or write an .npz file",
            )
        kind = what_is(file.read(START))
        if kind is not None and not kind.what.startswith("a text file"):
            raise unreadable(path, KIND, f"it is {kind.what}", kind.do)
        file.seek(0)
        header = file.readline(_MOST_COLUMNS * 32)
        if header.count(ENDINGS[path.suffix.lower()].encode()) >= _MOST_COLUMNS or header[-1:] not in b"\r\n":
            raise untrusted(path, f"its first line has no end, or names more than {_MOST_COLUMNS} columns")
        file.seek(0)
        try:
            frame = pd.read_csv(
                file, sep=ENDINGS[path.suffix.lower()], engine="c", encoding="utf-8-sig",
                skipinitialspace=True, low_memory=False,
            )  # fmt: skip
        except (
            ValueError,
            UnicodeDecodeError,
            MemoryError,
            OverflowError,
        ) as error:  # pandas' errors are of these
            raise unreadable(
                path, KIND, f"it cannot be parsed ({str(error).splitlines()[0][:150]})"
            ) from error
    columns = [str(column) for column in frame.columns]
    if any(_is_number(column) for column in columns):
        raise UnreadableFile(
            f"the first line of {path} names no columns",
            why=f"it holds {', '.join(columns[:4])}: numbers of a row",
            remedy="add a header line, such as: height,width,label",
        )
    if not len(frame) or not columns:
        raise unreadable(path, KIND, "it has no rows")
    return frame


def _label_of(path: Path, columns: list[str], label: str | None) -> str:
    if label is None:
        usual = [column for column in columns if column.lower() in _USUAL]
        if len(usual) == 1:
            return usual[0]
    elif label in columns:
        return label
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    raise InvalidSetting(
        f"{path} has no column {label!r}"
        if label is not None
        else f"it is not said which column of {path} is the label",
        why=f"its columns are {shown}",
        remedy=f"name it: --label {columns[-1]} (or --data {path}:{columns[-1]})",
    )


def _numbers(column: Any, name: str, path: Path) -> np.ndarray:
    """One feature as float64."""
    if getattr(column.dtype, "kind", "O") not in "fiub":
        values = sorted({str(value) for value in column.dropna().unique()[:1000]})
        raise InvalidInput(
            f"the column {name!r} of {path} does not hold numbers",
            why=f"it holds {', '.join(values[:4])}{', ...' if len(values) > 4 else ''}; noise on a category "
            "means nothing, and a small ball holds no other one",
            remedy="leave the column out, or certify the other columns with it held fixed inside the model "
            "(docs/your-model.md, Tables)",
        )
    found = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise InvalidInput(
            f"row {row + 1} of the column {name!r} of {path} is empty or no finite number",
            why="a certificate is about numbers",
            remedy="fill or remove such rows; what is filled in is what is certified",
        )
    return found


def _classes(column: Any, name: str, path: Path) -> np.ndarray:
    kind = getattr(column.dtype, "kind", "O")
    values = column.to_numpy()
    if kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        values, kind = values.astype(np.int64), "i"
    if kind not in "iu":
        shown = ", ".join(sorted({str(value) for value in column.unique()[:1000]})[:6])
        raise InvalidInput(
            f"the label column {name!r} of {path} does not hold class indices",
            why=f"it holds {shown}; which output of the model stands for which of them is not said",
            remedy="write the number of each class, 0, 1, 2, ..., in the order of the model's outputs. "
            "In Python: certify.data.as_dataset(frame, label=..., classes=[...])",
        )
    return values


def _step(x: np.ndarray) -> float | None:
    """The coarsest usual step on which every number lies; None where there is none."""
    largest = float(np.abs(x).max())
    for step in _STEPS:
        parts = x * round(1 / step)
        if largest / step < MAX_INTEGER / 4 and np.abs(parts - np.round(parts)).max() < 1e-6 * max(
            1.0, largest
        ):
            return step
    return None


def _about(label: str, names: list[str], x: np.ndarray, found: Dataset) -> list[str]:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    said = [f"label column {label!r}, features {shown}"]
    lattice = "no lattice (only --noise gaussian applies)" if found.grid is None else f"step {found.grid:g}"
    said.append(f"from the numbers in the file: range {found.low:g} to {found.high:g}, {lattice}")
    spans = np.ptp(x, axis=0)
    spans = spans[spans > 0]
    if len(spans) and spans.max() > _APART * spans.min():
        said.append(
            f"the features span from {spans.min():g} to {spans.max():g}: one sigma means something else for "
            "each. Standardise the table (docs/your-model.md, Tables)"
        )
    return said


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.rpartition(".")[0] if text.count(".") > 1 else text))
    except ValueError:
        return False
