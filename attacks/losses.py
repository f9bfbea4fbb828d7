"""What an attack maximises. Each takes scores (rows, classes) and labels (rows,), and returns (rows,)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def margin(scores: Tensor, label: Tensor) -> Tensor:
    """The true class's score minus the best other one; negative where the class has changed.

    Where a score is not finite the model gives no class, as in certification: nothing has changed there,
    and the margin is infinite, so that no search takes it for a find.
    """
    return torch.where(scores.isfinite().all(1), score_gap(scores, label), torch.inf)


def missed_margin(scores: Tensor, wanted: Tensor) -> Tensor:
    """The best other score minus the wanted class's; negative where the class is the wanted one."""
    return torch.where(scores.isfinite().all(1), -score_gap(scores, wanted), torch.inf)


def score_gap(scores: Tensor, label: Tensor) -> Tensor:
    """The true class's score minus the best other one, whatever the scores are."""
    true = scores.gather(1, label[:, None])
    others = scores.scatter(1, label[:, None], -torch.inf)
    return true.squeeze(1) - others.amax(1)


def lost_margin(scores: Tensor, label: Tensor) -> Tensor:
    """Minus the margin: the loss for two or three classes."""
    return -margin(scores, label)


def targeted_margin(scores: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """The target class's score minus the true one's."""
    return (scores.gather(1, target[:, None]) - scores.gather(1, label[:, None])).squeeze(1)


def cross_entropy(scores: Tensor, label: Tensor) -> Tensor:
    """-log softmax of the true class."""
    return F.cross_entropy(scores, label, reduction="none")


def difference_of_logits(scores: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """The targeted DLR loss: (z_t - z_y) / (z_1 - (z_3 + z_4)/2), sorted scores below the line.

    Invariant to shifting and scaling of the scores, so it keeps a gradient where softmax saturates.
    Needs four classes (Croce and Hein 2020, "Reliable evaluation of adversarial robustness",
    section 4).
    """
    top = scores.topk(4, dim=1).values
    spread = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12
    return targeted_margin(scores, label, target) / spread


def targeted(scores: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """The targeted DLR loss where there are four classes, the targeted margin otherwise."""
    return (difference_of_logits if scores.shape[1] >= 4 else targeted_margin)(scores, label, target)
