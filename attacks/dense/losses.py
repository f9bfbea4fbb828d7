"""What an attack on a segmentation ascends: one number per image, from its pixels' log-probabilities.

Everywhere ``logs`` is (rows, classes, height, width), ``label`` (rows, height, width) holds classes
only, ``stake`` (rows, height, width) marks the pixels that count, ``held`` those whose class is not lost
yet, and ``done`` in [0, 1) says how much of the attack is over. All pixels of an image share one
perturbation, so a loss has to say what a pixel that is already lost is still worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attacks.losses import score_gap

PixelLoss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def segpgd(logs: Tensor, label: Tensor, stake: Tensor, held: Tensor, done: float) -> Tensor:
    """Cross-entropy, first of the pixels that still hold, in the end of all alike.

    Gu, Zhao, Tresp and Torr 2022, "SegPGD: an effective and efficient adversarial attack for
    evaluating and boosting segmentation robustness" (ECCV), eq. 4 and 6: weights 1 - lambda for right
    pixels and lambda for wrong ones, lambda = done / 2.
    """
    share = torch.where(held, 1 - done / 2, done / 2)
    return _mean(share * _cross_entropy(logs, label), stake)


def masked_cross_entropy(logs: Tensor, label: Tensor, stake: Tensor, held: Tensor, done: float) -> Tensor:
    """Cross-entropy of the pixels that still hold, and of no other.

    Croce, Singh and Hein 2024, "Towards reliable evaluation and fast training of robust semantic
    segmentation models" (ECCV), section 3.
    """
    return _mean(held * _cross_entropy(logs, label), stake)


def jensen_shannon(logs: Tensor, label: Tensor, stake: Tensor, held: Tensor, done: float) -> Tensor:
    """Jensen-Shannon divergence of the probabilities from the label: bounded, so no pixel dominates.

    Croce, Singh and Hein 2024, section 3. It depends on the label's probability q alone:
    (q log(2q / (1+q)) + (1-q) log 2 - log((1+q) / 2)) / 2.
    """
    q = _of(logs, label).exp().clamp(1e-12, 1.0)
    mix = torch.log1p(q) - math.log(2)
    return _mean((q * (q.log() - mix) + (1 - q) * math.log(2) - mix) / 2, stake)


def lost_margins(logs: Tensor, label: Tensor, stake: Tensor, held: Tensor, done: float) -> Tensor:
    """Minus the mean margin of the pixels at stake: for one or a few of them."""
    return -_mean(score_gap(logs, label), stake)


def weakest_first(logs: Tensor, label: Tensor, stake: Tensor, held: Tensor, done: float) -> Tensor:
    """Minus the mean margin of the twentieth of the held pixels (at least one) with the lowest margins.

    In a small ball most pixels are out of reach; a mean over all of them follows those it cannot
    change, against the few it can.
    """
    gaps = score_gap(logs, label)
    open_ = (held & stake).flatten(1)
    ranks = gaps.detach().flatten(1).masked_fill(~open_, torch.inf).argsort(1).argsort(1)
    few = (ranks < (open_.sum(1, keepdim=True) / 20).ceil()) & open_
    return -_mean(gaps, few.view_as(stake))


def holds(logs: Tensor, label: Tensor, gap: float = 0.0) -> Tensor:
    """Pixels whose label is not less probable than another class by more than ``gap``."""
    return score_gap(logs.detach().exp(), label) >= -gap


def _of(logs: Tensor, label: Tensor) -> Tensor:
    return logs.gather(1, label[:, None]).squeeze(1)


def _cross_entropy(logs: Tensor, label: Tensor) -> Tensor:
    return -_of(logs, label)


def _mean(values: Tensor, stake: Tensor) -> Tensor:
    """(rows,) mean over the pixels at stake."""
    return (values * stake).flatten(1).sum(1) / stake.flatten(1).sum(1).clamp_min(1)
