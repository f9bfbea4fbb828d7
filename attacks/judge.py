"""The only place where an attack is declared successful.

Whatever an attack claims, the judge measures the distance again in double precision, checks the box,
and predicts again: in the model's own precision within the batch and alone, and in double precision. A
close call alone is repeated with the row at every alignment in memory, as kernels round differently there.
All must agree, with scores that are finite, that the class has changed. Half of what sits exactly on a
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
from attacks.losses import margin, missed_margin
from attacks.under_attack import UnderAttack
from certify.errors import CertifyError
from certify.noise.grid import make_grid

#: Norm overshoot that is forgiven, relative to eps: single-precision libraries leave the ball by an ulp.
TOLERANCE = 1e-6

#: A margin alone above -CLOSE times the largest score is a close call: alignment may turn it.
CLOSE = 1e-3
#: Cache lines hold so many bytes; where in one a row begins decides how it is loaded.
_LINE = 64


@dataclass(frozen=True)
class Verdict:
    """What the judge measured at one candidate.

    ``broken`` is the conjunction: inside the ball, inside the box (and mask and lattice, where given), and
    a negative margin (true class's score minus the best other) between finite scores in every evaluation.
    ``margin32`` is the largest margin alone, in the model's own precision; ``margin64`` is None where it
    cannot run in double. A score that is not finite leaves no class, as in certification: ``prediction`` is
    None, the margin infinite.
    """

    broken: bool
    prediction: int | None
    distance: float
    distance_l2: float
    distance_linf: float
    in_ball: bool
    in_box: bool
    margin32: float
    margin64: float | None


class Judge:
    """Judges candidates against one model, norm ``p`` and box.

    ``mask``: which coordinates may differ from the input; ``grid``: the lattice that candidates must lie on.
    ``targeted``: the class given with an input is the one that must be reached, not the one to be left;
    margins are then the best other score minus that class's.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        p: float,
        box: Box,
        mask: Tensor | None = None,
        grid: float | None = None,
        targeted: bool = False,
    ) -> None:
        self.model = UnderAttack.of(model)
        self.p = p
        self.box = box
        self.mask = mask
        self._margin = missed_margin if targeted else margin
        self.grid = None if grid is None else make_grid(float(grid), None)
        self._double: Callable | None = _in_double(self.model.model)

    @torch.no_grad()
    def verdicts(self, x: Tensor, y: Tensor, x_adv: Tensor, eps: Tensor | None) -> list[Verdict]:
        """One verdict per row of ``x`` (rows, *shape); ``y``, ``eps`` (rows,), eps None: any distance."""
        if not len(x):
            return []
        far, l2, linf = (distance(x, x_adv, p).tolist() for p in (self.p, 2.0, math.inf))
        in_box = self._allowed(x, x_adv).tolist()
        together = self._margin(self.model.own(x_adv.clone()), y).tolist()
        out = []
        for i in range(len(x)):
            one, label = x_adv[i : i + 1], y[i : i + 1]
            alone, prediction = self._alone(one, label)
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

    def _allowed(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """(rows,) whether the candidates are in the box, moved only what may, and lie on the lattice."""
        fine = contained(x_adv, self.box)
        if self.mask is not None:
            fine &= ((x_adv == x) | self.mask.to(x.device)).flatten(1).all(1)
        if self.grid is not None:
            steps = (x_adv.double() * self.grid.divisor).round()
            fine &= (self.grid.image(steps).to(x_adv) == x_adv).flatten(1).all(1)
        return fine

    def _alone(self, one: Tensor, label: Tensor) -> tuple[float, int | None]:
        """The margin of one row by itself, the largest over its places in memory, and its class."""
        scores = self.model.own(one.clone())
        alone = float(self._margin(scores, label))
        if alone < 0 and alone > -CLOSE * float(scores.abs().amax()) and not one.is_cuda:
            alone = max(float(self._margin(self.model.own(row), label)) for row in placements(one))
        return alone, int(scores.argmax(1)) if bool(scores.isfinite().all()) else None

    def _margin64(self, one: Tensor, label: Tensor) -> float | None:
        if self._double is None:
            return None
        try:
            return float(self._margin(self._double(one.to(torch.float64, copy=True)), label))
        except (RuntimeError, TypeError, CertifyError):  # the model fixes a dtype somewhere inside
            self._double = None
            return None


def placements(one: Tensor) -> list[Tensor]:
    """Copies of a row (1, *shape), one at every alignment that memory has for its numbers."""
    return [
        one.new_empty(one.numel() + offset)[offset:].copy_(one.flatten()).view(one.shape)
        for offset in range(_LINE // one.element_size())
    ]


def contained(x_adv: Tensor, box: Box) -> Tensor:
    """(rows,) whether every coordinate is finite and within the box, compared in the inputs' own dtype."""
    low, high = (torch.as_tensor(b, dtype=x_adv.dtype, device=x_adv.device) for b in box)
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
