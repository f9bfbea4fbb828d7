"""Random numbers of an estimate, apart from all others that were drawn from the same seed.

``torch.manual_seed(0)`` before training and a generator seeded with 0 afterwards give the same numbers: noise
on the weights would then be the numbers that the weights began as, signs those that made the points.
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """The generator of one purpose: its own numbers for every (seed, purpose), the same on every machine."""
    digest = hashlib.sha256(f"analysis {purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
