"""Random words from a counter: which word belongs to which sample is fixed, not drawn in turn.

Philox 4x64-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011. A bijection of 256-bit counters under a 128-bit key, so two different
counters never share a block. Here

- the key is the run seed, all 128 bits of it, neither hashed nor truncated;
- the counter is (block within the sample + sample * blocks per sample, 0, input id, purpose).

Every (seed, purpose, input, sample) therefore owns its words whatever the batch, the thread,
the shard or the device, and consecutive samples of one input lie side by side, so that one
call of numpy's generator covers a run of them. ``device_words`` computes the same integers
with torch operations where the samples are needed on an accelerator.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from certify.errors import InvalidSetting

NAME = "philox4x64-10"
SEED_LIMIT = 1 << 128
WORDS_PER_BLOCK = 4

_WORD, _HALF = (1 << 64) - 1, (1 << 32) - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_EMPTY = np.zeros(4, dtype=np.uint64)


class WordStream:
    """The words of one run seed and one purpose, on the CPU (numpy's Philox).

    Not safe to share between threads; each thread makes its own.
    Raises InvalidSetting for a seed that is not an integer in [0, 2**128).
    """

    def __init__(self, seed: int, purpose: int = 0) -> None:
        self._key = np.array(split_seed(seed), dtype=np.uint64)
        self._purpose = purpose
        self._bits = _scratch()

    def draw(self, id: int, start: int, count: int, blocks: int) -> np.ndarray:
        """Words of samples ``start .. start + count`` of one input: uint64 ``(count, 4 * blocks)``."""
        first = start * blocks
        if not (start >= 0 and 0 <= id <= _WORD and first + count * blocks <= _WORD):
            raise InvalidSetting(
                f"sample {start} of input {id} has no random words",
                why="input ids and sample counters are unsigned 64-bit numbers",
                remedy="use ids in [0, 2**63) and fewer samples per input",
            )
        # numpy advances the counter before it computes a block: start one block earlier.
        counter = (first + (id << 128) + (self._purpose << 192) - 1) % (1 << 256)
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.frombuffer(counter.to_bytes(32, "little"), dtype="<u8").astype(np.uint64),
                "key": self._key,
            },
            "buffer": _EMPTY,
            "buffer_pos": WORDS_PER_BLOCK,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._bits.random_raw(count * blocks * WORDS_PER_BLOCK).reshape(count, -1)


_THREAD = threading.local()


def _scratch() -> np.random.Philox:
    """This thread's generator object. It carries nothing over: every draw sets its whole state."""
    if not hasattr(_THREAD, "generator"):
        _THREAD.generator = np.random.Philox(0)
    return _THREAD.generator


def device_words(seed: int, purpose: int, ids: Tensor, samples: Tensor, blocks: int) -> Tensor:
    """The same words as ``WordStream`` by torch operations on the tensors' device.

    ``ids`` and ``samples`` are int64 ``(rows,)``; the result is int64 ``(rows, 4 * blocks)``,
    each entry the bit pattern of the unsigned word.
    """
    block = torch.arange(blocks, device=ids.device)
    zero = torch.zeros((), dtype=torch.int64, device=ids.device)
    counter = (samples[:, None] * blocks + block, zero, ids[:, None], zero + _signed(purpose))
    return torch.stack(_philox(counter, split_seed(seed)), dim=-1).flatten(1)


def split_seed(seed: int) -> tuple[int, int]:
    """The two 64-bit key words of a run seed, low word first. Raises InvalidSetting."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < SEED_LIMIT:
        raise InvalidSetting(
            f"seed {seed!r} cannot key the noise",
            why="the generator takes the seed itself as its 128-bit key",
            remedy="use a whole number from 0 to 2**128 - 1, such as secrets.randbits(128)",
        )
    value = seed.__index__()
    return value & _WORD, value >> 64


def _philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds on (c0, c1, c2, c3). Both halves of a round run as one: on a GPU calls are what costs."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    multiplied, mixed = torch.stack([c0, c2]), torch.stack([c1, c3])

    def pairs(rows: list[tuple[int, ...]]) -> Tensor:
        """One copy to the device: (rows, 2, 1, ...), as signed words."""
        both = torch.tensor([[_signed(v) for v in row] for row in rows], device=mixed.device)
        return both.view(len(rows), 2, *[1] * c0.dim())

    whole, upper, lower = pairs(
        [_MULTIPLIERS, tuple(b >> 32 for b in _MULTIPLIERS), tuple(b & _HALF for b in _MULTIPLIERS)]
    )
    keys = pairs(
        [tuple((k + n * w) & _WORD for k, w in zip(key, _WEYL, strict=True)) for n in range(_ROUNDS)]
    )
    for round_key in keys:
        high = _high_words(multiplied, upper, lower)
        low = multiplied * whole
        # c0 becomes high(c2) ^ c1 ^ k0, c2 becomes high(c0) ^ c3 ^ k1; c1 and c3 are the low words.
        multiplied = high.flip(0).bitwise_xor_(mixed).bitwise_xor_(round_key)
        mixed = low.flip(0)
    return multiplied[0], mixed[0], multiplied[1], mixed[1]


def _high_words(a: Tensor, b_high: Tensor, b_low: Tensor) -> Tensor:
    """High words of the 128-bit products, from 32-bit limbs (int64 wraps modulo 2**64)."""
    a_high, a_low = _upper_half(a), a & _HALF
    # Each partial sum stays below 2**64, so nothing is lost to the wrap.
    middle = (a_high * b_low).add_(_upper_half(a_low * b_low))
    cross = a_low.mul_(b_high).add_(middle & _HALF)
    return a_high.mul_(b_high).add_(_upper_half(middle)).add_(_upper_half(cross))


def _upper_half(a: Tensor) -> Tensor:
    # torch shifts int64 arithmetically: mask the copies of the sign bit away.
    return (a >> 32).bitwise_and_(_HALF)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
