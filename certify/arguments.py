"""What may be asked of a smoothed classifier: each setting checked where it enters."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from certify.answers import check_output, first_answer
from certify.calls import shown
from certify.contract import check_inputs
from certify.data import Dataset, as_dataset, gather
from certify.errors import InvalidSetting
from certify.estimators import own_labels
from certify.noise.level import check_sigma
from certify.sampling.classifier import DTYPES
from certify.sampling.first_linear import Reduced, reduce_first_linear

#: More classes than any model has: every one needs a cell per input.
_MOST_CLASSES = 2**31
#: Rows of a batch that torch can count.
_LARGEST_BATCH = 2**31
#: Inputs of a loader or list that are looked at for its classes, range and lattice.
_ENOUGH = 256
#: A model with so many times the classes that the labels show was hardly made for them.
_FOREIGN = 10


def check_classes(num_classes: int | None, header: Any) -> int | None:
    """The number of classes as given or as the header has it; None where the model is to be asked."""
    declared = header.num_classes if header is not None else None
    if num_classes is None:
        num_classes = declared
    if num_classes is None:
        return None
    if int(num_classes) != num_classes or not 2 <= num_classes <= _MOST_CLASSES:
        raise InvalidSetting(
            f"num_classes = {shown(num_classes)} cannot be used",
            why="votes are counted per class, and there are at least 2",
            remedy="leave it out, or pass the width of the model's output",
        )
    return int(num_classes)


def count_classes(
    classifiers: Sequence[Any], x: Any, *, bounds: tuple[float, float] | None, spatial: bool = False
) -> int:
    """How many classes the first of the ``classifiers`` tells apart, asked with the first input of ``x``.

    All of them are told. Raises InvalidInput and InvalidModel.
    """
    first, _ = check_inputs(x[:1], None, bounds=bounds, num_classes=2)
    asked = classifiers[0]
    found = first_answer(asked.model, first.to(asked.device, DTYPES[asked.dtype]))
    area = tuple(first.shape[2:]) if spatial else None
    count = check_output(found, batch=1, num_classes=None, spatial=area)
    for classifier in classifiers:
        classifier.num_classes = count
    return count


def declared(
    model: Any, data: Any, *, num_classes: int | None, grid: float | None, bounds: Any
) -> tuple[Any, float | None, tuple[float, float] | None]:
    """Classes, grid and bounds: as given, else those of ``data``, of the model's header, of 8-bit images.

    Where nothing says the number of classes it is None, and the model is to be asked.
    ``data`` is a data set, or anything that ``certify.data.as_dataset`` takes: its first inputs say enough.
    ``bounds`` "header" stands for "not given", as None means unbounded.
    """
    header = getattr(model, "certify_header", None)
    if num_classes is None and (known := own_labels(model)) is not None:
        num_classes = len(known)
    data = None if data is None else _first_of(data, num_classes, grid, bounds)
    if data is not None and num_classes is None:
        num_classes = measured_classes(model, data) if header is None else header.num_classes
    source = data if data is not None else header
    if isinstance(bounds, str):
        bounds = (source.low, source.high) if source is not None else (0.0, 1.0)
    if grid is None:
        known = [s.grid for s in (data, header) if s is not None]
        grid = next((g for g in known if g is not None), None) if known else 1 / 255
    return check_classes(num_classes, header), grid, bounds


def _first_of(data: Any, num_classes: int | None, grid: float | None, bounds: Any) -> Dataset:
    """The declared facts of a data set, in memory or not, and its first inputs."""
    if isinstance(data, Dataset):
        return data
    low, high = (None, None) if isinstance(bounds, str) else bounds or _span(data)
    return as_dataset(data, num_classes=num_classes, low=low, high=high, grid=grid, limit=_ENOUGH)


def _span(data: Any) -> tuple[float, float]:
    """Any range that holds the first inputs, where the caller wants none declared."""
    x = np.asarray(gather(data, limit=_ENOUGH).x, dtype=np.float64)
    return float(x.min()), float(x.max()) + 1.0


def measured_classes(model: Any, data: Any) -> int:
    """The classes of ``data``; where they were only counted, those of a model that knows more.

    A few inputs need not show every class. A model with too few classes, or another answer
    altogether, is left to ``certify.answers.check_output`` to name.
    """
    if not data.counted:
        return data.num_classes
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    out = first_answer(model, data.x[:1].to(tensors[0].device if tensors else "cpu"))
    wide = isinstance(out, Tensor) and out.dim() == data.y.dim() + 1 and out.shape[1] > data.num_classes
    if not wide:
        return data.num_classes
    if out.shape[1] >= _FOREIGN * data.num_classes:
        warnings.warn(
            f"the model scores {out.shape[1]} classes, the labels of {data.name!r} show {data.num_classes}: "
            "a head of another task (ImageNet's 1000) would be certified for classes that the data do not "
            "have. Replace the head, or pass num_classes where this is meant",
            stacklevel=4,
        )
    return out.shape[1]


def refuse_other_task(header: Any, task: str) -> None:
    """Raise InvalidSetting where a checkpoint says that it is for another ``task``."""
    found = task if header is None else header.task
    if found == "denoising":
        raise InvalidSetting(
            "the model is a denoiser",
            why="its checkpoint says that it gives inputs back without noise, not classes",
            remedy="put it in front of a classifier: certify.denoised(classifier, denoiser), or "
            "`certify radius --model CLASSIFIER --denoiser DENOISER`",
        )
    if found != task and task == "classification":
        raise InvalidSetting(
            "the model is a segmenter",
            why="its checkpoint says that it gives a class to every pixel, not one class to an input",
            remedy="use certify.SmoothedSegmentation, or `certify radius` without --mode",
        )
    if found != task:
        raise InvalidSetting(
            "the model is no segmenter",
            why=f"its checkpoint says that its task is {found}",
            remedy="use certify.Smoothed",
        )


def check_batch_size(size: int | None) -> int | None:
    if size is not None and (int(size) != size or not 1 <= size <= _LARGEST_BATCH):
        raise InvalidSetting(
            f"batch size {shown(size)} cannot be used",
            why="a batch holds at least one sample",
            remedy="leave it out to have it tuned, or give a whole number such as 200",
        )
    return size


def check_ids(ids: Sequence[int] | None, n: int) -> list[int]:
    try:
        values = list(range(n)) if ids is None else [operator.index(i) for i in ids]
    except TypeError:  # text, fractions: int() would take some of them
        values = []
    if len(values) != n or len(set(values)) != n or any(not 0 <= i < 2**63 for i in values):
        raise InvalidSetting(
            "the input ids cannot be used",
            why=f"each of the {n} inputs needs its own id in [0, 2**63): the id keys its noise",
            remedy="pass one distinct non-negative integer per input, such as its index in the data set",
        )
    return values


def choose_reduction(model: Any, noise: Any, wanted: bool | None) -> Reduced | None:
    """The network behind its first linear layer, where that is possible and not unwanted."""
    possible = noise.name == "gaussian"
    reduced = reduce_first_linear(model) if possible and wanted is not False else None
    if wanted and reduced is None:
        raise InvalidSetting(
            "sampling behind the first layer is not possible here",
            why="it needs plain gaussian noise and a network that starts with a narrowing linear layer",
            remedy="leave reduce out; the certificates are the same without it",
        )
    return reduced


__all__ = [
    "check_batch_size", "check_classes", "check_ids", "check_sigma", "choose_reduction", "count_classes",
    "declared", "measured_classes", "refuse_other_task",
]  # fmt: skip
