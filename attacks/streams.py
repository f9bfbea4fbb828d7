"""Random numbers that belong to an input, not to a batch.

Every draw is keyed by (seed, input id, purpose), so what an attack tries on one input
does not change with the batch it happens to be in. Draws are made on the CPU and then
moved: the same on every device. The global generators are never touched.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def confirmation_key(seed: int, *purpose: object) -> int:
    """The 128-bit key of the noise that confirms what was found: one for every seed and purpose.

    Nothing that is searched with draws from it: searches use torch's generators (``Streams``), a certificate
    the run's own seed and purpose 0. A confirmation's error probability is over this key, so over ``seed``.
    """
    text = "/".join(map(str, ("confirmation", *purpose, seed)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


class Streams:
    """The random numbers of one attack call on a set of inputs with the given ids."""

    def __init__(self, seed: int, ids: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self.seed = int(seed)
        self.ids = [int(i) for i in ids]
        self.device = torch.device(device)

    def subset(self, samples: Tensor) -> Streams:
        """The streams of the inputs at positions ``samples``, in that order."""
        return Streams(self.seed, [self.ids[i] for i in samples.tolist()], device=self.device)

    def generator(self, position: int, purpose: str) -> torch.Generator:
        """The generator of one input for one purpose."""
        return self._generator(self.ids[position], purpose)

    def uniform(self, shape: Sequence[int], purpose: str) -> Tensor:
        """(inputs, *shape) uniform on [0, 1)."""
        return self._draw(torch.rand, shape, purpose)

    def normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        """(inputs, *shape) standard normal."""
        return self._draw(torch.randn, shape, purpose)

    def shared(self, purpose: str) -> np.random.Generator:
        """A generator common to all inputs (it depends on the seed only)."""
        return np.random.default_rng(
            np.random.SeedSequence([self.seed & (2**63 - 1), zlib.crc32(purpose.encode())])
        )

    def _draw(self, draw, shape: Sequence[int], purpose: str) -> Tensor:
        out = torch.empty((len(self.ids), *shape))
        for row, key in zip(out, self.ids, strict=True):
            draw(tuple(shape), generator=self._generator(key, purpose), out=row)
        return out.to(self.device)

    def _generator(self, key: int, purpose: str) -> torch.Generator:
        words = [self.seed & (2**63 - 1), key & (2**63 - 1), zlib.crc32(purpose.encode())]
        state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) & (2**63 - 1))
