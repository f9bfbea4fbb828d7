"""Every law: the same bits in every batch, the law it claims, and an honest label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certify.errors import InvalidSetting
from certify.noise import NAMES, make_noise, standard_normal
from certify.noise import fill as noise_fill
from certify.noise.fill import fill_rows
from certify.noise.philox import WordStream, device_words

IDEAL = {
    "gaussian": stats.norm(scale=0.5),
    "anisotropic": stats.norm(scale=0.5),
    "uniform": stats.uniform(-0.5 * 3**0.5, 3**0.5),
    "laplace": stats.laplace(scale=0.5 / 2**0.5),
}
FLOATS = tuple(IDEAL)


def law(name: str, sigma: float = 0.5):
    value = np.full((1, 1, 1), sigma) if name == "anisotropic" else sigma
    return make_noise(name, sigma=value, grid=1 / 255, bounds=(0.0, 1.0))


def image(shape, id: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(id)
    return torch.randint(0, 256, shape, generator=generator) / 255


def one_by_one(noise, shape, id: int, start: int, count: int, seed: int) -> torch.Tensor:
    base, rows = noise.prepare(image(shape, id)), []
    for sample in range(start, start + count):
        out = torch.empty(1, *shape)
        noise.fill(out, bases=[base], ids=[id], starts=[sample], counts=[1], seed=seed)
        rows.append(out)
    return torch.cat(rows)


@st.composite
def packings(draw):
    shape = draw(st.sampled_from([(1, 1, 1), (1, 1, 3), (1, 5, 5), (1, 28, 28), (3, 8, 9)]))
    items = draw(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=5)
    )
    return shape, items


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(packings(), st.integers(0, (1 << 128) - 1), st.sampled_from([1, 900, 1 << 17]))
def test_bits_do_not_depend_on_the_packing(name, packing, seed, piece):
    shape, items = packing
    noise = law(name)
    out = torch.empty(sum(n for _, _, n in items), *shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_fill, "PIECE", piece)
        noise.fill(
            out,
            bases=[noise.prepare(image(shape, id)) for id, _, _ in items],
            ids=[id for id, _, _ in items],
            starts=[start for _, start, _ in items],
            counts=[n for _, _, n in items],
            seed=seed,
        )
    apart = torch.cat([one_by_one(noise, shape, *item, seed) for item in items])
    assert torch.equal(out.view(torch.int32), apart.view(torch.int32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 37, 41)])
def test_large_batches_on_threads_hold_the_same_bits(name, shape, monkeypatch):
    monkeypatch.setattr(noise_fill, "ALONE", 0)
    monkeypatch.setattr(noise_fill, "PIECE", 10_000)
    noise = law(name)
    bases = [noise.prepare(image(shape, id)) for id in (4, 5)]
    whole = torch.empty(150, *shape)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    noise.fill(whole, bases=bases, ids=[4, 5], starts=[10, 0], counts=[70, 80], seed=9)
    torch.set_num_threads(before)
    for row in (0, 1, 33, 69, 70, 149):
        id, sample = (4, 10 + row) if row < 70 else (5, row - 70)
        assert torch.equal(whole[row], one_by_one(noise, shape, id, sample, 1, 9)[0])


@pytest.mark.parametrize("name", FLOATS)
def test_law(name):
    """Kolmogorov-Smirnov on 300,000 draws, mean and variance; false alarm below 1e-6 each."""
    noise = law(name)
    out = torch.empty(300, 1, 25, 40)
    zero = noise.prepare(torch.zeros(1, 25, 40))
    noise.fill(out, bases=[zero], ids=[0], starts=[0], counts=[300], seed=31)
    draws = out.double().numpy().ravel()
    assert stats.kstest(draws, IDEAL[name].cdf).pvalue > 1e-6
    assert abs(draws.mean()) < 4.9 * 0.5 / np.sqrt(draws.size)
    assert abs(np.mean(draws**2) / 0.25 - 1) < 4.9 * np.sqrt(5 / draws.size)
    for pairs in (draws[1:] * draws[:-1], draws[1000:] * draws[:-1000], draws[500:] * draws[:-500]):
        assert abs(pairs.mean()) / 0.25 < 4.9 / np.sqrt(pairs.size)


def test_normal_tails():
    """Draws beyond 3, 4 and 4.5 deviations among 3,000,000; false alarm 1e-6 each."""
    out = torch.empty(3000, 1000)
    standard_normal(out, ids=[0], starts=[0], counts=[3000], seed=77)
    for k in (3.0, 4.0, 4.5):
        beyond = int((out.abs() > k).sum())
        assert stats.binomtest(beyond, out.numel(), 2 * stats.norm.sf(k)).pvalue > 1e-6


@pytest.mark.parametrize("name", FLOATS)
def test_device_path_agrees_to_float_rounding(name):
    """The same words; torch's log, sin and cos may differ from numpy's in the last bits."""
    noise = law(name)
    shape, dim = (1, 7, 9), 63
    writer = noise.law(shape)
    blocks = -(-writer.words(dim) // 4)
    base = noise.prepare(image(shape, 1))
    words = device_words(6, 0, torch.full((50,), 1), torch.arange(50), blocks)
    theirs = writer.on_device(words, base.expand(50, -1), dim)
    out = torch.empty(50, *shape)
    noise.fill(out, bases=[base], ids=[1], starts=[0], counts=[50], seed=6)
    assert torch.allclose(out.flatten(1), theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("piece", [1, 200, 1 << 20])
@pytest.mark.parametrize("name", NAMES)
def test_packed_device_path_agrees(name, piece, monkeypatch):
    """The whole path a CUDA batch takes, run on the CPU: several inputs, cut into pieces."""
    monkeypatch.setattr(noise_fill, "DEVICE_PIECE", piece)
    noise, shape = law(name), (1, 6, 7)
    writer = noise._writer if name == "lattice" else noise.law(shape)
    items = [
        (noise.prepare(image(shape, id)), id, start, n) for id, start, n in [(2, 0, 5), (9, 30, 1), (4, 7, 8)]
    ]
    theirs = torch.empty(14, 42)
    noise_fill._fill_device(writer, theirs, items, 12, 0, noise_fill.blocks_per_sample(writer, 42))
    ours = torch.empty(14, *shape)
    bases, ids, starts, counts = map(list, zip(*items, strict=True))
    noise.fill(ours, bases=bases, ids=ids, starts=starts, counts=counts, seed=12)
    if name == "lattice":
        assert torch.equal(ours.flatten(1), theirs)
    assert torch.allclose(ours.flatten(1), theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_cuda_draws_the_same_noise(name):
    noise, shape = law(name), (3, 32, 32)
    filled = []
    for device in ("cpu", "cuda"):
        out = torch.empty(64, *shape, device=device)
        bases = [noise.prepare(image(shape, id), device=device) for id in (0, 1)]
        noise.fill(out, bases=bases, ids=[0, 1], starts=[5, 0], counts=[40, 24], seed=1 << 100)
        filled.append(out.cpu())
    if name == "lattice":
        assert torch.equal(*filled)
    assert torch.allclose(*filled, atol=4e-6, rtol=4e-6)


def test_seeds_that_agree_in_32_bits_differ():
    noise, x = law("lattice"), image((1, 8, 8), 0)
    draws = []
    for seed in (5, 5 + (1 << 32), 5 + (1 << 64), 5 + (1 << 127)):
        out = torch.empty(4, 1, 8, 8)
        noise.fill(out, bases=[noise.prepare(x)], ids=[0], starts=[0], counts=[4], seed=seed)
        draws.append(out)
    for i, a in enumerate(draws):
        for b in draws[i + 1 :]:
            assert not torch.equal(a, b)
            assert abs(float(((a - x) * (b - x)).mean())) < 4.9 * 0.25 / 16


@pytest.mark.parametrize("name", NAMES)
def test_purposes_and_inputs_have_noise_of_their_own(name):
    shape = (1, 20, 20)
    noise = law(name)
    base = noise.prepare(torch.zeros(shape))
    draws = []
    for keyed, id in [(noise, 0), (noise, 1), (noise.for_purpose(1), 0), (noise.for_purpose(2), 0)]:
        out = torch.empty(50, *shape)
        keyed.fill(out, bases=[base], ids=[id], starts=[0], counts=[50], seed=1)
        draws.append(out.numpy().ravel())
    corr = np.corrcoef(draws)[np.triu_indices(4, 1)]
    assert np.abs(corr).max() < 4.9 / np.sqrt(draws[0].size)


def test_anisotropic_scales_each_channel():
    noise = make_noise("anisotropic", sigma=np.array([0.1, 1.0]).reshape(2, 1, 1))
    out = torch.empty(200, 2, 30, 30)
    noise.fill(out, bases=[noise.prepare(torch.zeros(2, 30, 30))], ids=[0], starts=[0], counts=[200], seed=0)
    stds = out.double().std(dim=(0, 2, 3)).numpy()
    assert np.allclose(stds, [0.1, 1.0], rtol=4.9 / np.sqrt(2 * 180_000))
    with pytest.raises(InvalidSetting, match="broadcast"):
        noise.fill(torch.empty(1, 3, 4, 4), bases=[torch.zeros(48)], ids=[0], starts=[0], counts=[1], seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_label_settings_and_distance(name):
    noise = law(name)
    assert noise.name == noise.settings()["name"] == name
    assert noise.exact == (name == "lattice")
    assert ("exact arithmetic only" in noise.label) == (name != "lattice")
    assert noise.tv(784) < 1e-12
    assert (noise.tv(784) > 0) == (name == "lattice")


def test_unknown_laws_and_misplaced_arrays_are_refused():
    with pytest.raises(InvalidSetting, match="lattice"):
        make_noise("white", sigma=1.0)
    with pytest.raises(InvalidSetting, match="anisotropic"):
        make_noise("gaussian", sigma=[1.0, 2.0])


def test_a_batch_of_the_wrong_size_is_refused():
    noise = law("gaussian")
    with pytest.raises(ValueError, match="rows"):
        fill_rows(
            noise.law((4,)), torch.empty(3, 4), bases=None, ids=[0], starts=[0], counts=[2], seed=0, purpose=0
        )


def test_stream_reuse_leaves_no_trace():
    stream = WordStream(8)
    first = stream.draw(1, 2, 3, 4).copy()
    stream.draw(5, 6, 7, 8)
    assert np.array_equal(first, stream.draw(1, 2, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOATS)
def test_law_of_many_draws(name):
    """Chi-square over 2,000 equal cells of twenty million draws; false alarm 1e-6."""
    noise = law(name)
    out = torch.empty(1000, 1, 100, 200)
    noise.fill(out, bases=[torch.zeros(20_000)], ids=[3], starts=[0], counts=[1000], seed=2)
    cells = np.floor(IDEAL[name].cdf(out.numpy().ravel().astype(np.float64)) * 2000).clip(0, 1999)
    observed = np.bincount(cells.astype(int), minlength=2000)
    assert stats.chisquare(observed).pvalue > 1e-6
