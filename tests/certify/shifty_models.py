"""Models that are no fixed function of one input: each would get a certificate if nobody looked twice."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import torch
from torch import Tensor, nn


def two(z: Tensor) -> Tensor:
    """Scores of two classes, class 1 where ``z`` (batch,) is positive."""
    return torch.stack((1 - z, 1 + z), dim=1)


class Plain(nn.Module):
    """Class 1 where the mean of the input is above 0.45; the honest part of the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def side(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x.mean(1) - 0.45 + 1e-3 * self.body(x)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return two(self.side(x))


class FromTheNinth(Plain):
    """Looks at its batch for inputs that are bright: those after the eighth."""

    def forward(self, x):
        z = self.side(x)
        bright = x.flatten(1).mean(1) > 0.3
        return two(torch.where(bright & (len(x) > 1), z.abs() + 0.1, z))


class AfterCalls(Plain):
    """Another function after so many calls."""

    def __init__(self, calls: int = 10_000) -> None:
        super().__init__()
        self.left = calls

    def forward(self, x):
        self.left -= 1
        return two(self.side(x) + (0.2 if self.left < 0 else 0.0))


class LargestOfTheBatch(Plain):
    """Normalises by the largest value of the batch."""

    def forward(self, x):
        return two(self.side(x / x.amax().clamp_min(0.1)))


class ReadsTheGenerator(Plain):
    """Draws noise of its own from torch's generator, rarely enough to look fixed."""

    def forward(self, x):
        return two(self.side(x) + (0.3 if torch.rand(()) < 0.01 else 0.0))


class SeedsTheGenerator(Plain):
    """Frozen random features, drawn anew from a fixed seed in every call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mark = float(torch.rand(500)[-1])

    def forward(self, x):
        torch.manual_seed(0)
        return two(self.side(x) - 100 * (torch.rand(500)[-1] - self.mark).abs().clamp_max(0.1))


class ReadsNumpysGenerator(Plain):
    def forward(self, x):
        return two(self.side(x) + 1e-9 * float(np.random.rand()))  # noqa: NPY002


class ReadsPythonsGenerator(Plain):
    def forward(self, x):
        return two(self.side(x) + 1e-9 * random.random())


class PeeksAtTheSeed(Plain):
    """Reads the generator's state without moving it."""

    def forward(self, x):
        return two(self.side(x) + (torch.initial_seed() % 2) * 0.01)


class EarlyExit(nn.Module):
    """Stops at the first head where every row of the batch is confident there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 2), nn.Linear(16, 2)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.zero_()
                layer.bias.zero_()
            self.first.weight[1, 0], self.first.bias[1] = 20.0, -4.0
            self.last.weight[0, 1] = 10.0

    def forward(self, x):
        out = self.first(x)
        return out if (out.softmax(1).amax(1) > 0.88).all() else self.last(x)


class AloneOrNot(Plain):
    """Tells a batch of one from a batch of many."""

    def forward(self, x):
        return two(self.side(x) * (1 if len(x) > 1 else -1))


class FirstRow(Plain):
    """Only the first row of a large batch is answered otherwise."""

    def forward(self, x):
        z = self.side(x).clone()
        if len(x) > 32:
            z[40] += 0.5
        return two(z)


class ByTheClock(Plain):
    """Another function from a moment on."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.until = time.monotonic() + seconds

    def forward(self, x):
        return two(self.side(x) + (0.2 if time.monotonic() > self.until else 0.0))


class OverwritesItsAnswer(Plain):
    """Answers with a view of one buffer: earlier answers change when it is called again."""

    def __init__(self, drift: bool) -> None:
        super().__init__()
        self.room = torch.zeros(4096, 2)
        self.drift = drift
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        z = self.side(x) + (0.1 * (self.calls % 2) if self.drift else 0.0)
        return self.room[: len(x)].copy_(two(z))


class ChangesASetting(Plain):
    def forward(self, x):
        torch.set_default_dtype(torch.float64 if len(x) == 7 else torch.get_default_dtype())
        return two(self.side(x))


class ThreadLocal(Plain):
    """Keeps a counter of its thread and drifts with it."""

    memory = threading.local()

    def forward(self, x):
        self.memory.calls = getattr(self.memory, "calls", 0) + 1
        return two(self.side(x) + (0.2 if self.memory.calls > 300 else 0.0))


def images(n: int) -> Tensor:
    """Eight dark inputs, then bright ones (n, 16), on the grid of 8-bit values."""
    x = torch.full((n, 16), 50 / 255)
    x[8:] = 110 / 255
    return x


def easy_and_hard(n: int) -> Tensor:
    """For the early exit: eight inputs on which every batch is confident, then others."""
    x = torch.ones(n, 16)
    x[8:, 0] = 128 / 255
    return x
