"""The only place where a pixel of a segmentation is declared broken.

Whatever a search claims, ball and box are measured again in double precision, and every pixel
is classified again: by the network in the precision that is certified, the image alone, and in double
precision (``NetworkJudge``); or by the smoothed segmentation on noise that no search has seen
(``SmoothedJudge``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from attacks.dense.outcomes import Attempt
from attacks.geometry import Box, distance
from attacks.judge import TOLERANCE, _in_double, contained
from attacks.streams import confirmation_key
from certify.dense.maps import ABSTAIN
from certify.dense.votes import BaseSegmenter
from certify.errors import CertifyError


@dataclass(frozen=True, eq=False)
class Verdict:
    """Of one candidate: every pixel's ``classes`` there, and where another than its label is ``confirmed``.

    ``evaluations`` of the base model were needed to say so.
    """

    attempt: Attempt
    classes: np.ndarray
    confirmed: np.ndarray
    evaluations: int


class PixelJudge(Protocol):
    """Says what is true at an image; ``label`` and ``stake`` are maps (height, width)."""

    def gap(self, pixels: int) -> float:
        """How much more probable another class must be for this judge to confirm it, among ``pixels``."""
        ...

    def clean(self, x: Tensor, id: int) -> np.ndarray:
        """The classes (height, width) of an image as it is; -1: none."""
        ...

    def verdict(
        self, name: str, x: Tensor, x_adv: Tensor, label: np.ndarray, stake: np.ndarray, *,
        eps: float, id: int, number: int,
    ) -> Verdict:  # fmt: skip
        """What holds at ``x_adv``, candidate ``number`` (from 0) of ``x``; both (channels, height, width)."""
        ...


class NetworkJudge:
    """Judges against the base network: a pixel is broken where both precisions give it another class."""

    def __init__(self, segmenter: BaseSegmenter, *, p: float, box: Box) -> None:
        self.segmenter, self.p, self.box = segmenter, p, box
        self._double: Callable | None = _in_double(segmenter.model)

    def gap(self, pixels: int) -> float:
        return 0.0

    def clean(self, x: Tensor, id: int) -> np.ndarray:
        found = self.segmenter.vote_alone(x[None]).reshape(self.segmenter.spatial)
        return np.where(found == self.segmenter.num_classes, ABSTAIN, found)

    def verdict(
        self, name: str, x: Tensor, x_adv: Tensor, label: np.ndarray, stake: np.ndarray, *,
        eps: float, id: int, number: int,
    ) -> Verdict:  # fmt: skip
        attempt = measured(name, x, x_adv, eps=eps, p=self.p, box=self.box)
        classes = self.clean(x_adv, id)
        confirmed = stake & (classes != label) & (classes != ABSTAIN) & attempt.inside
        if confirmed.any() and (again := self._in_double(x_adv)) is not None:
            confirmed &= again == classes
        return _counted(attempt, classes, confirmed, 2)

    @torch.no_grad()
    def _in_double(self, x: Tensor) -> np.ndarray | None:
        if self._double is None:
            return None
        try:
            scores = self._double(x[None].to(torch.float64, copy=True))[0]
            found = torch.where(scores.isfinite().all(0), scores.argmax(0), ABSTAIN)
            return found.cpu().numpy()
        except (RuntimeError, TypeError, CertifyError):  # the model fixes a dtype somewhere inside
            self._double = None
            return None


class SmoothedJudge:
    """Judges against a smoothed segmentation ``g``, with fresh noise for every candidate.

    ``select`` samples choose each pixel's rival, the other class with most votes; ``samples`` fresh
    ones test whether the rival is more probable than the label: given the n votes that went to either,
    the rival's are Bin(n, q) with q <= 1/2 + tv where the label has probability 1/2 or more under the
    ideal noise, as every certificate proves inside its ball. The exact tail must be at most alpha /
    (pixels at stake * tries): among all pixels and candidates of an image a false confirmation
    has probability at most ``alpha``.
    """

    def __init__(
        self, g: Any, *, p: float, box: Box, seed: int, samples: int, alpha: float, tries: int,
        select: int = 200,
    ) -> None:  # fmt: skip
        self.g, self.p, self.box, self.seed = g, p, box, int(seed)
        self.samples, self.select, self.alpha, self.tries = samples, select, alpha, tries

    def clean(self, x: Tensor, id: int) -> np.ndarray:
        return self.votes(x, id, "clean").argmax(0)

    def verdict(
        self, name: str, x: Tensor, x_adv: Tensor, label: np.ndarray, stake: np.ndarray, *,
        eps: float, id: int, number: int,
    ) -> Verdict:  # fmt: skip
        if not 0 <= number < self.tries:
            raise ValueError(f"candidate {number} of {self.tries}: the error budget is spent")
        attempt = measured(name, x, x_adv, eps=eps, p=self.p, box=self.box)
        votes = self.votes(x_adv, id, f"select/{number}")
        classes, confirmed = votes.argmax(0), np.zeros(label.shape, dtype=bool)
        if not (attempt.inside and (stake & (classes != label)).any()):
            return Verdict(attempt, classes, confirmed, self.select)
        place = np.where(stake, label, 0)[None]
        np.put_along_axis(votes, place, -1, axis=0)
        rival = votes.argmax(0)
        fresh = self._votes(x_adv, self.samples, id, f"confirm/{number}")
        for_rival, for_label = (np.take_along_axis(fresh, c[None], 0)[0] for c in (rival, place[0]))
        tv = float(self.g.noise.tv(x.numel()))
        level = self.alpha / (max(1, int(stake.sum())) * self.tries)
        confirmed = stake & (rival_tail(for_rival, for_label, tv) <= level)
        found = np.where(confirmed, rival, classes)
        return _counted(attempt, found, confirmed, self.select + self.samples)

    def gap(self, pixels: int) -> float:
        """How much more probable a rival must be for the test to see it, with a little room."""
        tail = float(stats.norm.isf(self.alpha / (max(1, pixels) * self.tries)))
        return min(0.5, 1.1 * tail / self.samples**0.5)

    def votes(self, x: Tensor, id: int, purpose: str) -> np.ndarray:
        """Votes (classes, height, width) of the ``select`` samples of this purpose."""
        return self._votes(x, self.select, id, purpose)

    def _votes(self, x: Tensor, n: int, id: int, purpose: str) -> np.ndarray:
        seed = confirmation_key(self.seed, "pixels", purpose)
        return self.g.votes(x[None].cpu(), n=n, seed=seed, ids=[id])[0]


def rival_tail(for_rival: np.ndarray, for_label: np.ndarray, tv: float = 0.0) -> np.ndarray:
    """P(Bin(for_rival + for_label, 1/2 + tv) >= for_rival), rounded up: small where the rival leads."""
    both = for_rival + for_label
    return np.minimum(1.0, stats.binom.sf(for_rival - 1, both, min(1.0, 0.5 + tv)) * (1 + 1e-10))


def measured(name: str, x: Tensor, x_adv: Tensor, *, eps: float, p: float, box: Box) -> Attempt:
    """How far the candidate really is, and whether it may be judged at all."""
    far, l2, linf = (float(distance(x[None], x_adv[None], q)[0]) for q in (p, 2.0, math.inf))
    inside = far <= eps * (1 + TOLERANCE) and bool(contained(x_adv[None], box)[0])
    return Attempt(name, far, l2, linf, 0, inside)


def _counted(attempt: Attempt, classes: np.ndarray, confirmed: np.ndarray, evaluations: int) -> Verdict:
    return Verdict(replace(attempt, confirmed=int(confirmed.sum())), classes, confirmed, evaluations)
