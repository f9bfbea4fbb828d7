"""Projected gradient descent on all pixels of an image at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.dense.losses import PixelLoss, holds
from attacks.dense.sources import Source
from attacks.geometry import Box, column, inside, project, random_start, steepest
from attacks.losses import score_gap
from attacks.pgd import keep
from attacks.streams import Streams


@dataclass(frozen=True)
class Images:
    """Images ``x`` (rows, channels, height, width) with maps ``label``, ``stake`` and sizes ``eps`` (rows,).

    ``label`` holds a class everywhere; only pixels with ``stake`` count. A pixel is lost where another
    class is more probable by ``gap``: the judge of a smoothed segmentation sees no smaller one.
    ``streams`` are the images' random numbers, one per row.
    """

    x: Tensor
    label: Tensor
    stake: Tensor
    eps: Tensor
    p: float
    box: Box
    streams: Streams
    gap: float = 0.0

    def __len__(self) -> int:
        return len(self.x)

    def at(self, *, stake: Tensor | None = None, eps: Tensor | None = None) -> Images:
        """The same images with other pixels at stake, or balls of another size."""
        return replace(
            self, stake=self.stake if stake is None else stake, eps=self.eps if eps is None else eps
        )


def pixel_pgd(
    source: Source,
    images: Images,
    *,
    loss: PixelLoss,
    steps: int,
    start: Tensor | None = None,
    random: bool = False,
    purpose: str,
) -> Tensor:
    """Per image, the visited point at which fewest of the pixels at stake hold: (rows, *shape).

    Steepest ascent of ``loss``; the step falls from a quarter of the ball's size to nothing along half
    a cosine. Among points where equally many hold, the one of lowest mean margin. The result lies
    in ball and box exactly. ``random``: start at distance eps instead of at the image.
    """
    p, box, x = images.p, images.box, images.x
    point = x if start is None else start
    if random:
        draw = images.streams.uniform if math.isinf(p) else images.streams.normal
        point = random_start(x, draw(x.shape[1:], f"{purpose}/start").to(x), images.eps, p, box)
    best, fewest = x, torch.full_like(images.eps, math.inf)

    def left(logs: Tensor) -> Tensor:
        pixels = (holds(logs, images.label, images.gap) & images.stake).flatten(1).sum(1)
        gap = (score_gap(logs, images.label) * images.stake).flatten(1).sum(1)
        return pixels + 0.5 * torch.tanh(gap / images.stake.flatten(1).sum(1).clamp_min(1))

    for step in range(steps):
        done = step / steps

        def objective(logs: Tensor, rows: slice, done: float = done) -> Tensor:
            label, stake = images.label[rows], images.stake[rows]
            return loss(logs, label, stake, holds(logs, label, images.gap), done)

        logs, gradient = source.ascend(point, objective, f"{purpose}/{step}")
        best, fewest = keep(best, fewest, point, left(logs))
        size = column(images.eps * (0.25 * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))), x)
        point = project(x, point + size * steepest(gradient, p), images.eps, p, box)
    logs, _ = source.ascend(point, lambda logs, rows: logs.flatten(1).sum(1) * 0, f"{purpose}/{steps}")
    best, _ = keep(best, fewest, point, left(logs))
    return inside(x, best, images.eps, p, box)
