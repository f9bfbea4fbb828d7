"""The rows an attack works on: inputs, labels, sizes, and where their randomness and cost belong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attacks.geometry import Box
from attacks.oracle import Oracle
from attacks.streams import Streams

if TYPE_CHECKING:
    from attacks.reduced import Frame


@dataclass(frozen=True)
class Problem:
    """``x`` (rows, *shape), labels ``y`` and sizes ``eps`` (rows,); norm ``p`` in the box.

    ``samples`` (rows,) says which of the oracle's inputs each row belongs to; ``streams`` are its random
    numbers, one per row. A targeted problem (attacks.aimed) has two classes, ``y`` = 0; ``truth`` and
    ``wanted`` (rows,) are the model's own classes, before and after. With ``frame`` the rows are the
    coordinates that may move (attacks.reduced). An attack returns a candidate per row and never judges it.
    """

    oracle: Oracle
    x: Tensor
    y: Tensor
    eps: Tensor
    p: float
    box: Box
    streams: Streams
    samples: Tensor
    classes: int
    rows: int = 2048
    frame: Frame | None = None
    truth: Tensor | None = None
    wanted: Tensor | None = None

    @classmethod
    def of(cls, oracle: Oracle, x: Tensor, y: Tensor, *, eps: float | Tensor, p: float, box: Box,
           seed: int, ids=None, classes: int, rows: int = 2048,
           frame: Frame | None = None) -> Problem:  # fmt: skip
        """The problem on all inputs; ``eps`` one size or one per input."""
        n = len(x)
        exact = torch.as_tensor(eps, dtype=torch.float64).cpu().expand(n)
        sizes = exact.to(x.dtype)
        # Rounded down: a ball must not grow when its size is stored in single precision.
        sizes = torch.where(sizes.double() > exact, torch.nextafter(sizes, torch.zeros_like(sizes)), sizes)
        sizes = sizes.to(x.device)
        streams = Streams(seed, range(n) if ids is None else ids, device=x.device)
        return cls(oracle, x, y, sizes, p, box, streams, torch.arange(n, device=x.device), classes, rows,
                   frame)  # fmt: skip

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> torch.Size:
        return self.x.shape[1:]

    @property
    def image(self) -> bool:
        """Whether inputs are (channels, height, width), so that neighbouring pixels mean something."""
        return self.x.dim() == 4 and min(self.x.shape[-2:]) >= 3

    def whole(self, points: Tensor) -> Tensor:
        """The inputs as the model gets them: ``points`` (rows, d) put back into the coordinates that stay."""
        return points if self.frame is None else self.frame.embed(points, self.samples)

    @property
    def label(self) -> Tensor:
        """(rows,) the model's own class of each input."""
        return self.y if self.truth is None else self.truth

    @property
    def judged(self) -> Tensor:
        """(rows,) the class that the judge looks at: the one to be left, or reached where one is wanted."""
        return self.y if self.wanted is None else self.wanted

    def take(self, rows: Tensor) -> Problem:
        """The problem on these rows (positions)."""
        return replace(
            self, x=self.x[rows], y=self.y[rows], eps=self.eps[rows],
            streams=self.streams.subset(rows), samples=self.samples[rows],
            truth=None if self.truth is None else self.truth[rows],
            wanted=None if self.wanted is None else self.wanted[rows],
        )  # fmt: skip

    def noise(self, purpose: str) -> Tensor:
        """Noise of the inputs' shape for a random start: uniform for linf, standard normal otherwise."""
        draw = self.streams.uniform if self.p == float("inf") else self.streams.normal
        return draw(self.shape, purpose).to(self.x.dtype)
