"""Writing noisy rows for many inputs into one batch: words from the counter, then a law.

A law turns random words into noisy rows, one row at a time in effect: no row's result depends
on which rows stand beside it. Here the rows of a batch are cut into pieces that fit the cache,
spread over torch's thread count on the CPU, or computed by torch operations on a device.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from certify.noise.philox import WORDS_PER_BLOCK, WordStream, device_words

#: Coordinates per piece: enough to outweigh the calls, few enough for the cache.
PIECE = 1 << 17
#: Coordinates per piece on a device, where words of a piece take 64 bits each in several copies.
DEVICE_PIECE = 1 << 24
#: Below this many coordinates (about 2 ms) one thread does it all: after a forward pass torch's
#: own threads keep the other cores busy waiting for longer than that.
ALONE = 1 << 19


@dataclass(frozen=True)
class Segment:
    """Rows ``low .. high`` of a piece: copies of ``base`` (flat, None for zero)."""

    low: int
    high: int
    base: Tensor | None


class Law(Protocol):
    """How random words become noisy rows of ``dim`` coordinates."""

    def words(self, dim: int) -> int:
        """Random 64-bit words one sample needs."""
        ...

    def write(self, words: np.ndarray, segments: Sequence[Segment], out: np.ndarray) -> None:
        """CPU: words uint64 (rows, >= words(dim)) to noisy rows float32 (rows, dim)."""
        ...

    def on_device(self, words: Tensor, base: Tensor | None, dim: int) -> Tensor:
        """Device: words int64 (rows, ...) and base (rows, dim) to noisy rows float32 (rows, dim)."""
        ...


def fill_rows(
    law: Law,
    out: Tensor,
    *,
    bases: Sequence[Tensor] | None,
    ids: Sequence[int],
    starts: Sequence[int],
    counts: Sequence[int],
    seed: int,
    purpose: int,
) -> None:
    """Write ``sum(counts)`` noisy rows into ``out`` (rows, *shape), float32 and contiguous.

    Item k is samples ``starts[k] .. starts[k] + counts[k]`` of input ``ids[k]``, whose prepared
    image is ``bases[k]``; without ``bases`` the rows are pure noise.
    """
    rows = out.view(len(out), -1)
    dim = rows.shape[1]
    blocks = blocks_per_sample(law, dim)
    items = [
        (None if bases is None else bases[k], int(ids[k]), int(starts[k]), int(counts[k]))
        for k in range(len(ids))
    ]
    if sum(item[3] for item in items) != len(rows):
        raise ValueError(f"{len(rows)} rows do not hold {sum(item[3] for item in items)} samples")
    if out.device.type != "cpu":
        return _fill_device(law, rows, items, seed, purpose, blocks)
    pieces = deque(_pieces(items, max(1, PIECE // dim)))
    work = partial(_fill_pieces, law, rows.numpy(), pieces, seed, purpose, blocks)
    threads = 1 if rows.numel() < ALONE else min(torch.get_num_threads(), len(pieces))
    helpers = [_pool(os.getpid(), threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def blocks_per_sample(law: Law, dim: int) -> int:
    """Counter blocks reserved for one sample: all runs of one law and shape agree on it."""
    return -(-law.words(dim) // WORDS_PER_BLOCK)


def _pieces(items, size: int):
    """(first row, [(base, id, start, count), ...]) of at most ``size`` rows each."""
    first, row, piece = 0, 0, []
    for base, id, start, count in items:
        while count:
            take = min(count, size - (row - first))
            piece.append((base, id, start, take))
            start, count, row = start + take, count - take, row + take
            if row - first == size:
                yield first, piece
                first, piece = row, []
    if piece:
        yield first, piece


def _fill_pieces(law: Law, target: np.ndarray, pieces: deque, seed: int, purpose: int, blocks: int) -> None:
    """Take pieces until none is left; several threads may do so at once."""
    stream = WordStream(seed, purpose)
    while True:
        try:
            first, piece = pieces.popleft()
        except IndexError:
            return
        drawn = [stream.draw(id, start, count, blocks) for _, id, start, count in piece]
        words = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
        segments, low = [], 0
        for base, _, _, count in piece:
            segments.append(Segment(low, low + count, base))
            low += count
        law.write(words, segments, target[first : first + low])


def _fill_device(law: Law, rows: Tensor, items, seed: int, purpose: int, blocks: int) -> None:
    for first, piece in _pieces(items, max(1, DEVICE_PIECE // rows.shape[1])):
        counts = np.array([count for *_, count in piece])
        ids = np.repeat(np.array([id for _, id, _, _ in piece], dtype=np.int64), counts)
        samples = np.concatenate([np.arange(s, s + n, dtype=np.int64) for _, _, s, n in piece])
        words = device_words(
            seed,
            purpose,
            torch.from_numpy(ids).to(rows.device),
            torch.from_numpy(samples).to(rows.device),
            blocks,
        )
        base = None
        if piece[0][0] is not None:
            slots = torch.from_numpy(np.repeat(np.arange(len(piece)), counts)).to(rows.device)
            base = torch.stack([b for b, *_ in piece])[slots]
        rows[first : first + len(words)] = law.on_device(words, base, rows.shape[1])


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by the process: threads do not survive a fork.
    return ThreadPoolExecutor(threads, thread_name_prefix="certify-noise")
