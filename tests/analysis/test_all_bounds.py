"""Every bound for one network: present, labelled, and not contradicted by its own predictor's risk."""

import json
from dataclasses import replace

import pytest
import torch

from analysis import ledger
from analysis.all_bounds import all_bounds, bounds_document, deterministic_gap
from analysis.separation import same_points
from certify.data import load
from certify.errors import InvalidInput
from certify.records import Record, Run, Status
from pdenets.baselines import cnn, linear, mlp


@pytest.fixture(scope="module")
def moons():
    return load("moons", split="train", limit=300), load("moons", split="test", limit=500)


def trained(factory, data, steps=200):
    torch.manual_seed(0)
    model = factory(num_classes=data.num_classes, input_shape=data.input_shape)
    start = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    return model.eval(), start


def test_linear_network_gets_every_kind_of_bound(moons):
    train, test = moons
    model, start = trained(linear, train)
    records = [Record(i, Status.CERTIFIED, label=1, target=int(i > 2), radius=0.1 * i) for i in range(20)]
    rows = all_bounds(
        model, train, test, prior=start, run=Run(records, {}, ""), draws=50,
        factory=lambda: linear(num_classes=2, input_shape=(2,)),
    )  # fmt: skip
    names = " | ".join(row.name for row in rows)
    for word in ("test set", "l2 linear class", "Massart", "covering", "zero weights", "initial weights",
                 "prior learned", "at l2 radius 0.25", "Catoni", "as printed"):  # fmt: skip
        assert word in names, word
    assert {row.predictor.split(":")[0] for row in rows} == {
        "deterministic network", "Gibbs", "smoothed network", "class",
    }  # fmt: skip
    table = ledger(bounds=rows, claims=None)
    assert not [row for row in table.claim("bound") if row.status == "violated"]
    document = bounds_document(rows, deterministic_gap(model, train, test))
    assert len(json.loads(json.dumps(document, allow_nan=False))["results"]) == len(rows)


@pytest.mark.parametrize("factory", [mlp])
def test_networks_get_norm_bounds_that_are_flagged_vacuous(moons, factory):
    train, test = moons
    model, _ = trained(factory, train, steps=60)
    rows = all_bounds(model, train, test, draws=20)
    norm = [row for row in rows if "norm" in row.name]
    assert len(norm) == 3
    assert all(row.vacuous for row in norm)


def test_other_architectures_keep_the_bounds_that_hold_for_every_network(moons):
    from pdenets.convection_diffusion import convection_diffusion

    train, test = moons
    model, _ = trained(convection_diffusion, train, steps=20)
    rows = all_bounds(model, train, test, draws=10)
    assert not any("norm" in row.name for row in rows)
    assert any("PAC-Bayes" in row.name for row in rows)
    assert any("test set" in row.name for row in rows)


def test_points_that_were_trained_on_bound_no_risk(moons):
    train, test = moons
    model, _ = trained(linear, train, steps=20)
    again = replace(train.part(skip=100), split="test")  # as a file gives the same points for both splits
    for attempt in (all_bounds, deterministic_gap):
        with pytest.raises(InvalidInput, match="training points"):
            attempt(model, train, again)
    assert same_points(train, again)
    assert not same_points(train, test)
    assert not same_points(train.part(limit=100), train.part(skip=100))


def test_without_held_out_points_nothing_is_claimed_from_them(moons):
    train, _ = moons
    model, _ = trained(linear, train, steps=20)
    rows = all_bounds(model, train, None, draws=10)
    assert rows
    assert not any("test set" in row.name or "measured_risk" in row.terms for row in rows)
    assert any("PAC-Bayes" in row.name for row in rows)
    assert any("l2 linear" in row.name for row in rows)
    assert "measured_gap" not in bounds_document(rows, None)


@pytest.mark.slow
@pytest.mark.parametrize("factory", [linear, mlp, cnn])
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_no_valid_bound_is_contradicted_on_digits(factory, n):
    train, test = load("digits", split="train", limit=n), load("digits", split="test")
    model, _ = trained(factory, train, steps=150)
    table = ledger(bounds=all_bounds(model, train, test, draws=100), points=train.x)
    assert table.alarms == []
