"""The contract between a certificate and what it is issued for: inputs, model, output.

A certificate is a statement about one fixed function on inputs of one declared range. Each check
here refuses what would make that statement false or empty, and names the cause.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.errors import CertifyError, InvalidInput, InvalidModel, InvalidSetting

#: Label of a pixel that has no class (segmentation); torch's cross entropy skips it by default.
IGNORE = -100


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
    return values, _check_labels(y, values, num_classes, dense)


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


def first_answer(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """What the model answers to inputs ``x``; InvalidModel, with its own words, where it cannot take them."""
    try:
        with torch.inference_mode():
            return model(x)
    except (CertifyError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shape = tuple(x.shape[1:])
        last = len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
        raise InvalidModel(
            f"the model cannot take inputs of shape {shape}",
            why=f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:300]}",
            remedy="these images look channels last: x.transpose(0, 3, 1, 2) puts the channels first"
            if last
            else "give inputs of the shape (and units) the model was built for, without normalisation",
        ) from error


def check_output(logits: Any, *, batch: int, num_classes: int, spatial: Sequence[int] | None = None) -> None:
    """The model answered (batch, num_classes) scores; with ``spatial``, (batch, num_classes, *spatial).

    Non-finite scores are no error: the smoothing counts them as "no class". Raises InvalidModel.
    """
    if not isinstance(logits, Tensor):
        places = score_places(logits)
        has = f"; this answer has {', '.join(map(repr, places))}" if places else ""
        raise InvalidModel(
            f"the model returned a {type(logits).__name__}, not a tensor",
            why=f"class scores are read from one tensor (batch, classes){has}",
            remedy=f"say where they are: certify.wrap(model, output={places[0]!r})"
            if places
            else "wrap the model in a function that returns its logits as one tensor",
        )
    expected = (batch, num_classes, *(spatial or ()))
    if tuple(logits.shape) != expected:
        one_axis = logits.dim() == len(expected) and logits.shape[0] == batch
        classes = f"; it has {logits.shape[1]} classes where {num_classes} were declared" if one_axis else ""
        single = spatial is None and tuple(logits.shape) in ((batch,), (batch, 1))
        raise InvalidModel(
            f"the model returned shape {tuple(logits.shape)}, expected {expected}",
            why=f"one score per class is needed for each of {batch} inputs{classes}",
            remedy="for a model with one score, that of class 1: certify.wrap(model, binary=True)"
            if single
            else "give the model's own class count as num_classes, or return logits of that shape",
        )
    if not logits.is_floating_point():
        raise InvalidModel(
            f"the model returned {logits.dtype} scores",
            why="class scores are real numbers; the predicted label alone is not enough for a margin",
            remedy="return the logits before argmax",
        )


def score_places(answer: Any) -> list[str | int]:
    """Where tensors lie in a structured model answer: keys or positions, those named like scores first."""
    if isinstance(answer, Mapping):
        found = [key for key, value in answer.items() if isinstance(value, Tensor) and isinstance(key, str)]
    elif isinstance(answer, tuple | list) and not hasattr(answer, "_fields"):
        found = [i for i, value in enumerate(answer) if isinstance(value, Tensor)]
    else:
        names = getattr(answer, "_fields", None) or getattr(answer, "__dict__", {})
        found = [name for name in names if isinstance(getattr(answer, name, None), Tensor)]
    return sorted(found, key=lambda place: place not in ("logits", "scores", "out"))


def warn_of_probabilities(scores: Tensor) -> None:
    """A UserWarning if every row is a probability vector, as rows of logits never are by chance.

    Rows of zeros and a one are left alone: a model that votes outright has no logits to give.
    """
    inside = bool((scores >= 0).all()) and bool(((scores > 0) & (scores < 1)).any())
    if len(scores) < 4 or not inside or not bool(((scores.double().sum(dim=1) - 1).abs() < 1e-4).all()):
        return
    warnings.warn(
        "the model returns probabilities, not logits: votes are the same, but soft scores and attacks expect "
        "logits. Leave its last softmax out, or use certify.wrap(model, scores='probabilities')",
        stacklevel=2,
    )


def _float_tensor(x: Any) -> Tensor:
    if isinstance(x, np.ndarray) and x.dtype != object:
        x = torch.from_numpy(np.ascontiguousarray(x)) if x.dtype.kind in "fiubc" else x
    if not isinstance(x, Tensor):
        raise InvalidInput(
            f"the inputs are a {type(x).__name__}, not an array of numbers",
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


def _check_labels(y: Any, x: Tensor, num_classes: int, dense: bool) -> Tensor:
    try:
        labels = y if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError):
        labels = None
    whole = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if labels is None or labels.dtype not in whole:
        kind = type(y).__name__ if labels is None else str(labels.dtype).removeprefix("torch.")
        raise InvalidInput(
            f"the labels are of type {kind}",
            why="a label is a class index: a whole number",
            remedy="pass y as int64 class indices (for one-hot rows: y.argmax(1))",
        )
    n = x.shape[0]
    shape_ok = labels.dim() == 3 and labels.shape[0] == n if dense else tuple(labels.shape) == (n,)
    if not shape_ok:
        expected = f"({n}, height, width)" if dense else f"({n},)"
        raise InvalidInput(
            f"the labels have shape {tuple(labels.shape)}, expected {expected}",
            why=f"there are {n} inputs and each needs {'one label per pixel' if dense else 'one label'}",
            remedy="pass the labels that belong to these inputs",
        )
    labels = labels.detach().to(device="cpu", dtype=torch.int64)
    wrong = (labels < 0) | (labels >= num_classes)
    if dense:
        wrong &= labels != IGNORE
    if wrong.any():
        value = int(labels[wrong][0])
        first = int(wrong.reshape(n, -1).any(1).nonzero()[0])
        raise InvalidInput(
            f"label {value} of input {first} is not a class",
            why=f"the model has {num_classes} classes: labels are 0 to {num_classes - 1}",
            remedy="check the data set's labels (some files count from 1), or the model's num_classes",
        )
    return labels
