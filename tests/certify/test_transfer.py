"""Certificates carried over to other numerics stay below what the other model can prove."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import certify
from certify.bounds import binomial_upper
from certify.errors import InvalidInput, InvalidModel, InvalidSetting, NondeterministicModel
from certify.records import Record, Run
from certify.store import read_run
from certify.transfer import count_flips, transfer
from certify.verification import verify
from certify.verification.bounds import recompute


def half_space(shift: float):
    """Class 1 beyond 0.5 + shift on the first axis: at the origin the true radius is 0.5 + shift."""

    def model(x):
        side = x[:, 0].double() - (0.5 + shift)
        return torch.stack([-side, side], dim=1)

    return model


def smoothed(model, **options):
    return certify.Smoothed(
        model, 0.5, num_classes=2, noise="gaussian", bounds=None, batch_size=256, **options
    )


@pytest.mark.parametrize("shift", [0.0, -0.02, -0.1])
def test_transferred_radius_holds_for_the_deployed_model(shift):
    a, b = smoothed(half_space(0.0)), smoothed(half_space(shift))
    x = torch.zeros(4, 2)
    run = a.certify(x, n_max=20_000, seed=1)
    carried = transfer(run, a, b, x, samples=4000, seed=2)
    for before, after in zip(run, carried, strict=True):
        assert after.radius < before.radius
        assert after.radius <= 0.5 + shift
        assert after.details["flip_bound"] == binomial_upper(after.details["flips"], 4000, 1e-3)
    assert "0.002" in carried.guarantee


def test_the_same_model_flips_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    a, b = smoothed(net, reduce=False), smoothed(net, reduce=False)
    assert count_flips(a, b, torch.zeros(2), 3000, seed=0, id=0) == 0


def test_bf16_flips_few_and_costs_little():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    a, b = smoothed(net, reduce=False), smoothed(net, dtype="bf16", reduce=False)
    assert 0 < count_flips(a, b, torch.zeros(2), 20_000, seed=0, id=0) < 1000


def with_batch_mates(x):
    """Class 1 alone; in a batch, the class that the half space gives."""
    return half_space(0.0)(x) if len(x) > 1 else torch.tensor([[-1.0, 1.0]])


def test_a_deployed_model_that_needs_its_batch_mates_is_refused():
    a, b = smoothed(half_space(0.0)), smoothed(with_batch_mates)
    x = torch.zeros(1, 2)
    run = a.certify(x, n_max=2000, seed=1)
    with pytest.raises(NondeterministicModel):
        transfer(run, a, b, x, samples=500, seed=2)


def test_a_deployed_model_that_has_changed_is_refused():
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    a, b = smoothed(net), smoothed(copy.deepcopy(net), dtype="bf16")
    x = torch.zeros(1, 2)
    run = a.certify(x, n_max=2000, seed=1)
    with torch.no_grad():
        b.model[2].weight.mul_(-1)
    with pytest.raises(InvalidModel):
        transfer(run, a, b, x, samples=500, seed=2)


def test_a_model_that_always_disagrees_gets_no_certificate():
    a, b = smoothed(half_space(0.0)), smoothed(lambda x: -half_space(0.0)(x))
    x = torch.zeros(1, 2)
    carried = transfer(a.certify(x, n_max=2000, seed=1), a, b, x, samples=500, seed=2)
    assert carried[0].status is certify.Status.ABSTAINED
    assert carried[0].radius == 0.0


def test_mismatches_are_refused():
    a = smoothed(half_space(0.0))
    other = certify.Smoothed(half_space(0.0), 0.25, num_classes=2, noise="gaussian", bounds=None)
    run = a.certify(torch.zeros(2, 2), n_max=500, seed=1)
    with pytest.raises(InvalidSetting):
        transfer(run, a, other, torch.zeros(2, 2), seed=0)
    with pytest.raises(InvalidInput):
        transfer(run, a, a, torch.zeros(3, 2), seed=0)


@pytest.mark.parametrize("shape", [[3], [], [1, 2], [10**12]])
def test_a_model_is_not_asked_for_inputs_of_the_shape_that_a_record_claims(shape):
    a = smoothed(nn.Linear(2, 2).eval())
    run = a.certify(torch.zeros(2, 2), n_max=500, seed=1)
    other = Run(list(run), dict(run.settings) | {"input_shape": shape}, run.guarantee)
    with pytest.raises(InvalidSetting, match="of their shape"):
        transfer(other, a, a, torch.zeros(2, 2), seed=0)


def test_an_identity_over_a_shape_that_is_not_the_models_is_a_named_error():
    with pytest.raises(InvalidModel, match=r"cannot take inputs of shape \(3,\)"):
        smoothed(nn.Linear(2, 2).eval()).identity((3,))


PLANS = {
    "radius": {"n_max": 4000},
    "fixed": {"n0": 50, "n": 2000},
    "randomised": {"mode": "fixed", "n0": 50, "n": 2000, "randomised": True},
    "decide": {"n_max": 4000, "radius": 0.2},
    "grid": {"n_max": 4000, "step": 0.125},
}


def carried_over(place, mode="radius", *, noise="gaussian", shift=-0.02):
    """A stored run and the stored run that it was carried over to, one input on each side of the edge."""
    options = {"num_classes": 2, "bounds": (0.0, 2.0), "batch_size": 256, "noise": noise}
    a, b = (certify.Smoothed(half_space(s), 0.5, grid=0.25, **options) for s in (0.0, shift))
    x = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.5, 0.0]])
    a.certify(x, **({"mode": mode} | PLANS[mode]), seed=1, store=place / "source")
    source = read_run(place / "source")
    transfer(source, a, b, x, samples=500, seed=2, store=place / "carried")
    return source, read_run(place / "carried")


@pytest.mark.parametrize("noise", ["gaussian", "lattice"])
@pytest.mark.parametrize("mode", PLANS)
def test_a_stored_transfer_is_recomputed(tmp_path, mode, noise):
    source, carried = carried_over(tmp_path, mode, noise=noise)
    assert any(r.details.get("flips") for r in carried.run)
    done = verify(tmp_path / "carried", level=2)
    assert done.ok, done.failures
    assert {"carried over", "sources hold together"} <= {c.name for c in done.checks}
    for before, after in zip(source.run, carried.run, strict=True):
        if before.certified:
            q = after.details["flip_bound"]
            assert after.p_upper == min(1.0, before.p_upper + q)
            assert after.pb_lower == max(0.0, before.pb_lower - q)
            assert after.radius < before.radius or mode in ("decide", "grid")
            assert after.radius_upper >= before.radius_upper
        else:
            assert after == before


def test_upper_ends_stay_above_the_truth_of_the_deployed_model(tmp_path):
    """The deployed half-space is farther away: what bounded the certified model's radius is too small."""
    source, carried = carried_over(tmp_path, "fixed", shift=0.2)
    assert source.run[0].radius_upper < 0.7 <= carried.run[0].radius_upper


def raised(name, by):
    return lambda row: row.update({name: row[name] + by})


FORGERIES = {
    "fewer flips": lambda row: row["details"].update(flips=0),
    "a smaller bound on them": lambda row: row["details"].update(flip_bound=row["details"]["flip_bound"] / 2),
    "a larger p_lower": raised("p_lower", 1e-3),
    "a larger radius": raised("radius", 1e-3),
    "a smaller upper end": raised("p_upper", -1e-3),
    "a smaller upper radius": raised("radius_upper", -1e-3),
    "another class": lambda row: row.update(label=1 - row["label"]),
    "a better source": lambda row: row["details"]["source"].update(p_lower=0.999, pb_upper=0.001),
    "no source": lambda row: row["details"].pop("source"),
    "more flips than samples": lambda row: row["details"].update(flips=501),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_transfer_is_named(tmp_path, name):
    _, carried = carried_over(tmp_path)
    rows = [r.to_json() for r in carried.run]
    assert rows[0]["details"]["flips"] > 0
    FORGERIES[name](rows[0])
    records = [Record.from_json(row) for row in rows]
    forged = replace(carried, run=Run(records, carried.settings, carried.guarantee))
    failed = {check for check, ok, _ in recompute(forged) if not ok}
    assert failed, name


def test_only_a_run_with_its_boundaries_is_stored(tmp_path):
    a = smoothed(half_space(0.0))
    run = a.certify(torch.zeros(1, 2), n_max=500, seed=1)
    with pytest.raises(InvalidSetting, match="read_run"):
        transfer(run, a, a, torch.zeros(1, 2), samples=100, seed=2, store=tmp_path / "carried")
    assert not (tmp_path / "carried").exists()
