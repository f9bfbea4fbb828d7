"""Attacks in the coordinates that may move: masks, and ranges that differ by coordinate.

The attack sees inputs of the movable coordinates alone, in a row (rows, d). What the others are is put back
before the model is asked. So every attack solves the smaller problem itself: no step, no projection and no
random start is spent on what must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.geometry import Box
from attacks.oracle import Oracle
from attacks.threat import Threat
from certify.errors import InvalidInput, InvalidSetting
from certify.noise.grid import make_grid

#: Inputs may be so many steps off the lattice: what float32 arithmetic leaves of an 8-bit pixel.
_NEAR = 2.0**-6


@dataclass(frozen=True)
class Frame:
    """The inputs (n, *shape) of one batch, and the flat positions (d,) of the coordinates that may move."""

    inputs: Tensor
    index: Tensor

    def movable(self, x: Tensor) -> Tensor:
        """(rows, d) of whole inputs."""
        return x.flatten(1)[:, self.index]

    def embed(self, points: Tensor, samples: Tensor) -> Tensor:
        """Whole inputs (rows, *shape): those of ``samples`` with ``points`` (rows, d) put in."""
        rows = self.inputs[samples]
        return rows.flatten(1).index_copy(1, self.index, points).view_as(rows)

    def box(self, box: Box) -> Box:
        """The box of the movable coordinates."""
        low, high = (
            bound if not isinstance(bound, Tensor) else bound.flatten().to(self.inputs)[self.index]
            for bound in box
        )
        return low, high


class FramedOracle(Oracle):
    """An oracle that is asked about movable coordinates."""

    def __init__(self, model: Callable[[Tensor], Tensor], frame: Frame) -> None:
        super().__init__(model, len(frame.inputs))
        self.frame = frame

    def scores(self, x: Tensor) -> Tensor:
        return super().scores(self._whole(x))

    def differentiable(self, x: Tensor) -> Tensor:
        return super().differentiable(self._whole(x))

    def _whole(self, x: Tensor) -> Tensor:
        if self._rows is None or len(self._rows) != len(x):
            raise RuntimeError("the inputs behind these rows were not named")
        return self.frame.embed(x, torch.from_numpy(self._rows).to(x.device))


def frame_of(threat: Threat, inputs: Tensor) -> Frame | None:
    """The movable coordinates of ``inputs`` (n, *shape) under ``threat``; None where all inputs are whole.

    Raises InvalidInput where mask or ranges are of another shape, or an input lies outside its ranges.
    """
    if threat.mask is None and not threat.ranged:
        return None
    shape = inputs.shape[1:]
    mask = (
        torch.ones(shape, dtype=torch.bool) if threat.mask is None else _fitting("mask", threat.mask, shape)
    )
    if threat.ranged:
        low, high = (_fitting("bounds", bound, shape).to(inputs) for bound in threat.box)
        outside = ((inputs < low) | (inputs > high)).flatten(1).any(1)
        if bool(outside.any()):
            raise InvalidInput(
                f"input {int(outside.nonzero()[0])} lies outside the bounds",
                why="an attack starts at the input, which must be one that the ranges allow",
                remedy="correct the ranges, or the units of the inputs",
            )
        mask = mask & (low < high).cpu()
    return Frame(inputs, mask.flatten().nonzero().squeeze(1).to(inputs.device))


def _fitting(name: str, value: Any, shape: torch.Size) -> Tensor:
    try:
        return value.broadcast_to(shape)
    except RuntimeError as error:
        raise InvalidInput(
            f"{name} of shape {tuple(value.shape)} do not fit inputs of shape {tuple(shape)}",
            why="there must be one entry for every coordinate of an input",
            remedy=f"give {name} in the shape {tuple(shape)}",
        ) from error


def gridded(threat: Threat, inputs: Tensor) -> Tensor:
    """The inputs, as they lie on the lattice of ``threat``. Raises InvalidInput where one does not."""
    if threat.grid is None:
        return inputs
    grid = make_grid(float(threat.grid), None)
    exact = inputs.double() * grid.divisor
    off = (exact - exact.round()).abs() > _NEAR
    if bool(off.any()):
        raise InvalidInput(
            f"an input is not on the grid: {float(inputs[off][0])!r} is no multiple of {grid.step}",
            why="adversarial inputs on the lattice are looked for around inputs on it",
            remedy="round the inputs first, or name the step that they have",
        )
    return grid.image(exact.round()).to(inputs)


def refuse_restrictions(threat: Threat, *, smoothed: bool) -> None:
    """Raise InvalidSetting where mask, ranges or grid are asked for and cannot be had."""
    if smoothed and threat.restrictions:
        raise InvalidSetting(
            f"{' and '.join(threat.restrictions)} cannot be kept when a smoothed classifier is attacked",
            why="its search moves whole inputs; on lattice noise what it finds lies on the lattice already",
            remedy="attack the base model, or leave mask, ranges and grid out",
        )
