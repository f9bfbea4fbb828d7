"""What a model answers: scores of the form that votes, margins and attacks are read from, or a named cause.

Beside ``certify.contract``, which speaks of inputs, labels and the model itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.errors import CertifyError, InvalidModel, NondeterministicModel

#: Rows from which on a pattern in the scores is taken for what the model does.
_ROWS = 4


def first_answer(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    """What the model answers to inputs ``x``; InvalidModel, with its own words, where it cannot take them."""
    try:
        with torch.inference_mode():
            return model(x)
    except (CertifyError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise unanswered(x, error) from error


def unanswered(x: Tensor, error: Exception) -> InvalidModel:
    """The model failed on inputs ``x`` with an error of its own."""
    shape = tuple(x.shape[1:])
    last = len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
    return InvalidModel(
        f"the model cannot take inputs of shape {shape}",
        why=f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:300]}",
        remedy="these images look channels last: x.transpose(0, 3, 1, 2) puts the channels first"
        if last
        else "give inputs of the shape (and units) the model was built for, without normalisation; "
        "one input alone is a batch of one: x.unsqueeze(0)",
    )


def check_output(
    scores: Any, *, batch: int, num_classes: int | None, spatial: Sequence[int] | None = None
) -> int:
    """The model answered (batch, num_classes) scores; with ``spatial``, (batch, num_classes, *spatial).

    ``num_classes`` None: as many as the model gives, at least two. Returns that number. Non-finite
    scores are no error: the smoothing counts them as "no class". Raises InvalidModel.
    """
    if not isinstance(scores, Tensor):
        raise _no_tensor(scores)
    many = num_classes
    if many is None and scores.dim() == 2 + len(spatial or ()) and scores.shape[1] > 1:
        many = scores.shape[1]
    if tuple(scores.shape) != (batch, many, *(spatial or ())):
        raise _other_shape(scores, batch, num_classes, spatial)
    check_scores(scores)
    return int(scores.shape[1])


def check_scores(scores: Any) -> None:
    """The answer is a tensor of real floating-point numbers. Raises InvalidModel."""
    if not isinstance(scores, Tensor):
        raise _no_tensor(scores)
    if not scores.is_floating_point():
        kind = str(scores.dtype).removeprefix("torch.")
        raise InvalidModel(
            f"the model returned {kind} scores",
            why="scores are compared by size: they must be real floating-point numbers",
            remedy="return the real part, or the magnitude, of its scores"
            if scores.is_complex()
            else "return the scores before argmax or rounding; counts of votes become scores with .float()",
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


def labels_only(kind: str) -> InvalidModel:
    """The model gives the class itself and no scores."""
    return InvalidModel(
        f"the model returned one {kind} number per input: labels, not scores",
        why="votes, margins and attacks are read from one score per class",
        remedy="return the scores before argmax (scikit-learn: torch.as_tensor(f.predict_proba(x.numpy()))). "
        "Where there are none: torch.nn.functional.one_hot(labels.long(), num_classes).float() can be "
        "certified, but gives an attack nothing to follow",
    )


def coupled(worst: float) -> NondeterministicModel:
    """The answer to an input changes with the other inputs of its batch, by more than rounding explains."""
    return NondeterministicModel(
        f"the model's scores change by {worst:.1e} (relative) with the rest of the batch",
        why="each input must be classified independently of its batch mates. Usual causes: normalisation by "
        "the statistics of the batch, an adaptive step size that all inputs of a batch share (dopri5 and "
        "other ODE solvers), a shared random draw, attention across inputs",
        remedy="put normalisation in evaluation mode, give solvers fixed steps (torchdiffeq: rk4), or "
        "evaluate the inputs one by one: batch_size=1",
    )


def warn_of_probabilities(scores: Tensor, *, single: bool = False, stacklevel: int = 2) -> None:
    """A UserWarning where scores (rows, classes) are probabilities by all appearances, but read as logits.

    ``single``: column 1 minus column 0 is one score of the model, the logit of class 1 (``certify.wrap`` with
    ``binary``). Rows of zeros and ones are left alone: a model that votes outright has no logits to give.
    """
    if len(scores) < _ROWS or not bool(scores.isfinite().all()):
        return
    text = _appearance(scores.double(), single)
    if text is not None:
        warnings.warn(text, stacklevel=stacklevel + 1)


def _appearance(scores: Tensor, single: bool) -> str | None:
    if single or (scores.shape[1] == 2 and bool((scores[:, 0] == -scores[:, 1]).all())):
        one = scores[:, 1] - scores[:, 0] if single else scores[:, 1]
        # Zeros and ones, too: a saturated sigmoid gives nothing else.
        if not bool(((one >= 0) & (one <= 1)).all()):
            return None
        return (
            "the model's one score lies between 0 and 1 on every input, as a sigmoid does, and is read as a "
            "logit: every input is of class 1 then. "
            "Use certify.wrap(model, binary=True, scores='probabilities'), or leave its sigmoid out"
        )
    if not _fractions(scores):
        return None
    if bool(((scores.sum(dim=1) - 1).abs() < 1e-4).all()):
        return (
            "the model returns probabilities, not logits: votes are the same, but soft scores and attacks "
            "expect logits. Leave its last softmax out, or use certify.wrap(model, scores='probabilities')"
        )
    return (
        "the model's scores lie between 0 and 1 on every input, as sigmoids do: votes go to the largest, but "
        "soft scores and attacks expect logits. Leave its last sigmoid out. If it answers several yes-or-no "
        "questions at once, certify one of them: lambda x: torch.stack((-z(x)[:, k], z(x)[:, k]), 1), z its "
        "logits"
    )


def _fractions(values: Tensor) -> bool:
    """Whether all lie in [0, 1], and some strictly between."""
    return bool(((values >= 0) & (values <= 1)).all()) and bool(((values > 0) & (values < 1)).any())


def _no_tensor(answer: Any) -> InvalidModel:
    places = score_places(answer)
    has = f"; this answer has {', '.join(map(repr, places))}" if places else ""
    if places:
        remedy = f"say where they are: certify.wrap(model, output={places[0]!r})"
    elif isinstance(answer, np.ndarray):
        remedy = "make it one: lambda x: torch.as_tensor(f(x.numpy())), with f the model"
    else:
        remedy = "wrap the model in a function that returns its logits as one tensor"
    return InvalidModel(
        f"the model returned a {type(answer).__name__}, not a tensor",
        why=f"class scores are read from one tensor (batch, classes){has}",
        remedy=remedy,
    )


def _other_shape(
    scores: Tensor, batch: int, num_classes: int | None, spatial: Sequence[int] | None
) -> InvalidModel:
    shape = tuple(scores.shape)
    if spatial is None and shape in ((batch,), (batch, 1)):
        return _single(scores, num_classes)
    expected = str((batch, num_classes or "classes", *(spatial or ()))).replace("'", "")
    one_axis = num_classes is not None and len(shape) == 2 + len(spatial or ()) and shape[0] == batch
    classes = f"; it has {shape[1]} classes where {num_classes} were declared" if one_axis else ""
    if num_classes is not None:
        remedy = "give the model's own class count as num_classes, or return logits of that shape"
    elif spatial is not None:
        remedy = "return one map of scores per class; a classifier has one score per class and no maps"
    else:
        remedy = "return one score per class: two columns or more"
    return InvalidModel(
        f"the model returned shape {shape}, expected {expected}",
        why=f"one score per class is needed for each of {batch} inputs{classes}",
        remedy=remedy,
    )


def _single(scores: Tensor, num_classes: int | None) -> InvalidModel:
    """One number per input: a label, or the score of class 1."""
    if not scores.is_floating_point():
        return labels_only(str(scores.dtype).removeprefix("torch."))
    shape, many = tuple(scores.shape), num_classes or 2
    if many > 2:
        remedy = f"return {many} scores per input, or declare num_classes=2 if there are two classes"
    else:
        remedy = (
            "for a model with one score, that of class 1: certify.wrap(model, binary=True), with "
            "scores='probabilities' where it ends in a sigmoid"
        )
    return InvalidModel(
        f"the model returned shape {shape}, expected ({shape[0]}, {many})",
        why=f"one score per class is needed for each of {shape[0]} inputs"
        + (f"; it has 1 where {many} were declared" if num_classes else ""),
        remedy=remedy,
    )
