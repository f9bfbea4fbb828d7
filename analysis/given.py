"""What an analysis is given, checked where it enters: points, labels, confidence levels, counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from certify.answers import first_answer
from certify.calls import shown
from certify.errors import InvalidInput, InvalidSetting


def check_delta(delta: float) -> float:
    """The probability that a statement is wrong, in (0, 1). Raises InvalidSetting."""
    if not 0.0 < delta < 1.0:
        raise InvalidSetting(
            f"delta = {shown(delta)} cannot be used",
            why="delta is the probability that the bound is wrong and must lie in (0, 1)",
            remedy="use for example delta=0.05",
        )
    return float(delta)


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """A whole number of repetitions that a computer can make. Raises InvalidSetting."""
    if not least <= value <= 10**9:
        raise InvalidSetting(
            f"{name} = {shown(value)} cannot be used",
            why=f"it is a number of repetitions, from {least} to 1,000,000,000",
            remedy=f"use for example {name}=100",
        )
    return int(value)


def check_points(model: nn.Module, x: Tensor) -> None:
    """The model answers points (n, *shape) of real numbers. Raises InvalidInput, InvalidModel."""
    if x.dim() < 2 or len(x) == 0 or not x.is_floating_point():
        raise InvalidInput(
            f"these are no points: shape {tuple(x.shape)}, type {x.dtype}",
            why="an analysis takes at least one point of floating-point numbers, (n, *shape)",
            remedy="pass the inputs of the network as a float tensor; one input alone is x.unsqueeze(0)",
        )
    first_answer(model, x[:1])


def check_labels(labels: Tensor, n: int, classes: int) -> None:
    """One class in [0, classes) for each of n points. Raises InvalidInput."""
    whole = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if (
        labels.dim() != 1
        or len(labels) != n
        or not whole
        or not bool(((labels >= 0) & (labels < classes)).all())
    ):
        raise InvalidInput(
            f"these are no labels of {n} points: shape {tuple(labels.shape)}, type {labels.dtype}",
            why=f"an analysis takes one class of 0 to {classes - 1} for each point, in whole numbers",
            remedy="pass labels as an integer tensor of shape (n,)",
        )
