"""The model as attacks see it: the one place that decides in which precision they compute.

Attacks compute in float32, in float64 where the model's weights are: inputs, balls and the scores that
a search follows. The model itself gets its inputs in the precision of its weights (float16, bfloat16,
float32 or float64) and may answer in any: the cast belongs to the function under attack.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import check_output, check_scores, coupled, unanswered
from certify.errors import CertifyError, InvalidModel, NondeterministicModel

#: The most that rounding explains between an input alone and in a batch, relative to its largest score.
_ROUNDING = {torch.float64: 2.0**-20, torch.float32: 2.0**-10}
_COARSE = 2.0**-4


class UnderAttack:
    """Scores of ``model`` (nn.Module or callable): in its own precision (``own``), or for a search (a call).

    ``working`` is the precision of inputs and balls, ``device`` where they lie: beside the weights, where
    there are none on the device given.
    """

    def __init__(self, model: Callable[[Tensor], Any], *, device: torch.device | str | None = None) -> None:
        self.model = model
        first = _first_weight(model)
        self.device = torch.device(device or "cpu") if first is None else first.device
        self._weights = torch.float32 if first is None else first.dtype
        self.working = torch.float64 if self._weights == torch.float64 else torch.float32

    @classmethod
    def of(cls, model: Any) -> UnderAttack:
        """``model`` itself if it is one already."""
        return model if isinstance(model, cls) else cls(model)

    def place(self, x: Tensor) -> Tensor:
        """Inputs on the model's device, in the working precision."""
        return x.to(device=self.device, dtype=self.working)

    def own(self, x: Tensor) -> Tensor:
        """Scores as the model gives them. Raises InvalidModel where they are no real numbers."""
        scores = self.model(x.to(self._weights))
        check_scores(scores)
        return scores

    def __call__(self, x: Tensor) -> Tensor:
        """Scores in the working precision, shifted where they are wider: no loss notices the shift.

        Measured from each row's largest score, a margin keeps its sign however close the call.
        """
        scores = self.own(x)
        if scores.dtype != torch.float64 or self.working == torch.float64:
            return scores.to(self.working)
        limit = torch.finfo(self.working).max / 4
        return (scores - scores.detach().amax(1, keepdim=True)).clamp(-limit, limit).to(self.working)

    def answer(self, x: Tensor) -> Any:
        """What the model answers to placed inputs; InvalidModel where it cannot take them."""
        try:
            with torch.no_grad():
                return self.model(x.to(self._weights))
        except (CertifyError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise unanswered(x, error) from error

    def check(self, x: Tensor, *, spatial: tuple[int, ...] | None = None, classes: int | None = None) -> int:
        """The number of classes of the answer to placed inputs. Raises InvalidModel."""
        return check_output(self.answer(x), batch=len(x), num_classes=classes, spatial=spatial)

    @torch.no_grad()
    def check_function(self, x: Tensor) -> Tensor:
        """The model's own scores, if it is one fixed function of each row. Raises NondeterministicModel."""
        first, second = self.own(x), self.own(x)
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise NondeterministicModel(
                "the model gives two answers to the same inputs",
                why="it draws random numbers, so an adversarial input found once may not be one again",
                remedy="make it deterministic in eval mode, or attack its smoothed version instead",
            )
        alone = torch.cat([self.own(row[None]) for row in x])
        worst = _apart(first.double().flatten(1), alone.double().flatten(1))
        if worst > max(_ROUNDING.get(dtype, _COARSE) for dtype in (first.dtype, self._weights)):
            raise coupled(worst)
        return first

    def check_gradients(self, x: Tensor, *, remedy: str) -> None:
        """The scores lead back to the inputs. Raises InvalidModel."""
        why, found = "its scores come from outside torch (onnxruntime, numpy) or from under no_grad", None
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            try:
                scores = self(leaf)
            except RuntimeError as error:  # such as .numpy() of what is being differentiated
                scores = None
                why = f"torch cannot differentiate it: {(str(error).splitlines() or [''])[0][:200]}"
            if scores is not None and scores.requires_grad:
                why = "a detach() or no_grad inside cuts its scores off from the inputs"
                try:
                    (found,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
                except (RuntimeError, NotImplementedError) as error:
                    why = f"torch cannot differentiate it: {(str(error).splitlines() or [''])[0][:200]}"
        if found is None:
            raise InvalidModel(
                "the model gives no gradients", why=f"{why}, and this attack follows gradients", remedy=remedy
            )


def slope(value: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of ``value.sum()`` at ``leaf``, 0 where it is no number: NaN would end every search."""
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient.nan_to_num(nan=0.0, posinf=1e15, neginf=-1e15)


def placed(model: Any, device: torch.device | str | None) -> Any:
    """``model`` on ``device``: itself if it is there already, else a copy, so that the caller's stays put."""
    if not callable(model):
        raise InvalidModel(
            f"a {type(model).__name__} cannot be attacked",
            why="a model maps inputs (batch, *shape) to scores (batch, classes)",
            remedy="pass an nn.Module, a callable, or a certify.Smoothed",
        )
    if device is None or not isinstance(model, nn.Module):
        return model
    device = torch.device(device)
    first = next(iter(model.parameters()), None)
    if first is None or first.device.type == device.type:
        return model
    return copy.deepcopy(model).to(device)


def _apart(scores: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to a row's largest score; infinite where only one is a number."""
    if not torch.equal(scores.isfinite(), expected.isfinite()):
        return math.inf
    unit = expected.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((scores - expected).abs() / unit).nan_to_num().max())


def _first_weight(model: Any) -> Tensor | None:
    """The first weight, or buffer, that is a floating-point number: they tell device and precision."""
    if not isinstance(model, nn.Module):
        return None
    return next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), None)
