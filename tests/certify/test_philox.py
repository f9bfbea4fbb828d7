"""The counter-based generator: published vectors, one stream on every path, no collisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certify.errors import InvalidSetting
from certify.noise.philox import WordStream, _philox, device_words, split_seed

ONES = (1 << 64) - 1
PI = (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89)
KEY = (0x452821E638D01377, 0xBE5466CF34E90C6C)

#: kat_vectors of the Random123 distribution, philox4x64 with 10 rounds: counter, key, output.
KNOWN = [
    (
        (0,) * 4,
        (0,) * 2,
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (ONES,) * 4,
        (ONES,) * 2,
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (PI, KEY, (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]

seeds = st.integers(0, (1 << 128) - 1)
ids = st.one_of(st.integers(0, 20), st.integers(0, (1 << 63) - 1))


def on_torch(seed: int, purpose: int, id: int, start: int, count: int, blocks: int) -> np.ndarray:
    samples = torch.arange(start, start + count)
    words = device_words(seed, purpose, torch.full((count,), id), samples, blocks)
    return words.numpy().view(np.uint64)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_torch_rounds_give_the_published_vectors(counter, key, output):
    signed = tuple(torch.tensor(np.array([c], dtype=np.uint64).view(np.int64)) for c in counter)
    got = tuple(int(w) & ONES for w in _philox(signed, key))
    assert got == output


@pytest.mark.parametrize(("counter", "key", "output"), [KNOWN[0]])
def test_numpy_stream_starts_at_the_counter_it_is_given(counter, key, output):
    """All zero counter and key: sample 0 of input 0; the step back by one block crosses 256 bits."""
    assert tuple(int(w) for w in WordStream(0).draw(0, 0, 1, 1)[0]) == output


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 5), ids, st.integers(0, 1 << 40), st.integers(1, 5), st.integers(1, 6))
def test_both_generators_give_the_same_words(seed, purpose, id, start, count, blocks):
    ours = WordStream(seed, purpose).draw(id, start, count, blocks)
    assert np.array_equal(ours, on_torch(seed, purpose, id, start, count, blocks))


@settings(max_examples=40, deadline=None)
@given(seeds, ids, st.integers(0, 1000), st.integers(2, 9), st.integers(1, 5), st.data())
def test_a_sample_owns_its_words_however_a_run_is_cut(seed, id, start, count, blocks, data):
    cut = data.draw(st.integers(1, count - 1))
    stream = WordStream(seed)
    whole = stream.draw(id, start, count, blocks)
    stream.draw(id + 1, 3, 2, blocks)  # other work in between leaves no trace
    parts = [stream.draw(id, start + cut, count - cut, blocks), stream.draw(id, start, cut, blocks)]
    assert np.array_equal(whole, np.concatenate(parts[::-1]))


def test_no_word_is_used_twice():
    """Seeds, purposes, inputs and samples side by side: 64-bit words all differ (2^-30 by chance)."""
    words = [
        WordStream(seed, purpose).draw(id, start, 4, 2)
        for seed in (0, 1, 5, 5 + (1 << 32), 5 + (1 << 64))
        for purpose in (0, 1, 2)
        for id in (0, 1, 2, 1 << 32, (1 << 63) - 1)
        for start in (0, 4, 1 << 32)
    ]
    flat = np.concatenate([w.ravel() for w in words])
    assert len(np.unique(flat)) == len(flat)


def test_every_bit_of_the_seed_counts():
    first = {tuple(WordStream(1 << bit).draw(3, 0, 1, 1)[0].tolist()) for bit in range(128)}
    assert len(first) == 128
    assert split_seed((1 << 128) - 1) == (ONES, ONES)


@pytest.mark.parametrize("seed", [-1, 1 << 128, 0.5, "7", None, True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InvalidSetting, match="seed"):
        WordStream(seed)


@pytest.mark.parametrize(("id", "start"), [(-1, 0), (0, -1), (1 << 64, 0), (0, (1 << 64) - 2)])
def test_counters_beyond_their_field_are_refused(id, start):
    with pytest.raises(InvalidSetting, match="random words"):
        WordStream(0).draw(id, start, 2, 2)


def test_bits_are_balanced():
    """Each of 64 bit positions over 40,000 words; false alarm below 64 * 2e-6."""
    words = WordStream(123).draw(9, 0, 1000, 10).ravel()
    ones = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).sum(0)
    assert np.abs(ones - len(words) / 2).max() < 4.8 * np.sqrt(len(words)) / 2
