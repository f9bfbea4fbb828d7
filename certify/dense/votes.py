"""The base segmenter as a fixed function of one image, and its votes pixel by pixel.

What is certified at a pixel is the class with the largest score there when the image is evaluated
*alone*. A batch is only a faster way to learn it: where any pixel's two best scores lie closer than
the measured difference between batched and single evaluation (relative to the image's largest score),
the whole sample is evaluated again by itself. So is a sample with a score that is not finite; there,
a pixel with such a score votes for no class. Votes do not depend on batch size, packing or position.

A large image has some pixel too close to call in nearly every sample; then a batch buys nothing, and
``choose_batch_size`` finds that samples one by one, which need no second look, are fastest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.answers import check_output
from certify.noise import Noise
from certify.sampling.classifier import BaseClassifier

#: Scores that a batch may hold (classes x height x width x images): half a gibibyte in fp32.
MOST_SCORES = 1 << 27
_SIZES = (1, 4, 16, 64)


class BaseSegmenter(BaseClassifier):
    """Votes of a model that maps (batch, channels, height, width) to (batch, num_classes, height, width).

    Model, device, dtype and errors as for ``BaseClassifier``; ``spatial``: (height, width) of the scores.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        num_classes: int,
        spatial: Sequence[int],
        device: torch.device | str | None = None,
        dtype: str = "fp32",
        compiled: bool = False,
    ) -> None:
        super().__init__(model, num_classes=num_classes, device=device, dtype=dtype, compiled=compiled)
        self.spatial = tuple(spatial)

    def check(self, out: Any, batch: int) -> None:
        check_output(out, batch=batch, num_classes=self.num_classes, spatial=self.spatial)

    def scale_of(self, out: Tensor) -> Tensor:
        """The largest score of each image, whatever its pixel: rounding errors are of its size."""
        return out.abs().amax(dim=(1, 2, 3), keepdim=True)

    def read(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Class of every pixel (batch, height * width) and the samples in doubt (batch,), from raw scores.

        ``num_classes`` stands for a pixel with a score that is not finite. Samples in doubt are to be
        asked again with ``vote_alone``.
        """
        best, labels = out.max(dim=1, keepdim=True)
        second = out.scatter(1, labels, -torch.inf).amax(dim=1)
        finite = out.isfinite().all(dim=1)
        close = best[:, 0] - second <= self.tolerance * self.scale(out)[:, 0]
        doubt = (close | ~finite).flatten(1).any(dim=1)
        return torch.where(finite, labels[:, 0], self.num_classes).flatten(1), doubt

    def vote_alone(self, x: Tensor) -> Any:
        """The classes (height * width) of one image (1, *shape), which define the segmenter."""
        return self.read(self.logits_alone(x))[0][0].cpu().numpy()


@dataclass(frozen=True)
class PixelVotes:
    """One vote per pixel and sample; the last class counts pixels whose scores were not finite."""

    num_classes: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_classes + 1, self.height, self.width)

    def read(self, classifier: BaseClassifier, out: Tensor) -> tuple[Tensor, Tensor]:
        """Flat cells (batch, height * width) that each sample adds one to, and the samples in doubt."""
        labels, doubt = classifier.read(out)
        return labels * (self.height * self.width) + torch.arange(
            labels.shape[1], device=labels.device
        ), doubt

    def statistic(self, counts: np.ndarray) -> np.ndarray:
        return counts[:-1]


def choose_batch_size(segmenter: BaseSegmenter, noise: Noise, image: Tensor, *, least: int = 3) -> int:
    """The batch size that costs least per sample, second looks at samples in doubt included.

    Only speed depends on the answer. No size needs more than ``MOST_SCORES`` scores at once.
    """
    scores = segmenter.num_classes * int(np.prod(segmenter.spatial))
    tally = PixelVotes(segmenter.num_classes, *segmenter.spatial)
    base = noise.prepare(image, device=segmenter.device)
    best, best_cost = 1, float("inf")
    for size in (s for s in _SIZES if s == 1 or s * scores <= MOST_SCORES):
        buffer = torch.empty(size, *image.shape, device=segmenter.device)
        times = []
        for attempt in range(least):
            began = time.perf_counter()
            noise.fill(buffer, bases=[base], ids=[0], starts=[0], counts=[size], seed=attempt)
            out = segmenter.logits(buffer) if size > 1 else segmenter.logits_alone(buffer)
            for row in tally.read(segmenter, out)[1].nonzero().flatten().tolist() if size > 1 else ():
                segmenter.vote_alone(buffer[row : row + 1])
            times.append((time.perf_counter() - began) / size)
        if min(times[1:]) < best_cost:
            best, best_cost = size, min(times[1:])
    return best
