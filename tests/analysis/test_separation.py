"""Held out means that a row does not occur among the training rows, whatever its id, place or last digits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import analysis
from analysis.all_bounds import all_bounds
from analysis.separation import _close_by_products, held_out, same_points
from certify.bounds import binomial_upper
from certify.data import Dataset
from certify.errors import InvalidInput
from certify.inputs import INPUT, input_digest
from certify.records import Record, Run, Status
from pdenets.baselines import linear


def images(n, seed=0, side=6):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 256, (n, 1, side, side)).astype(np.float32) / np.float32(255))
    return made(x, (x.flatten(1).mean(1) > 0.5).long())


def made(x, y):
    ids = torch.arange(len(x))
    return Dataset("own", "test", x, y.long(), 2, 0.0, 1.0, 1 / 255, ids, ("a", "b"))


def pick(data, rows, x=None):
    rows = torch.as_tensor(rows)
    return made(data.x[rows] if x is None else x, data.y[rows])


TRAIN = images(40)
FRESH = images(25, seed=1)


def changed(data, where, by):
    x = data.x.clone()
    x[where] = (x[where] + by).remainder(1.0 + 1 / 255)
    return made(x, data.y)


COPIES = {
    "the same": TRAIN,
    "reversed": pick(TRAIN, range(39, -1, -1)),
    "shuffled": pick(TRAIN, np.random.default_rng(3).permutation(40)),
    "without one": pick(TRAIN, range(1, 40)),
    "twice": pick(TRAIN, [*range(40), *range(40)]),
    "one of them": pick(TRAIN, [7]),
    "one pixel of one up by a step": changed(TRAIN, (0, 0, 0, 0), 1 / 255),
    "one pixel of each up by a step": changed(TRAIN, (slice(None), 0, 2, 3), 1 / 255),
    "faint noise": made(
        TRAIN.x + 0.005 * torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(4)), TRAIN.y
    ),
    "another rounding": made(torch.round(TRAIN.x * 127) / 127, TRAIN.y),
    "other ids": replace(TRAIN, ids=torch.arange(1000, 1040)),
    "other labels": made(TRAIN.x, 1 - TRAIN.y),
    "flattened": made(TRAIN.x.flatten(1), TRAIN.y),
    "minus zero": made(torch.where(TRAIN.x == 0, -TRAIN.x, TRAIN.x), TRAIN.y),
}


@pytest.mark.parametrize("case", COPIES)
def test_copies_of_training_rows_are_never_held_out(case):
    copy = COPIES[case]
    found = held_out(TRAIN, copy)
    assert len(found) == 0 == found.repeats
    assert found.equal + found.near == found.of == len(copy)
    assert same_points(TRAIN, copy)
    with pytest.raises(InvalidInput, match="training points"):
        all_bounds(linear(num_classes=2, input_shape=(1, 6, 6)).eval(), TRAIN, copy, draws=5)


def test_fresh_rows_are_all_held_out_and_mixtures_are_told_apart():
    found = held_out(TRAIN, FRESH)
    assert (len(found), found.equal, found.near, found.repeats, found.says()) == (25, 0, 0, 0, "")
    near = changed(pick(TRAIN, range(5)), (slice(None), 0, 1, 1), 2 / 255)
    x = torch.cat([TRAIN.x[10:13], FRESH.x, near.x, FRESH.x[:2]])
    mixed = held_out(TRAIN, made(x, torch.zeros(len(x), dtype=torch.int64)))
    assert (mixed.of, mixed.equal, mixed.near, len(mixed), mixed.repeats) == (35, 3, 5, 27, 2)
    assert mixed.data.ids.tolist() == [*range(3, 28), 33, 34]
    assert mixed.repeated.tolist() == [False] * 25 + [True] * 2
    assert mixed.says() == (
        f"3 of 35 rows occur among the training rows; 5 of 35 lie within l2 distance {mixed.distance:.3g} of "
        "one and are left out; 2 of the 27 held-out rows repeat another"
    )
    assert not same_points(TRAIN, made(x, torch.zeros(len(x), dtype=torch.int64)))


@pytest.mark.parametrize(("side", "n"), [(1, 300), (2, 200), (6, 60), (9, 50)])
def test_near_rows_are_those_of_all_distances_computed(side, n):
    """The tree over a projection misses no pair: compared with every distance, by brute force."""
    train, rng = images(n, seed=5, side=side), torch.Generator().manual_seed(6)
    rows = train.x[torch.randint(n, (80,), generator=rng)]
    limit = held_out(train, train).distance
    different = torch.unique(train.x.flatten(1), dim=0)
    apart = torch.cdist(different, different).fill_diagonal_(torch.inf).amin(1)
    assert len(different) > 100 or limit == pytest.approx(float(apart.median()) * 0.1, rel=1e-3)
    noise = torch.randn(rows.shape, generator=rng)
    shares = torch.rand(80, 1, 1, 1, generator=rng) * 2
    test = made(
        rows + noise / noise.flatten(1).norm(dim=1)[:, None, None, None] * limit * shares, torch.zeros(80)
    )
    brute = torch.cdist(test.x.flatten(1).double(), train.x.flatten(1).double()).amin(1)
    clear = (brute - limit).abs() > 1e-4 * limit
    found = held_out(train, test)
    assert found.distance == pytest.approx(limit)
    kept = torch.zeros(80, dtype=torch.bool)
    kept[found.data.ids] = True
    assert torch.equal(kept[clear], (brute > limit)[clear])
    assert 10 < int(kept.sum()) < 70 or side == 1


@pytest.mark.parametrize(("d", "n"), [(1, 2000), (2, 2000), (5, 1000), (30, 500)])
def test_honest_rows_are_near_by_chance_about_once_in_a_thousand(d, n):
    x = torch.rand(2 * n, d, generator=torch.Generator().manual_seed(d))
    train, test = made(x[:n], torch.zeros(n)), made(x[n:], torch.zeros(n))
    found = held_out(train, test)
    assert found.equal + found.near <= 12  # expected at most 2; P(Poisson(2) > 12) < 1e-6


def test_rows_that_no_few_directions_tell_apart_are_compared_by_products(monkeypatch):
    monkeypatch.setattr("analysis.separation._CROWDED", 20)
    train = images(400, seed=7, side=20)
    faint = torch.randn(train.x[:9].shape, generator=torch.Generator().manual_seed(1)) * 0.01
    test = made(torch.cat([images(50, seed=8, side=20).x, train.x[:9] + faint]), torch.zeros(59))
    tree, rows = held_out(train, test), train.x.flatten(1).numpy()
    assert (tree.equal, tree.near, len(tree)) == (0, 9, 50)
    for more in (300, 0):
        monkeypatch.setattr("analysis.separation._CROWDED", more)
        again = held_out(train, test)
        assert torch.equal(again.data.ids, tree.data.ids)
    pairs = _close_by_products(rows, test.x.flatten(1).numpy(), tree.distance)
    assert set(zip(*(p.tolist() for p in pairs), strict=True)) >= {(50 + k, k) for k in range(9)}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_near_rows_are_found_far_from_zero_and_at_any_scale(scale):
    def far(data):
        return replace(data, x=data.x * scale + 64 * scale)

    assert same_points(far(TRAIN), far(COPIES["faint noise"]))
    assert len(held_out(far(TRAIN), far(FRESH))) == 25


def test_single_rows_sizes_and_constant_rows_are_compared_too():
    one = pick(TRAIN, [0])
    assert same_points(one, one)
    assert same_points(one, changed(one, (0, 0, 3, 3), 1 / 255))
    assert not same_points(one, FRESH)
    assert not same_points(TRAIN, images(3, side=5))
    zeros = made(torch.zeros(8, 1, 3, 3), torch.zeros(8))
    found = held_out(FRESH, replace(zeros, x=torch.zeros(8, 1, 6, 6)))
    assert (len(found), found.repeats) == (8, 7)


class Constant(torch.nn.Module):
    def forward(self, x):
        return torch.tensor([[1.0, 0.0]], device=x.device).expand(len(x), 2)


def heldout_row(rows):
    (row,) = [r for r in rows if r.name.startswith("test set")]
    return row


def test_bounds_are_about_the_held_out_rows_and_say_so():
    test = made(torch.cat([TRAIN.x[:30], FRESH.x]), torch.cat([TRAIN.y[:30], FRESH.y]))
    row = heldout_row(all_bounds(Constant(), TRAIN, test, draws=5))
    wrong = int((FRESH.y != 0).sum())
    assert row.terms["n"] == 25
    assert row.value == binomial_upper(wrong, 25, 0.05)
    assert any("30 of 55 rows occur among the training rows" in a for a in row.assumptions)
    gap = analysis.deterministic_gap(Constant(), TRAIN, test)
    assert (gap.n_test, gap.test_error) == (25, wrong / 25)


def test_repeats_make_no_bound_smaller():
    """Twelve copies of one right point are one point; twelve of a wrong one are not one mistake."""
    right, wrong = int((FRESH.y == 0).nonzero()[0]), int((FRESH.y == 1).nonzero()[0])
    once = pick(FRESH, [right, wrong])
    for copied in (right, wrong):
        test = pick(FRESH, [right, wrong, *[copied] * 11])
        row = heldout_row(all_bounds(Constant(), TRAIN, test, draws=5))
        alone = heldout_row(all_bounds(Constant(), TRAIN, once, draws=5))
        assert (row.terms["n"], row.terms["distinct"]) == (13, 2)
        errors = 12 if copied == wrong else 1
        assert row.value == max(binomial_upper(errors, 13, 0.05), alone.value)
        assert any("11 of the 13 held-out rows repeat another" in a for a in row.assumptions)
        gap = analysis.deterministic_gap(Constant(), TRAIN, test)
        assert gap.test_high >= alone.value - 1e-12
        assert gap.test_low <= 1 / 13


def record(index, x, *, radius=1.0, right=True):
    return Record(
        index, Status.CERTIFIED, label=1, target=int(right), radius=radius, details={INPUT: input_digest(x)}
    )


@pytest.mark.parametrize("known", [True, False])
def test_certified_training_inputs_bound_no_risk(known):
    inputs = made(torch.cat([TRAIN.x[:6], FRESH.x[:4], FRESH.x[:2]]), torch.zeros(12))
    run = Run([record(i, x, right=i != 7) for i, x in enumerate(inputs.x)], {}, "")
    certified = held_out(TRAIN, inputs) if known else None
    rows = all_bounds(Constant(), TRAIN, FRESH, run=run, certified=certified, radii=[0.5], draws=5)
    (row,) = [r for r in rows if "l2 radius" in r.name]
    assert (row.terms["n"], row.terms["not_certified"], row.terms["distinct"]) == (6, 1, 4)
    assert row.value == max(binomial_upper(1, 6, 0.05), binomial_upper(1, 4, 0.05))
    assert any("6 of 12" in a and "occur among the training rows" in a for a in row.assumptions)
    only = Run([record(i, x) for i, x in enumerate(TRAIN.x[:5])], {}, "")
    certified = held_out(TRAIN, pick(TRAIN, range(5))) if known else None
    rows = all_bounds(Constant(), TRAIN, FRESH, run=only, certified=certified, draws=5)
    assert not any("l2 radius" in r.name for r in rows)


def test_records_that_name_no_input_are_said_to_be_uncompared():
    run = Run([Record(i, Status.CERTIFIED, label=1, target=1, radius=1.0) for i in range(5)], {}, "")
    rows = all_bounds(Constant(), TRAIN, FRESH, run=run, radii=[0.5], draws=5)
    (row,) = [r for r in rows if "l2 radius" in r.name]
    assert any("5 inputs could not be compared" in a for a in row.assumptions)
