"""What is attacked: a segmenter or its smoothed version, with images and labels that were checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from attacks.suite import _base_of, _like, _placed
from certify.contract import check_inputs, check_output
from certify.dense.votes import BaseSegmenter
from certify.errors import InvalidInput, InvalidModel


@dataclass(frozen=True, eq=False)
class Target:
    """The network under attack on its device, images ``x`` and label maps ``y`` (None: none given)."""

    model: Any
    base: Callable[[Tensor], Tensor]
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
            self.base, num_classes=self.num_classes, spatial=self.x.shape[2:], device=self.x.device,
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
    base = _placed(_base_of(model) if smoothed else model, model.device if smoothed else device)
    with untouched(base):
        like = _like(base)
        if smoothed:
            like = like.to(model.device)
        probe, _ = check_inputs(x[:1], None, bounds=bounds, num_classes=2)
        if probe.dim() != 4:
            raise InvalidInput(
                f"the inputs have shape {tuple(probe.shape)}, which are no images",
                why="a segmentation gives a class to every pixel of (n, channels, height, width)",
                remedy="pass images with channels first, or use attacks.attack for a classifier",
            )
        classes = _classes(base, probe.to(like), model.num_classes if smoothed else None)
        images, labels = check_inputs(x, y, bounds=bounds, num_classes=classes, dense=True)
        images = images.to(like)
        images = model.to_grid(images) if smoothed else images
        yield Target(model, base, smoothed, classes, images, labels)


def is_smoothed_segmentation(model: Any) -> bool:
    """Whether ``model`` is a smoothed segmentation (``certify.SmoothedSegmentation`` or its interface)."""
    return all(hasattr(model, name) for name in ("votes", "plain", "to_grid", "sigma", "num_classes"))


def _classes(base: Callable[[Tensor], Tensor], probe: Tensor, declared: int | None) -> int:
    """The number of classes that the model answers with; refuses a model that cannot be attacked."""
    with torch.enable_grad():
        scores = base(probe.detach().requires_grad_())
    if not isinstance(scores, Tensor) or scores.dim() != 4 or scores.shape[1] < 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidModel(
            f"the model answers {shape} to one image of shape {tuple(probe.shape)}",
            why="an attack on pixels needs scores (batch, classes, height, width), two classes or more",
            remedy="return one map of scores per class, or use attacks.attack for a classifier",
        )
    classes = declared or scores.shape[1]
    check_output(scores, batch=1, num_classes=classes, spatial=probe.shape[2:])
    if not scores.requires_grad:
        raise InvalidModel(
            "the model gives no gradients",
            why="its scores come from outside torch or were computed under no_grad",
            remedy="convert it to torch (ONNX: onnx2torch.convert); every attack on pixels follows gradients",
        )
    return classes
