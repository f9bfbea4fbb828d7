"""Counts and records do not depend on how the work was cut up."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.errors import InvalidModel, InvalidSetting, NondeterministicModel

SHAPE = (1, 8, 8)


def network(seed: int = 0, width: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(width * 9, 10),
    ).eval()  # fmt: skip


def images(n: int, seed: int = 1) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(n, *SHAPE))
    return torch.tensor(pixels / 255, dtype=torch.float32)


def fingerprint(run) -> list:
    return [(r.index, r.status, r.label, r.radius, r.counts, r.samples) for r in run]


@pytest.mark.parametrize("noise", ["lattice", "gaussian"])
def test_counts_are_the_same_for_every_batch_size(noise):
    runs = []
    for size in (1, 7, 64, 500):
        g = certify.Smoothed(network(), 0.25, num_classes=10, noise=noise, batch_size=size)
        runs.append(fingerprint(g.certify(images(5), mode="fixed", n0=20, n=150, seed=9)))
    assert all(a == b for a, b in itertools.pairwise(runs))


def test_sequential_records_are_the_same_for_every_batch_size_and_subset():
    x = images(12)
    whole = [
        fingerprint(
            certify.Smoothed(network(), 0.25, num_classes=10, batch_size=size).certify(x, n_max=2000, seed=2)
        )
        for size in (33, 256)
    ]
    g = certify.Smoothed(network(), 0.25, num_classes=10, batch_size=100)
    shards = [g.certify(x[i::2], ids=list(range(i, 12, 2)), n_max=2000, seed=2) for i in (0, 1)]
    merged = sorted(fingerprint(shards[0]) + fingerprint(shards[1]))
    assert whole[0] == whole[1] == merged


def test_interrupted_and_resumed_is_the_same_run(tmp_path):
    x, y = images(10), [0] * 10
    g = certify.Smoothed(network(), 0.25, num_classes=10, batch_size=64)
    whole = g.certify(x, y, n_max=1000, seed=4, store=tmp_path / "whole")
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        g.certify(x, y, n_max=1000, seed=4, store=tmp_path / "cut", on_record=stop)
    fresh = []
    resumed = g.certify(x, y, n_max=1000, seed=4, store=tmp_path / "cut", on_record=fresh.append)
    assert len(fresh) == 6, "what was proved before the interruption is not sampled again"
    assert fingerprint(resumed) == fingerprint(whole)


def test_seeds_that_agree_in_32_bits_give_different_noise():
    g = certify.Smoothed(network(), 0.25, num_classes=10, batch_size=64)
    x = images(1)[0]
    a, b = (g.noisy(x, 4, seed=s, id=0) for s in (5, 5 + 2**32))
    assert not torch.equal(a, b)


def test_noise_of_certification_and_prediction_differ():
    g = certify.Smoothed(network(), 0.25, num_classes=10, batch_size=64)
    x = images(3)
    assert all(
        p.counts != r.counts
        for p, r in zip(
            g.predict(x, n=500, seed=1), g.certify(x, mode="fixed", n0=1, n=500, seed=1), strict=True
        )
    )


def test_near_ties_are_decided_alone():
    """A model whose rows change in the last bits with the batch still gives one count."""

    class Jittery(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, :3].clone()
            return z * (1 + 1e-6 * len(x) / 500)

    runs = []
    for size in (1, 7, 500):
        g = certify.Smoothed(Jittery().eval(), 0.5, num_classes=3, batch_size=size)
        runs.append(g.certify(images(2), mode="fixed", n0=10, n=300, seed=0)[0].counts)
    assert runs[0] == runs[1] == runs[2]


def test_non_finite_scores_are_votes_for_nobody():
    class Broken(nn.Module):
        def forward(self, x):
            first = x.flatten(1)[:, 0]
            return torch.stack([torch.where(first > 0.5, torch.nan, first), first - 1], dim=1)

    x = torch.full((1, *SHAPE), 128 / 255)
    g = certify.Smoothed(Broken().eval(), 0.25, num_classes=2, batch_size=50)
    record = g.certify(x, mode="fixed", n0=50, n=400, seed=0)[0]
    assert sum(record.counts) < 300
    assert record.status is certify.Status.ABSTAINED


class WithDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x.flatten(1)[:, :4], 0.5, training=True)


class BatchStatistics(nn.Module):
    def forward(self, x):
        z = x.flatten(1)[:, :4]
        return z - z.mean(0)


class BatchDeviation(nn.Module):
    """Not finite for an input alone: one row has no unbiased estimate."""

    def forward(self, x):
        z = x.flatten(1)[:, :4]
        return z.sum(0) / (len(z) - 1) + torch.zeros(len(z), 1)


@pytest.mark.parametrize("model", [WithDropout(), BatchStatistics(), BatchDeviation()])
def test_a_model_that_is_not_a_fixed_function_is_refused(model):
    g = certify.Smoothed(model.eval(), 0.25, num_classes=4, batch_size=64)
    with pytest.raises(NondeterministicModel):
        g.certify(images(2), n_max=500)


def deterministic(value: bool) -> None:
    torch.use_deterministic_algorithms(value)


def bf16_products(value: bool) -> None:
    torch.set_float32_matmul_precision("medium" if value else "highest")


def cudnn_without_tf32(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = not value


def one_thread_more(value: bool) -> None:
    torch.set_num_threads(torch.get_num_threads() + (1 if value else -1))


@pytest.mark.parametrize("setting", [deterministic, bf16_products, cudnn_without_tf32, one_thread_more])
def test_rounding_is_measured_again_where_torch_computes_otherwise(setting):
    g = certify.Smoothed(network(), 0.25, num_classes=10, batch_size=64)
    g.predict(images(1), n=10, seed=0)  # races lanes, which a small run does not
    first = g.probe
    g.certify(images(1), n_max=100)
    assert g.probe is first
    try:
        setting(True)
        g.predict(images(1), n=10, seed=0)
        second = g.probe
        assert second is not first
        g.certify(images(1), n_max=100)
        assert g.probe is second
    finally:
        setting(False)
    g.predict(images(1), n=10, seed=0)
    assert second is not None
    assert g.probe is not second
    assert g.probe.arithmetic != second.arithmetic


def test_autocast_is_another_arithmetic():
    class Rounding(torch.nn.Module):
        """Under autocast, one half of the batch is rounded otherwise than the other."""

        def forward(self, x):
            z = x.flatten(1)[:, :4].double()
            if torch.is_autocast_enabled("cpu") and len(x) > 1:
                z = z * (1 + 2.0**-13)
            return z

    g = certify.Smoothed(Rounding().eval(), 0.25, num_classes=4, batch_size=64)
    g.predict(images(1), n=10, seed=0)
    assert g.classifier.tolerance == 2.0**-18
    with torch.autocast("cpu"):
        g.predict(images(1), n=10, seed=0)
        assert g.classifier.tolerance == pytest.approx(64 * 2.0**-13, rel=1e-3)
    g.predict(images(1), n=10, seed=0)
    assert g.classifier.tolerance == 2.0**-18


def test_training_mode_is_refused():
    with pytest.raises(InvalidModel):
        certify.Smoothed(network().train(), 0.25, num_classes=10)


@pytest.mark.parametrize("sigma", [0, -1, float("nan"), float("inf")])
def test_sigma_must_be_a_standard_deviation(sigma):
    with pytest.raises(InvalidSetting):
        certify.Smoothed(network(), sigma, num_classes=10)


def test_wrong_class_count_is_refused():
    with pytest.raises(InvalidModel):
        certify.Smoothed(network(), 0.25, num_classes=7, batch_size=8).certify(images(1), n_max=100)
