"""Putting a model into the form that is certified: normalisation in front, class scores behind.

sigma and every radius are measured where the noise is added. With the normalisation inside the
model that is the data's own units; in front of it, it would be the network's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.answers import check_scores, labels_only, score_places
from certify.calls import checked
from certify.errors import InvalidModel, InvalidSetting
from certify.estimators import scores_of

SCORES = ("logits", "probabilities")
#: Probabilities enter as their logarithms; below this they are all the same.
_TINY = 2.0**-120


@checked
def wrap(
    model: Callable[[Tensor], Any],
    *,
    mean: float | Sequence[float] | np.ndarray | Tensor | None = None,
    std: float | Sequence[float] | np.ndarray | Tensor | None = None,
    output: str | int | None = None,
    scores: str = "logits",
    binary: bool = False,
) -> Wrapped:
    """The model as a function from raw inputs (batch, *shape) to logits (batch, classes).

    ``mean``, ``std``: the model sees ``(x - mean) / std``. One number, one per channel, or an array of
    the input's shape (for a table one per feature, such as ``mean_`` and ``scale_`` of a StandardScaler).
    ``output``: where the scores are in a structured answer: an attribute or key ("logits"), or a position.
    ``scores``: "probabilities" if the model ends in a softmax or sigmoid; they enter as logarithms.
    ``binary``: the model gives one score, of class 1; it becomes two columns, whose softmax is its sigmoid.

    scikit-learn estimators know all this themselves: ``certify.wrap(forest)`` asks them for their
    probabilities, else for their decision function.

    The wrapped model is in the mode (training or evaluation) of the one given and shares its weights.
    Raises InvalidSetting; calling it raises InvalidModel where the answer is not what was declared.
    """
    found = scores_of(model)
    if found is None:
        return Wrapped(model, mean=mean, std=std, output=output, scores=scores, binary=binary)
    if output is not None or binary:
        raise InvalidSetting(
            f"{'output' if output is not None else 'binary'} has no meaning for a {type(model).__name__}",
            why="an estimator has one column per class",
            remedy="leave it out",
        )
    estimator, kind = found
    return Wrapped(estimator, mean=mean, std=std, scores=kind)


def as_model(model: Any) -> Any:
    """``model`` itself; a scikit-learn estimator, or its ``predict_proba``, as ``wrap`` makes one of it."""
    return model if scores_of(model) is None else wrap(model)


class Wrapped(nn.Module):
    """``model`` between normalisation and class scores; see ``wrap``."""

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        *,
        mean: Any = None,
        std: Any = None,
        output: str | int | None = None,
        scores: str = "logits",
        binary: bool = False,
    ) -> None:
        super().__init__()
        if scores not in SCORES:
            raise InvalidSetting(
                f"scores {scores!r} is unknown",
                why=f"a model answers {' or '.join(SCORES)}",
                remedy="leave it out for logits; use scores='probabilities' after a softmax or sigmoid",
            )
        self.model = model
        self.output = output
        self.scores = scores
        self.binary = binary
        self.register_buffer("mean", _constants("mean", 0.0 if mean is None and std is not None else mean))
        self.register_buffer("std", _constants("std", 1.0 if std is None and mean is not None else std))
        if self.std is not None and not self.std.is_meta and not bool((self.std > 0).all()):
            raise InvalidSetting(
                "std holds a number that is not positive",
                why="every input is divided by it; a feature that never changes has standard deviation 0",
                remedy="leave constant features out, or divide them by 1",
            )
        self.train(model.training if isinstance(model, nn.Module) else False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of raw inputs (batch, *shape)."""
        if self.mean is not None and self.std is not None:
            z = (x - _beside(self.mean, x, "mean")) / _beside(self.std, x, "std")
            # In the precision of what came in: constants per channel would lift half precision to single.
            x = z.to(x.dtype) if x.is_floating_point() else z
        found = _entry(self.model(x), self.output)
        if self.scores == "logits" and not self.binary:
            return found
        return _two_columns(found, self.scores, len(x)) if self.binary else _logarithms(found)

    def extra_repr(self) -> str:
        return f"output={self.output!r}, scores={self.scores!r}, binary={self.binary}"


def reads_one_logit(model: Any) -> bool:
    """Whether ``model`` reads one score of another model as the logit of class 1."""
    return isinstance(model, Wrapped) and model.binary and model.scores == "logits"


def _constants(name: str, values: Any) -> Tensor | None:
    if values is None:
        return None
    try:
        found = torch.as_tensor(
            np.asarray(values, dtype=np.float64) if not isinstance(values, Tensor) else values
        )
        finite = found.is_meta or bool(torch.isfinite(found).all())
    except (TypeError, ValueError):
        found, finite = None, False
    if found is None or not finite:
        raise InvalidSetting(
            f"{name} = {values!r} cannot be used",
            why="the inputs are normalised with it: it must hold finite numbers",
            remedy="give one number, one per channel or feature, or an array of the input's shape",
        )
    return found.detach().to(torch.float32)


def _beside(constants: Tensor, x: Tensor, name: str) -> Tensor:
    """The constants in a shape that broadcasts over a batch of inputs."""
    shape = tuple(constants.shape)
    if constants.numel() == 1 or shape == tuple(x.shape[1:]):
        return constants if constants.numel() > 1 else constants.reshape(())
    if len(shape) == 1 and shape[0] == x.shape[1]:
        return constants.reshape(-1, *[1] * (x.dim() - 2))
    if shape == (x.shape[1], *[1] * (x.dim() - 2)):
        return constants
    raise InvalidModel(
        f"{name} has shape {shape}, the inputs have shape {tuple(x.shape[1:])}",
        why="there must be one number for all, one per channel (first axis of an input), or one per value",
        remedy=f"give {name} with {x.shape[1]} numbers; images are channels first",
    )


def _entry(answer: Any, output: str | int | None) -> Any:
    if output is None:
        return answer
    try:
        if isinstance(output, int):
            return answer[output]
        return answer[output] if isinstance(answer, Mapping) else getattr(answer, output)
    except (KeyError, IndexError, AttributeError, TypeError):
        places = score_places(answer)
        raise InvalidModel(
            f"the model's answer, a {type(answer).__name__}, has no {output!r}",
            why=f"tensors are at {', '.join(map(repr, places))}" if places else "it holds no tensors by name",
            remedy=f"use output={places[0]!r}" if places else "leave output out",
        ) from None


def _two_columns(found: Tensor, scores: str, batch: int) -> Tensor:
    """(batch, 2) in float64 with softmax (1 - s, s), s the model's sigmoid.

    The columns are 1 -+ z/2, not 0 and z: beside a constant of size one, rounding in z is measured against
    what z can be, not against z itself, which is arbitrarily small at the decision boundary.
    """
    if not isinstance(found, Tensor) or found.numel() != batch:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InvalidModel(
            f"the model returned {shape} for {batch} inputs, expected one score each",
            why="binary=True is for models that give the score of class 1 alone",
            remedy="leave binary out where the model has a column per class",
        )
    if not found.is_floating_point():
        raise labels_only(str(found.dtype).removeprefix("torch."))
    z = found.reshape(batch).double()
    if scores == "probabilities":
        _check_probabilities(z)
        z = z.clamp_min(_TINY).log() - (1 - z).clamp_min(_TINY).log()
    return torch.stack((1 - z / 2, 1 + z / 2), dim=1)


def _logarithms(found: Tensor) -> Tensor:
    _check_probabilities(found)
    return found.double().clamp_min(_TINY).log()


def _check_probabilities(found: Any) -> None:
    check_scores(found)
    outside = (found < -1e-3) | (found > 1 + 1e-3)
    if bool(outside.any()):
        wrong = float(found.detach()[outside][0])
        raise InvalidModel(
            f"the model was declared to give probabilities, but returned {wrong:.3g}",
            why="a probability lies between 0 and 1",
            remedy="leave scores='probabilities' out: these are logits",
        )
