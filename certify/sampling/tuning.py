"""Pick the batch size and the number of lanes that cost least per sample on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from certify.sampling.engine import Request, Sampler
from certify.sampling.lanes import keeps_to_itself, lanes_worth_trying

if TYPE_CHECKING:
    from certify.noise import Noise
    from certify.sampling.classifier import BaseClassifier

CPU_SIZES = (64, 128, 256, 512, 2048)
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


def choose_lanes(classifier: BaseClassifier, noise: Noise, example: Tensor, batch_size: int) -> int:
    """As many lanes as torch has threads where that is faster than one batch after the other, else 1."""
    lanes = lanes_worth_trying(classifier.model)
    if lanes < 2 or not (copies := classifier.copies(lanes)):
        return 1
    rows = example.to(classifier.device).expand(batch_size, *example.shape).clone()
    if not keeps_to_itself(classifier.logits, rows):
        return 1
    plain, wide = (
        Sampler(classifier, noise, seed=0, shape=example.shape, batch_size=batch_size, lanes=c)
        for c in ((), copies)
    )
    request = [Request(0, noise.prepare(example, device=classifier.device), 0, 4 * lanes * batch_size)]
    times: dict[Sampler, list[float]] = {plain: [], wide: []}
    for _ in range(3):
        for sampler, taken in times.items():
            began = time.perf_counter()
            sampler.counts(request)
            taken.append(time.perf_counter() - began)
            if taken[-1] > PATIENCE_S:  # so slow a model keeps all cores busy by itself
                return 1
    return lanes if min(times[wide]) < min(times[plain]) else 1


def _seconds_per_sample(classifier, noise, base, shape, size: int) -> float:
    buffer = torch.empty(size, *shape, device=classifier.device)
    times = []
    for attempt in range(3):
        began = time.perf_counter()
        noise.fill(buffer, bases=[base], ids=[0], starts=[0], counts=[size], seed=attempt)
        classifier.votes(buffer)[1].any().item()
        times.append(time.perf_counter() - began)
    return min(times[1:]) / size
