"""What is attacked: a segmenter or its smoothed version, with images and labels that were checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.budget import Budget
from attacks.dense.judge import NetworkJudge, PixelJudge, SmoothedJudge
from attacks.dense.sources import MOST_PIXELS, Network, Smoothed, Source
from attacks.geometry import Box
from attacks.guard import untouched
from attacks.oracle import Oracle
from attacks.smoothed import on_lattice, sigma_of
from attacks.streams import Streams
from attacks.suite import _base_of
from attacks.under_attack import UnderAttack, placed
from certify.contract import check_inputs
from certify.dense.votes import BaseSegmenter
from certify.errors import InvalidInput

_NO_GRADIENTS = (
    "convert it to torch (ONNX: onnx2torch.convert); there is no attack on pixels that only asks for scores"
)


@dataclass(frozen=True, eq=False)
class Target:
    """The network under attack on its device, images ``x`` and label maps ``y`` (None: none given)."""

    model: Any
    base: UnderAttack
    smoothed: bool
    num_classes: int
    x: Tensor
    y: Tensor | None

    def judge(self, p: float, box: Box, *, seed: int, budget: Budget, tries: int) -> PixelJudge:
        """The judge of this target's pixels."""
        if self.smoothed:
            return SmoothedJudge(
                self.model, p=p, box=box, seed=seed, samples=budget.confirm_samples, alpha=budget.alpha,
                tries=tries,
            )  # fmt: skip
        dtype = "fp64" if self.x.dtype == torch.float64 else "fp32"
        segmenter = BaseSegmenter(
            self.base.model, num_classes=self.num_classes, spatial=self.x.shape[2:], device=self.x.device,
            dtype=dtype,
        )  # fmt: skip
        return NetworkJudge(segmenter, p=p, box=box)

    def source(self, oracle: Oracle, streams: Streams, budget: Budget) -> Source:
        """Gradients of the pixels of the images of ``streams``; ``oracle`` counts their cost."""
        samples = torch.arange(len(streams.ids), device=self.x.device)
        if not self.smoothed:
            return Network(oracle, samples)
        return Smoothed(oracle, samples, streams, sigma=sigma_of(self.model), draws=budget.draws)

    def together(self, budget: Budget) -> int:
        """How many images are attacked side by side."""
        return max(1, min(budget.batch_size, MOST_PIXELS // self.x[0, 0].numel()))

    def candidate(self, x: Tensor, x_adv: Tensor, eps: Tensor, p: float) -> Tensor:
        """``x_adv`` where the target is defined, without leaving the ball."""
        return on_lattice(self.model.to_grid, x, x_adv, eps, p) if self.smoothed else x_adv

    def sizes(self, eps: Sequence[float]) -> Tensor:
        """One ball per image, rounded down: it must not grow when stored in single precision."""
        exact = torch.tensor(eps, dtype=torch.float64)
        stored = exact.to(self.x.dtype)
        stored = torch.where(stored.double() > exact, torch.nextafter(stored, 0 * stored), stored)
        return stored.to(self.x.device)


@contextmanager
def opened(model: Any, x: Any, y: Any, *, bounds: Any, device: Any = None) -> Iterator[Target]:
    """The checked target; the model is used in eval mode and given back untouched.

    Raises InvalidInput and InvalidModel, the latter for a model without gradients too.
    """
    smoothed = is_smoothed_segmentation(model)
    device = model.device if smoothed else device
    network = placed(_base_of(model) if smoothed else model, device)
    with untouched(network):
        base = UnderAttack(network, device=device)
        images, _ = check_inputs(x, None, bounds=bounds, num_classes=2)
        if images.dim() != 4:
            raise InvalidInput(
                f"the inputs have shape {tuple(images.shape)}, which are no images",
                why="a segmentation gives a class to every pixel of (n, channels, height, width)",
                remedy="pass images with channels first, or use attacks.attack for a classifier",
            )
        spatial, declared = tuple(images.shape[2:]), model.num_classes if smoothed else None
        first = base.place(images[:1])
        classes = base.check(first, spatial=spatial, classes=declared)
        base.check_gradients(first, remedy=_NO_GRADIENTS)
        _, labels = check_inputs(images, y, bounds=bounds, num_classes=classes, dense=True)
        images = base.place(images)
        images = model.to_grid(images) if smoothed else images
        yield Target(model, base, smoothed, classes, images, labels)


def is_smoothed_segmentation(model: Any) -> bool:
    """Whether ``model`` is a smoothed segmentation (``certify.SmoothedSegmentation`` or its interface)."""
    return all(hasattr(model, name) for name in ("votes", "plain", "to_grid", "sigma", "num_classes"))
