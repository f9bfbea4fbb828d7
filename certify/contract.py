"""The contract between a certificate and what it is issued for: inputs, model; output: ``certify.answers``.

A certificate is a statement about one fixed function on inputs of one declared range. Each check
here refuses what would make that statement false or empty, and names the cause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.errors import InvalidInput, InvalidModel, InvalidSetting
from certify.labels import IGNORE as IGNORE  # part of this module's names
from certify.labels import check_labels


def check_inputs(
    x: Any,
    y: Any = None,
    *,
    bounds: tuple[float, float] | None,
    input_shape: Sequence[int] | None = None,
    num_classes: int,
    dense: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Inputs and labels that a certificate may speak about, as float32 and int64 on the CPU.

    ``x``: (n, *input_shape), a float tensor or array within ``bounds`` (None: any finite value).
    ``y``: (n,) whole numbers in [0, num_classes); with ``dense``, (n, height, width), where
    ``IGNORE`` marks pixels without a class.

    Raises InvalidInput for: another type than a float array, integers without a declared type, no
    inputs, another shape, NaN or infinity, values outside the bounds, labels of another type,
    count or range. Raises InvalidSetting for bounds that are not finite and increasing.
    """
    values = _float_tensor(x)
    _check_shape(values, input_shape)
    _check_finite(values)
    if bounds is not None:
        _check_range(values, *_valid_bounds(bounds))
    if y is None:
        return values, None
    shape = values.shape[1:]
    return values, check_labels(y, len(values), num_classes=num_classes, dense=dense, input_shape=shape)


def check_model(model: Any) -> None:
    """The base classifier is a fixed function: every part in eval mode, every weight a number.

    Plain callables pass, as nothing can be read off them. Raises InvalidModel for a part in
    training mode, a BatchNorm without running statistics (it mixes batch mates even in eval
    mode), weights that are NaN, infinite or were never initialised.
    """
    if not callable(model):
        raise InvalidModel(
            f"the base model is a {type(model).__name__}, not a classifier",
            why="it cannot be called on a batch of inputs",
            remedy="pass an nn.Module or a function from (batch, *input_shape) to (batch, classes); "
            "for a state dict use certify.load(path, arch=...)",
        )
    if not isinstance(model, nn.Module):
        return
    for name, part in model.named_modules():
        where = f"its part {name!r} ({type(part).__name__})" if name else type(part).__name__
        if part.training:
            raise InvalidModel(
                "the model is in training mode",
                why=f"{where} is in training mode, so the output depends on chance or on batch mates",
                remedy="call model.eval() before certifying",
            )
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
            raise InvalidModel(
                "the model's output depends on the batch",
                why=f"{where} has no running statistics and normalises by the batch it is given",
                remedy="use track_running_stats=True, or GroupNorm / LayerNorm",
            )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        check_weight(name, tensor)


def check_weight(name: str, tensor: Tensor) -> None:
    """One weight or buffer holds real, finite numbers. Raises InvalidModel."""
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        raise InvalidModel(
            f"the weight {name!r} has no values",
            why="it was never initialised (a lazy layer, or a model on the meta device)",
            remedy="run one batch through the model, or load its state dict, before certifying",
        )
    if tensor.is_complex():
        raise InvalidModel(
            f"the weight {name!r} is complex ({tensor.dtype})",
            why="certificates are defined here for real networks only",
            remedy="store real and imaginary parts as two real weights",
        )
    if not tensor.is_floating_point():
        return
    finite = torch.isfinite(tensor.detach())
    if not finite.all():
        bad = int((~finite).sum())
        raise InvalidModel(
            f"the weight {name!r} holds NaN or infinity",
            why=f"{bad} of its {tensor.numel()} values are not finite (training may have diverged)",
            remedy="load an earlier checkpoint, or train again with a smaller learning rate",
        )


def _float_tensor(x: Any) -> Tensor:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise InvalidInput(
            "the inputs are a masked array with masked values",
            why="a certificate is about numbers, and these values are none",
            remedy="fill or leave out the masked values: x.filled(...)",
        )
    if isinstance(x, np.ndarray):
        x = _of_array(x)
    if not isinstance(x, Tensor):
        what = f"an array of {x.dtype.name}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        raise InvalidInput(
            f"the inputs are {what}, not an array of numbers",
            why="a certificate needs float values of shape (n, *input_shape)",
            remedy="pass a torch tensor or a numpy array of floats",
        )
    if x.is_floating_point():
        return x.detach().to(device="cpu", dtype=torch.float32).contiguous()
    kind = str(x.dtype).removeprefix("torch.")
    if x.is_complex():
        raise InvalidInput(
            f"the inputs are complex ({kind})",
            why="l2 balls are taken over real vectors",
            remedy="pass real values, e.g. torch.view_as_real(x)",
        )
    raise InvalidInput(
        f"the inputs are integers ({kind}) without a declared type",
        why="whether they mean 0..255, class indices or lattice steps changes every radius",
        remedy="for 8-bit images pass x.float() / 255; otherwise convert to the model's own units",
    )


def _of_array(x: np.ndarray) -> Any:
    """A tensor of the array's numbers, whatever their width and byte order; the array itself without any."""
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity is refused where values are checked
            x = x.astype(np.float64)
    if x.dtype.kind not in "fiubc" or x.dtype.itemsize > 16:
        return x
    return torch.from_numpy(np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False)))


def _check_shape(x: Tensor, input_shape: Sequence[int] | None) -> None:
    if x.dim() < 2:
        raise InvalidInput(
            f"the inputs have shape {tuple(x.shape)}",
            why="the first axis counts inputs and at least one more holds their values",
            remedy="pass (n, *input_shape); for one input use x.unsqueeze(0)",
        )
    if x.numel() == 0:
        raise InvalidInput(
            f"there are no inputs: shape {tuple(x.shape)}",
            why="nothing can be certified",
            remedy="check --limit, --skip and the split",
        )
    if input_shape is None or tuple(x.shape[1:]) == tuple(input_shape):
        return
    single = tuple(x.shape) == tuple(input_shape)
    raise InvalidInput(
        f"the inputs have shape {tuple(x.shape)}, expected (n, {', '.join(map(str, input_shape))})",
        why="this is one input without a batch axis" if single else "the model was built for another shape",
        remedy="use x.unsqueeze(0)" if single else "pass data of the model's shape (images: channels first)",
    )


def _check_finite(x: Tensor) -> None:
    bad = ~torch.isfinite(x)
    if bad.any():
        first = int(bad.flatten(1).any(1).nonzero()[0])
        kind = "NaN" if torch.isnan(x[first]).any() else "infinite"
        raise InvalidInput(
            f"input {first} holds {kind} values",
            why=f"{int(bad.sum())} values of {x.numel()} are not finite numbers (as float32)",
            remedy="remove or repair these inputs",
        )


def _valid_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(b) for b in bounds)
        valid = math.isfinite(low) and math.isfinite(high) and low < high
    except (TypeError, ValueError):
        valid, low, high = False, 0.0, 0.0
    if not valid:
        raise InvalidSetting(
            f"bounds {bounds!r} are not a range",
            why="they must be two finite numbers, the lower one first",
            remedy="give (0.0, 1.0) for images in [0, 1]",
        )
    return low, high


def _check_range(x: Tensor, low: float, high: float) -> None:
    # The bounds are compared as float32 too: 0.1 stored in float32 lies above 0.1 itself.
    low32, high32 = torch.tensor([low, high], dtype=torch.float32)
    outside = (x < low32) | (x > high32)
    if not outside.any():
        return
    first = int(outside.flatten(1).any(1).nonzero()[0])
    lowest, highest = float(x.min()), float(x.max())
    eight_bit = low == 0 and high == 1 and highest > 1 and lowest >= 0 and highest <= 255
    raise InvalidInput(
        f"input {first} lies outside the declared range [{low:g}, {high:g}]",
        why=f"the values span [{lowest:g}, {highest:g}]; in other units every radius would be wrong",
        remedy="divide 8-bit images by 255"
        if eight_bit
        else "rescale the inputs (normalisation belongs inside the model), or declare their true bounds",
    )
