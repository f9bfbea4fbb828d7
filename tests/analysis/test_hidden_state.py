"""PAC-Bayes pays for weights only: what else a network learned is found, and no bound is claimed over it."""

import pytest
import torch
from torch import nn

from analysis import hidden_state
from analysis.all_bounds import all_bounds
from analysis.gibbs import perturbation_bounds
from analysis.result import GUARANTEED, GUARANTEED_IF_FIXED
from certify.data import load
from certify.errors import InvalidModel, InvalidSetting


class Memory(nn.Module):
    """Remembers its training points and has one weight, which says whether to use them."""

    def __init__(self, x, y):
        super().__init__()
        self.register_buffer("x", x)
        self.register_buffer("y", y)
        self.use = nn.Parameter(torch.ones(1))

    def forward(self, x):
        near = torch.cdist(x, self.x).argmin(1)
        return self.use * (2.0 * nn.functional.one_hot(self.y[near], 2) - 1)


def noise(n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=g), torch.randint(0, 2, (n,), generator=g)


def normalised():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_points_kept_in_a_buffer_make_no_guaranteed_bound():
    # Labels are coin tosses: every classifier errs on half of fresh points.
    x, y = noise(500, 0)
    net = Memory(x, y).eval()
    rows, gibbs = perturbation_bounds(net, x, y, draws=100)
    _, low, _ = gibbs.risk_interval(*noise(300, 1), generator=torch.Generator().manual_seed(2))
    assert rows[0].value < 0.3 < low  # the number is no bound
    assert {row.validity for row in rows} == {GUARANTEED_IF_FIXED}
    assert "x, y independent" in rows[0].assumptions[-1]
    empty = Memory(torch.zeros(500, 3), torch.zeros(500, dtype=torch.long))
    with pytest.raises(InvalidModel, match="x, y were learned"):
        perturbation_bounds(net, x, y, fresh=empty)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_known_to_be_learned_without_a_fresh_network(momentum):
    x, y = noise(100, 0)
    net = normalised().eval()
    net[1].momentum = momentum
    assert {row.validity for row in perturbation_bounds(net, x, y, draws=10)[0]} == {GUARANTEED}
    net.train()(x)
    with pytest.raises(InvalidModel, match="running_mean"):
        perturbation_bounds(net.eval(), x, y)


def test_training_mode_and_tensors_kept_as_attributes_count_too():
    x, y = noise(100, 0)
    with pytest.raises(InvalidModel, match="evaluation mode"):
        perturbation_bounds(normalised(), x, y)
    net = nn.Sequential(nn.Linear(3, 2)).eval()
    net[0].centre = x.mean(0)
    assert hidden_state(net).unknown == ("0.centre",)
    assert hidden_state(net, nn.Sequential(nn.Linear(3, 2))).learned == ("0.centre",)


def test_constants_of_the_architecture_are_not_learned():
    def standardised():
        net = normalised()
        net[1].register_buffer("stencil", torch.arange(3.0))
        return net

    assert hidden_state(standardised()).unknown == ("1.stencil",)
    assert hidden_state(standardised(), standardised()) == hidden_state(nn.Linear(2, 2))
    with pytest.raises(InvalidSetting, match="architecture"):
        hidden_state(standardised(), nn.Linear(3, 2))


def test_all_bounds_leave_out_what_no_weight_pays_for():
    train, test = load("moons", split="train", limit=100), load("moons", split="test", limit=100)

    def factory():
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    torch.manual_seed(0)
    net = factory()
    before = all_bounds(net.eval(), train, test, draws=10)
    net.train()(train.x)
    after = all_bounds(net.eval(), train, test, draws=10)
    gone = {row.name for row in before} - {row.name for row in after}
    assert gone
    assert all("PAC-Bayes" in name for name in gone)
