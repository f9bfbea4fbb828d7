"""Before the first sample: on which rows the model is tried, and whether it is what it was the last time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from certify.noise.philox import WordStream
from certify.sampling.audit import still_the_same
from certify.sampling.classifier import BaseClassifier, Probe

#: Noisy copies the probe takes, from as many different inputs; few inputs give this many each.
ROWS, COPIES = 32, 4
#: Purpose of the random words that choose among inputs.
_PURPOSE = 15


def among(inputs: int, seed: int, most: int = ROWS) -> list[int]:
    """Which of so many inputs the probe draws from: all, or ``most`` at random, by words of the seed."""
    if inputs <= most:
        return list(range(inputs))
    words = WordStream(seed, _PURPOSE).draw(0, 0, inputs, 1)[:, 0]
    return sorted(sorted(range(inputs), key=lambda i: int(words[i]))[:most])


def noisy_rows(noisy: Callable[..., Tensor], inputs: Tensor, *, seed: int, copies: int = COPIES) -> Tensor:
    """Noisy copies of each input: ``copies`` of a few, fewer of many."""
    each = min(copies, max(1, ROWS // len(inputs)))
    return torch.cat([noisy(row, each, seed=seed, id=0) for row in inputs])


def probed(
    classifier: BaseClassifier,
    probe: Probe | None,
    rows: Callable[[], Tensor],
    batch_size: int,
    *,
    lanes: Sequence[BaseClassifier] = (),
) -> Probe:
    """A probe that holds for this call: the last one where torch computes as it did then, else a new one.

    The model is asked for rows of the last probe in any case. Raises NondeterministicModel.
    """
    if probe is not None:
        still_the_same(classifier, probe.anchors)
        if probe.holds(classifier.device):
            return probe
    sizes = {min(size, batch_size) for size in (7, 32, batch_size)}
    return classifier.probe(rows(), tuple(sorted(sizes)), lanes=lanes)


__all__ = ["COPIES", "ROWS", "among", "noisy_rows", "probed"]
