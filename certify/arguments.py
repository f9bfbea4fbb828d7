"""What may be asked of a smoothed classifier: each setting checked where it enters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from certify.contract import first_answer
from certify.errors import InvalidSetting
from certify.sampling.first_linear import Reduced, reduce_first_linear


def check_sigma(sigma: Any) -> Any:
    values = np.asarray(sigma, dtype=np.float64)
    if values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidSetting(
            f"sigma = {sigma!r} cannot be used",
            why="sigma is the standard deviation of the noise: a finite number > 0",
            remedy="use the sigma the model was trained with, such as 0.25",
        )
    return float(values) if values.ndim == 0 else values


def check_classes(num_classes: int | None, header: Any) -> int:
    declared = header.num_classes if header is not None else None
    if num_classes is None:
        num_classes = declared
    if num_classes is None or int(num_classes) != num_classes or num_classes < 2:
        raise InvalidSetting(
            f"num_classes = {num_classes!r} cannot be used",
            why="votes are counted per class: the number of classes must be known and at least 2",
            remedy="pass num_classes=10 (the width of the model's output)",
        )
    return int(num_classes)


def declared(
    model: Any, data: Any, *, num_classes: int | None, grid: float | None, bounds: Any
) -> tuple[int, float | None, tuple[float, float] | None]:
    """Classes, grid and bounds: as given, else those of ``data``, of the model's header, of 8-bit images.

    ``bounds`` "header" stands for "not given", as None means unbounded.
    """
    header = getattr(model, "certify_header", None)
    if data is not None and num_classes is None:
        num_classes = measured_classes(model, data) if header is None else header.num_classes
    source = data if data is not None else header
    if isinstance(bounds, str):
        bounds = (source.low, source.high) if source is not None else (0.0, 1.0)
    if grid is None:
        known = [s.grid for s in (data, header) if s is not None]
        grid = next((g for g in known if g is not None), None) if known else 1 / 255
    return check_classes(num_classes, header), grid, bounds


def measured_classes(model: Any, data: Any) -> int:
    """The classes of ``data``; where they were only counted, those of a model that knows more.

    A few inputs need not show every class. A model with too few classes, or another answer
    altogether, is left to ``certify.contract.check_output`` to name.
    """
    if not data.counted:
        return data.num_classes
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    out = first_answer(model, data.x[:1].to(tensors[0].device if tensors else "cpu"))
    wide = isinstance(out, Tensor) and out.dim() == data.y.dim() + 1 and out.shape[1] > data.num_classes
    return out.shape[1] if wide else data.num_classes


def check_batch_size(size: int | None) -> int | None:
    if size is not None and (int(size) != size or size < 1):
        raise InvalidSetting(
            f"batch size {size!r} cannot be used",
            why="a batch holds at least one sample",
            remedy="leave it out to have it tuned, or give a whole number such as 200",
        )
    return size


def check_ids(ids: Sequence[int] | None, n: int) -> list[int]:
    values = list(range(n)) if ids is None else [int(i) for i in ids]
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
