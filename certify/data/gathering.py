"""Inputs and labels out of whatever people keep them in: loaders, data sets, lists, tables, pictures.

One reader for ``certify``, ``attack`` and ``as_dataset``. It never guesses: what could be read in two
ways is refused with the line that makes it one.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.calls import checked
from certify.data.dataset import Dataset
from certify.errors import InvalidInput, InvalidSetting

#: Bytes of all inputs together, as float32.
MAX_BYTES = 2**33
#: What an item takes at least, however small: a stream without an end must come to one.
_ITEM = 256
#: Inputs that are asked for twice, to notice a random transform.
_TWICE = 8
_INPUTS = ("x", "image", "images", "img", "pixel_values", "input", "inputs", "data", "features")
_LABELS = ("y", "label", "labels", "target", "targets")
_WAYS = (
    "an array or tensor (n, *shape), a list of arrays, of PIL images or of (x, y) pairs, a torch Dataset or "
    "DataLoader, a pandas DataFrame of numbers, or a data set of certify.data.load"
)


@dataclass(frozen=True)
class Gathered:
    """Inputs (n, *shape) and labels as arrays, in the types they came in; None where there are none.

    ``ids`` name the inputs where their source does.
    """

    x: Any
    y: Any = None
    ids: list[int] | None = None


@checked
def gather(source: Any, y: Any = None, *, limit: int | None = None) -> Gathered:
    """The inputs (and labels) of ``source``, in its own order.

    ``source``: an array or tensor (n, *shape); a list, tuple or iterator of arrays, PIL images or (x, y)
    pairs; a torch ``Dataset`` or ``DataLoader`` that gives x, (x, y) or a dictionary of both; a pandas
    DataFrame of numbers; a mapping or pair of arrays x and y; a ``certify.data.Dataset``. ``y``: labels,
    where the source holds none. ``limit``: read this many inputs at most (arrays are not cut).

    PIL images become floats in [0, 1], channels first; nothing else changes its values or its type.
    Raises InvalidInput for what cannot be read in one way only, for loaders that shuffle and for
    data sets that answer differently when asked twice (random transforms); InvalidSetting for
    more than 8 GiB.
    """
    found = _gathered(source, limit)
    if getattr(found.x, "ndim", 1) == 0:
        raise InvalidInput(
            "one number is no input",
            why="inputs are (n, *shape): their first dimension counts them",
            remedy="pass a batch: one input alone is x[None]",
        )
    if y is None:
        return found
    if found.y is not None:
        raise InvalidInput(
            "the labels are given twice",
            why=f"the {type(source).__name__} brings labels of its own, and y was given too",
            remedy="leave y out, or give the inputs alone",
        )
    return Gathered(found.x, y, found.ids)


def _gathered(source: Any, limit: int | None) -> Gathered:
    if isinstance(source, Dataset):
        return Gathered(source.x, source.labels, source.ids.tolist())
    if isinstance(source, Tensor | np.ndarray):
        return Gathered(source)
    if _is_frame(source):
        return Gathered(from_frame(source))
    if _is_picture(source):
        return _from_items([source], limit)
    if isinstance(source, torch.utils.data.DataLoader):
        return _from_loader(source, limit)
    if isinstance(source, Mapping):
        return Gathered(*_of_mapping(source))
    if _is_pair_of_arrays(source):
        return Gathered(*source)
    if hasattr(source, "__array__") and not isinstance(source, Sequence):
        return Gathered(np.asarray(source))
    if _by_position(source):
        return _from_items(_in_order(source), limit)
    if isinstance(source, str | bytes) or not isinstance(source, Iterable) or hasattr(source, "toarray"):
        raise _not_inputs(source)
    return _from_items(source, limit)


def from_frame(frame: Any) -> np.ndarray:
    """The columns of a pandas DataFrame as float32 (rows, columns). Raises InvalidInput for text."""
    text = [str(name) for name, kind in zip(frame.columns, frame.dtypes, strict=True) if not _numeric(kind)]
    if text:
        raise InvalidInput(
            f"the column {text[0]!r} does not hold numbers"
            + (f" (nor {len(text) - 1} others)" * (len(text) > 1)),
            why="noise is added to every value, and a category or a date has no neighbours to add it to",
            remedy="leave such columns out (frame.drop(columns=...)) and hold them fixed inside the model, "
            "or encode them as numbers where that means something",
        )
    return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float32)


# -- items and batches ------------------------------------------------------------------------


def _from_items(items: Iterable[Any], limit: int | None) -> Gathered:
    rows = [_pair(item) for item in itertools.islice(_within_memory(items), limit)]
    if not rows:
        raise InvalidInput(
            "there are no inputs", why="the list or data set is empty", remedy="check what was passed"
        )
    return Gathered(_stacked([x for x, _ in rows]), _labels([y for _, y in rows]))


def _from_loader(loader: Any, limit: int | None) -> Gathered:
    if _by_position(loader.dataset):
        _refuse_shuffling(loader)
        _refuse_random(loader.dataset)
    with torch.random.fork_rng(devices=[]):
        return _from_items(itertools.chain.from_iterable(_in_batches(loader)), limit)


def _in_batches(loader: Any) -> Iterator[list[Any]]:
    if loader.batch_sampler is None:  # batch_size=None: the loader gives one item at a time
        yield from ([item] for item in loader)
        return
    for batch in loader:
        x, y = _of_mapping(batch) if isinstance(batch, Mapping) else _two_parts(batch)
        yield list(x) if y is None else list(zip(x, y, strict=True))


def _two_parts(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of one batch of a loader; a batch that is a list of items stays one."""
    if not isinstance(batch, tuple | list) or not batch or not isinstance(batch[0], Tensor | np.ndarray):
        return batch, None
    sizes = {len(part) if hasattr(part, "__len__") else -1 for part in batch}
    if len(batch) == 1:
        return batch[0], None
    if len(batch) == 2 and sizes == {len(batch[0])}:
        return batch[0], batch[1]
    if sizes == {len(batch[0])} and len({tuple(np.shape(part)) for part in batch}) > 1:
        raise _many_parts(len(batch))
    return batch, None  # the loader's batches are lists of items


def _pair(item: Any) -> tuple[Any, Any]:
    """Input and label (or None) of one item of a list or data set."""
    if isinstance(item, Mapping):
        x, y = _of_mapping(item)
        return _values(x), y
    if isinstance(item, tuple | list) and item and not _is_number(item[0]):
        if len(item) == 2 and _is_label(item[1], item[0]):
            return _values(item[0]), item[1]
        if len(item) == 1 and isinstance(item, tuple):
            return _values(item[0]), None
        if isinstance(item, tuple) and len(item) == 2:
            raise _no_label(item[1])
        if isinstance(item, tuple) or not all(isinstance(part, list | tuple) for part in item):
            raise _many_parts(len(item))
    return _values(item), None


def _of_mapping(item: Mapping[Any, Any]) -> tuple[Any, Any]:
    inputs = [key for key in _INPUTS if key in item]
    labels = [key for key in _LABELS if key in item]
    if len(inputs) != 1 or len(labels) > 1:
        names = ", ".join(repr(key) for key in itertools.islice(item, 12))
        raise InvalidInput(
            "it is not clear which entry of a dictionary is the input and which the label",
            why=f"it has the entries {names}",
            remedy="give pairs: [(row['image'], row['label']) for row in data]",
        )
    return item[inputs[0]], item[labels[0]] if labels else None


def _values(item: Any) -> Any:
    """One input as an array or tensor (*shape)."""
    if isinstance(item, Tensor):
        return item.detach().cpu()
    if _is_picture(item):
        return _pixels(item)
    if isinstance(item, str | bytes):
        raise _not_inputs(item)
    try:
        array = np.asarray(item)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiubc":
        raise _not_inputs(item)
    return array


def _pixels(picture: Any) -> np.ndarray:
    """A PIL image as float32 (channels, height, width) in [0, 1]."""
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.mode not in ("L", "RGB"):
        raise InvalidInput(
            f"a picture has the mode {picture.mode!r}",
            why="its numbers are not plain 8-bit grey or colour values (a palette, transparency, 16 bits)",
            remedy='convert it first: image.convert("RGB"), or image.convert("L") for grey',
        )
    array = np.asarray(picture, dtype=np.uint8)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return array.astype(np.float32) / np.float32(255)


def _stacked(rows: list[Any]) -> Any:
    shapes = [tuple(row.shape) for row in rows]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise InvalidInput(
            f"input {other} has shape {shapes[other]}, input 0 has {shapes[0]}",
            why="a model takes inputs of one shape",
            remedy="resize or crop them to one size first, and say so beside the certificates",
        )
    if all(isinstance(row, Tensor) for row in rows):
        return torch.stack(rows)
    return np.stack([row.numpy() if isinstance(row, Tensor) else row for row in rows])


def _labels(found: list[Any]) -> Any:
    missing = [i for i, label in enumerate(found) if label is None]
    if len(missing) == len(found):
        return None
    if missing:
        raise InvalidInput(
            f"input {missing[0]} has no label, others have one",
            why="inputs come with labels, all of them, or without",
            remedy="give (x, y) pairs throughout, or inputs alone",
        )
    return np.stack([np.asarray(label.cpu() if isinstance(label, Tensor) else label) for label in found])


def _within_memory(items: Iterable[Any]) -> Iterator[Any]:
    """The items themselves, until they would take more memory than all inputs together may."""
    total = 0
    for item in items:
        yield item
        held = item[0] if isinstance(item, tuple) and item else item
        size = getattr(held, "shape", None) or getattr(held, "size", None) or 1
        total += max(_ITEM, 4 * int(np.prod(size)))
        if total > MAX_BYTES:
            raise InvalidSetting(
                f"the inputs take more than {MAX_BYTES / 2**30:.0f} GiB",
                why="all that is certified in one call is held in memory as float32",
                remedy="certify a part: torch.utils.data.Subset(dataset, range(1000)), or the first batches",
            )


# -- what would not be the same the next time --------------------------------------------------


def _in_order(dataset: Any) -> Iterator[Any]:
    """The items of a map-style data set by position."""
    _refuse_random(dataset)
    with torch.random.fork_rng(devices=[]):
        yield from (dataset[i] for i in range(len(dataset)))


def _refuse_shuffling(loader: Any) -> None:
    sampler = loader.sampler
    with torch.random.fork_rng(devices=[]):
        first, again = (
            next(iter(loader.batch_sampler or sampler), None) for _ in range(2)
        )  # positions only: nothing is loaded
    shuffles = "Random" in type(sampler).__name__ or getattr(sampler, "shuffle", False) is True
    if shuffles or first != again:
        raise InvalidInput(
            "the loader gives its inputs in another order every time",
            why=f"its sampler is a {type(sampler).__name__}; a record is found by the position of its input",
            remedy="use DataLoader(dataset, batch_size=..., shuffle=False)",
        )


def _refuse_random(dataset: Any) -> None:
    """Raise InvalidInput where a data set gives another input when it is asked for the same again."""
    with torch.random.fork_rng(devices=[]):
        for i in range(min(_TWICE, len(dataset))):
            first, again = (_pair(dataset[i])[0] for _ in range(2))
            same = first.shape == again.shape and np.array_equal(
                np.asarray(first), np.asarray(again), equal_nan=True
            )
            if not same:
                raise InvalidInput(
                    f"the data set gives another input {i} every time it is asked",
                    why="it transforms its inputs at random (crops, flips, colours), as training does",
                    remedy="use the transforms of the test: resize, centre crop, to tensor; no normalisation",
                )


# -- what things are ----------------------------------------------------------------------------


def _by_position(source: Any) -> bool:
    """Whether this is a data set whose items are asked for by position."""
    if isinstance(source, torch.utils.data.IterableDataset | list | tuple | str | bytes):
        return False
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "toarray")


def _is_frame(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns")


def _numeric(kind: Any) -> bool:
    return getattr(kind, "kind", "O") in "fiub"


def _is_picture(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] == "PIL" and hasattr(item, "getbands")


def _is_number(item: Any) -> bool:
    return isinstance(item, numbers.Number | np.generic) and not isinstance(item, str | bytes)


def _is_label(item: Any, beside: Any) -> bool:
    """A class index or name, or a map of them beside an image."""
    if isinstance(item, str):
        return True
    if isinstance(item, Tensor | np.ndarray):
        whole = item.dtype in (
            torch.uint8,
            torch.int8,
            torch.int16,
            torch.int32,
            torch.int64,
            torch.bool,
        ) or (getattr(item.dtype, "kind", "") in "iub")
        dense = item.ndim == 2 and getattr(beside, "ndim", 0) == 3
        return whole and (item.ndim == 0 or dense)
    return isinstance(item, numbers.Integral | np.integer)


def _is_pair_of_arrays(source: Any) -> bool:
    """(x, y): the inputs of all and the labels of all, which have fewer axes."""
    if not isinstance(source, tuple | list) or len(source) != 2:
        return False
    x, y = source
    if not isinstance(x, Tensor | np.ndarray) or not isinstance(y, Tensor | np.ndarray):
        return False
    return x.ndim >= 2 and y.ndim in (1, x.ndim - 1) and y.ndim < x.ndim and len(x) == len(y)


def _many_parts(count: int) -> InvalidInput:
    return InvalidInput(
        f"an item has {count} parts",
        why="an item is an input alone, or a pair of an input and a class index",
        remedy="pick the two: [(item[0], item[1]) for item in data]",
    )


def _no_label(label: Any) -> InvalidInput:
    kind = f"{label.dtype} {tuple(label.shape)}" if hasattr(label, "dtype") else f"a {type(label).__name__}"
    return InvalidInput(
        f"the second part of an item is {kind}, no class index",
        why="a pair is an input and its label, and a label is one whole number (or a map of them)",
        remedy="give [(x, int(label)) for x, label in data]; for one-hot labels int(label.argmax())",
    )


def _not_inputs(source: Any) -> InvalidInput:
    sparse = hasattr(source, "toarray")
    text = isinstance(source, str | bytes)
    return InvalidInput(
        f"the inputs are a {type(source).__name__}, not an array of numbers",
        why=f"inputs are read from {_WAYS}",
        remedy="read files first: certify.data.load(path)"
        if text
        else "give its numbers: x.toarray()"
        if sparse
        else "pass one of these, with numbers in it",
    )
