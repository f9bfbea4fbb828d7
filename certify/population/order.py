"""Orders and subsets of inputs that depend on a seed and the inputs' ids, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def keyed_order(ids: Iterable[int], seed: int | str, purpose: str) -> list[int]:
    """The ids by the SHA-256 of "seed purpose id": a random order that anyone can compute again."""

    def key(id: int) -> bytes:
        return hashlib.sha256(f"{seed} {purpose} {id}".encode()).digest()

    return sorted(ids, key=key)
