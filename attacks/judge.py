"""The only place where an attack is declared successful.

Whatever an attack claims, the judge measures the distance again in double precision, checks
the box, and predicts again three ways: in single precision within the batch and alone, and in
double precision. All must agree that the class has changed. Half of what sits exactly on a
decision boundary does not survive this, and should not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.geometry import Box, distance
from attacks.losses import margin
from certify.errors import CertifyError

#: Norm overshoot that is forgiven, relative to eps: single-precision libraries leave the ball by an ulp.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the judge measured at one candidate.

    ``broken`` is the conjunction: inside the ball, inside the box, and a negative margin (true
    class's score minus the best other) in every evaluation. ``margin64`` is None where the model
    cannot run in double precision.
    """

    broken: bool
    prediction: int
    distance: float
    distance_l2: float
    distance_linf: float
    in_ball: bool
    in_box: bool
    margin32: float
    margin64: float | None


class Judge:
    """Judges candidates against one model, norm ``p`` and box."""

    def __init__(self, model: Callable[[Tensor], Tensor], *, p: float, box: Box) -> None:
        self.model = model
        self.p = p
        self.box = box
        self._double: Callable | None = _in_double(model)

    @torch.no_grad()
    def verdicts(self, x: Tensor, y: Tensor, x_adv: Tensor, eps: Tensor | None) -> list[Verdict]:
        """One verdict per row of ``x`` (rows, *shape); ``y``, ``eps`` (rows,), eps None: any distance."""
        if not len(x):
            return []
        far, l2, linf = (distance(x, x_adv, p).tolist() for p in (self.p, 2.0, math.inf))
        in_box = contained(x_adv, self.box).tolist()
        together = margin(self.model(x_adv), y).tolist()
        out = []
        for i in range(len(x)):
            one, label = x_adv[i : i + 1], y[i : i + 1]
            scores = self.model(one)
            alone, prediction = float(margin(scores, label)), int(scores.argmax(1))
            margin64 = self._margin64(one, label)
            limit = math.inf if eps is None else float(eps[i]) * (1 + TOLERANCE)
            in_ball = far[i] <= limit
            fooled = all(m < 0 for m in (together[i], alone) + (() if margin64 is None else (margin64,)))
            out.append(
                Verdict(
                    in_ball and in_box[i] and fooled, prediction, far[i], l2[i], linf[i],
                    in_ball, in_box[i], alone, margin64,
                )
            )  # fmt: skip
        return out

    def _margin64(self, one: Tensor, label: Tensor) -> float | None:
        if self._double is None:
            return None
        try:
            return float(margin(self._double(one.double()), label))
        except (RuntimeError, TypeError, CertifyError):  # the model fixes a dtype somewhere inside
            self._double = None
            return None


def contained(x_adv: Tensor, box: Box) -> Tensor:
    """(rows,) whether every coordinate is finite and within the box, compared in the inputs' own dtype."""
    low, high = (torch.tensor(b, dtype=x_adv.dtype, device=x_adv.device) for b in box)
    ok = (x_adv >= low) & (x_adv <= high) & x_adv.isfinite()
    return ok.flatten(1).all(1)


def _in_double(model: Callable) -> Callable | None:
    """A double-precision copy of a module; None for a plain callable or a module that cannot be copied."""
    if not isinstance(model, nn.Module):
        return None
    try:
        return copy.deepcopy(model).double()
    except (RuntimeError, TypeError):
        return None
