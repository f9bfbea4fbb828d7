"""Balls that meet with different classes are found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import certify
from certify.errors import EvidenceFails, InvalidInput
from certify.overlaps import overlapping_balls, refuse_overlaps
from certify.records import Record, Status
from tests.liars import SHAPES, faint_image, unreachable_sum, zero_image


def record(index: int, label: int | None, radius: float) -> Record:
    status = Status.ABSTAINED if label is None else Status.CERTIFIED
    return Record(index=index, status=status, label=label, radius=radius)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["1", "2", "inf"]))
def test_the_same_pairs_as_by_hand(seed, norm):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(25, 3))
    labels = [None if k == 3 else int(k) for k in rng.integers(0, 4, size=25)]
    records = [record(100 + i, label, float(rng.uniform(0, 1))) for i, label in enumerate(labels)]
    expected = set()
    for i in range(25):
        for j in range(i + 1, 25):
            apart = np.linalg.norm(x[i] - x[j], ord=float(norm))
            meet = apart < records[i].radius + records[j].radius
            if meet and None not in (labels[i], labels[j]) and labels[i] != labels[j]:
                expected.add((100 + i, 100 + j))
    found = overlapping_balls(torch.tensor(x), records, norm=norm)
    assert {(o.first, o.second) for o in found} == expected


def test_balls_that_touch_are_not_reported():
    records = [record(0, 0, 0.5), record(1, 1, 0.5)]
    assert overlapping_balls(torch.tensor([[0.0], [1.0]]), records) == []
    assert overlapping_balls(torch.tensor([[0.0], [1.0]]), records, norm="1") == []
    assert len(overlapping_balls(torch.tensor([[0.0], [0.999]]), records)) == 1


def test_no_certificates_no_contradiction():
    assert overlapping_balls(torch.zeros(2, 3), [record(0, None, 0.0), record(1, 1, 0.4)]) == []
    with pytest.raises(InvalidInput, match="records"):
        overlapping_balls(torch.zeros(3, 3), [record(0, 1, 0.4)])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_liar_invalidates_the_gaussian_run_only(shape):
    x = torch.stack([zero_image(shape), faint_image(shape)])
    for noise in ("gaussian", "lattice"):
        g = certify.Smoothed(unreachable_sum, 0.5, num_classes=2, noise=noise, grid=1 / 255, batch_size=64)
        run = g.certify(x, n_max=300, seed=0)
        if noise == "gaussian":
            with pytest.raises(EvidenceFails, match="contradict"):
                refuse_overlaps(x, run.records)
        else:
            refuse_overlaps(x, run.records)
