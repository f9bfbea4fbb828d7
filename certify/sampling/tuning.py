"""Pick the batch size that costs least per sample on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from certify.noise import Noise
    from certify.sampling.classifier import BaseClassifier

CPU_SIZES = (64, 128, 256)
CUDA_SIZES = (256, 512, 1024, 2048, 4096)
#: Stop trying larger batches once a single one takes this long: tuning must not cost the run.
PATIENCE_S = 2.0


def choose_batch_size(classifier: BaseClassifier, noise: Noise, examples: Tensor) -> int:
    """The fastest of a few batch sizes, timed on the real model and real noise.

    Only speed depends on the answer: votes are the same for every batch size. On CUDA a size
    that does not fit in memory ends the search.
    """
    on_cuda = classifier.device.type == "cuda"
    base = noise.prepare(examples[0], device=classifier.device)
    best, best_cost = 1, float("inf")
    for size in CUDA_SIZES if on_cuda else CPU_SIZES:
        try:
            cost = _seconds_per_sample(classifier, noise, base, examples.shape[1:], size)
        except torch.cuda.OutOfMemoryError:
            break
        if cost < best_cost:
            best, best_cost = size, cost
        if cost * size > PATIENCE_S:
            break
    return best


def _seconds_per_sample(classifier, noise, base, shape, size: int) -> float:
    buffer = torch.empty(size, *shape, device=classifier.device)
    times = []
    for attempt in range(3):
        began = time.perf_counter()
        noise.fill(buffer, bases=[base], ids=[0], starts=[0], counts=[size], seed=attempt)
        classifier.votes(buffer)[1].any().item()
        times.append(time.perf_counter() - began)
    return min(times[1:]) / size
