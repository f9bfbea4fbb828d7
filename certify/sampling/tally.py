"""What is counted per sample: one vote, or the bin of every class' margin score.

Integer counts in a fixed array per input: they add up exactly over batches, shards and workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from certify.procedures.outcome import Procedure
from certify.sampling.classifier import BaseClassifier


class Tally(Protocol):
    """How a batch of model outputs becomes counts of shape ``shape`` per input."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, classifier: BaseClassifier, out: Tensor) -> tuple[Tensor, Tensor]:
        """Flat cells (batch, m) that each row adds one to, and the rows in doubt (batch,).

        ``out``: the classifier's raw scores (batch, ...). Those of a single evaluation define the cells.
        """
        ...

    def statistic(self, counts: np.ndarray) -> np.ndarray:
        """What a procedure's look takes, from an input's cumulative counts."""
        ...


def tally_for(procedure: Procedure, num_classes: int) -> Tally:
    """The tally that feeds ``procedure``."""
    if procedure.statistic == "counts":
        return Votes(num_classes)
    return MarginScores(num_classes, tuple(float(t) for t in getattr(procedure, "thresholds")))  # noqa: B009


@dataclass(frozen=True)
class Votes:
    """One vote a sample; the last cell counts samples whose scores were not finite."""

    num_classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_classes + 1,)

    def read(self, classifier: BaseClassifier, out: Tensor) -> tuple[Tensor, Tensor]:
        labels, doubt = classifier.read(out)
        return labels[:, None], doubt

    def statistic(self, counts: np.ndarray) -> np.ndarray:
        return counts[:-1]


@dataclass(frozen=True)
class MarginScores:
    """For every class c the bin of h_c = (1 + f_c - max of the other f) / 2, f = softmax of the scores.

    Bins are ``searchsorted(thresholds, h, side="right")``; a sample with a non-finite score has
    h = 0 for every class. Computed in float64 from the model's own scores.
    """

    num_classes: int
    thresholds: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_classes, len(self.thresholds) + 1)

    def read(self, classifier: BaseClassifier, out: Tensor) -> tuple[Tensor, Tensor]:
        out = out.double()
        finite = out.isfinite().all(dim=1)
        scores, slope = _margins(torch.where(finite[:, None], out, 0.0))
        # A relative change of the logits by the tolerance moves a score by at most this much.
        reach = classifier.tolerance * classifier.scale(out) * slope
        bins = self._bins(scores)
        doubt = (self._bins(scores - reach) != self._bins(scores + reach)).any(dim=1) & finite
        return self._cells(torch.where(finite[:, None], bins, 0)), doubt

    def statistic(self, counts: np.ndarray) -> np.ndarray:
        return counts

    def _bins(self, scores: Tensor) -> Tensor:
        edges = torch.tensor(self.thresholds, dtype=torch.float64, device=scores.device)
        return torch.searchsorted(edges, scores.contiguous(), right=True)

    def _cells(self, bins: Tensor) -> Tensor:
        first = torch.arange(self.num_classes, device=bins.device) * (len(self.thresholds) + 1)
        return first + bins


def _margins(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Margin scores (batch, K), rounded down, and how fast each can change per unit of the logits."""
    f = logits.softmax(dim=1)
    top = f.topk(2, dim=1)
    leads = torch.zeros_like(f, dtype=torch.bool).scatter_(1, top.indices[:, :1], True)
    other = torch.where(leads, top.values[:, 1:], top.values[:, :1])
    # softmax in float64 is good to a few 2^-52; the score must not be larger than the true one.
    scores = ((1 + f - other) / 2 - 1e-13).clamp(0.0, 1.0)
    return scores, f * (1 - f) + other * (1 - other) + 1e-12
