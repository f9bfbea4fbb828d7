"""Certificates carried over to other numerics stay below what the other model can prove."""

import copy

import pytest
import torch
from torch import nn

import certify
from certify.bounds import binomial_upper
from certify.errors import InvalidInput, InvalidModel, InvalidSetting, NondeterministicModel
from certify.transfer import count_flips, transfer


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
