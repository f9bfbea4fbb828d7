"""Confirm, with fresh noise, that a smoothed classifier has changed its class.

The judge of smoothed classifiers: it measures ball and box like ``attacks.judge`` and asks the
classifier itself, by its prediction test, on noise that no attack has seen. An input may ask a
limited number of times and the test's error is divided by that number, so a confirmed
adversarial is wrong with probability at most alpha per input, however many candidates were tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.geometry import distance
from attacks.judge import TOLERANCE, contained
from attacks.streams import confirmation_key


@dataclass(frozen=True)
class Confirmation:
    """What was measured at one candidate of a smoothed classifier.

    ``prediction`` is the class confirmed at error alpha / tries, None where the test abstained.
    """

    broken: bool
    prediction: int | None
    distance: float
    distance_l2: float
    distance_linf: float
    in_ball: bool
    in_box: bool
    counts: tuple[int, ...]
    p_value: float


class Confirmer:
    """Asks ``g.predict`` about candidates; error ``alpha / tries`` each time, fresh noise each time."""

    def __init__(self, g: Any, *, p: float, box: tuple[float, float], seed: int, samples: int, alpha: float,
                 tries: int) -> None:  # fmt: skip
        self.g = g
        self.p = p
        self.box = box
        self.seed = int(seed)
        self.samples = samples
        self.level = alpha / tries
        self.tries = tries

    def clean(self, x: Tensor, ids: list[int]) -> list[Any]:
        """The smoothed class at the unperturbed inputs, at error ``alpha / tries``."""
        return self._predict(x, ids, 0)

    def confirm(
        self, x: Tensor, y: Tensor, x_adv: Tensor, eps: Tensor | None, ids: list[int], attempt: int
    ) -> list[Confirmation]:
        """One confirmation per row; ``attempt`` (1 .. tries) chooses noise that was not used before."""
        if not 1 <= attempt <= self.tries:
            raise ValueError(f"attempt {attempt} of {self.tries}: the error budget is spent")
        far, l2, linf = (distance(x, x_adv, p).tolist() for p in (self.p, 2.0, math.inf))
        in_box = contained(x_adv, self.box).tolist()
        answers = self._predict(x_adv, ids, attempt)
        out = []
        for i, answer in enumerate(answers):
            limit = math.inf if eps is None else float(eps[i]) * (1 + TOLERANCE)
            flipped = answer.label is not None and answer.label != int(y[i])
            in_ball = far[i] <= limit
            out.append(
                Confirmation(
                    flipped and in_ball and in_box[i], answer.label, far[i], l2[i], linf[i],
                    in_ball, in_box[i], tuple(answer.counts), float(answer.p_value),
                )
            )  # fmt: skip
        return out

    @torch.no_grad()
    def _predict(self, x: Tensor, ids: list[int], attempt: int) -> list[Any]:
        if not len(x):
            return []
        seed = confirmation_key(self.seed, "labels", attempt)
        return self.g.predict(x, n=self.samples, alpha=self.level, seed=seed, ids=ids)
