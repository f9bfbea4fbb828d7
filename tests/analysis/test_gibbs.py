"""Gibbs classifiers, their bounds, and training on the bound."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from analysis.gibbs import SCALES, Gibbs, gaussian_kl, perturbation_bounds, squared_distance
from analysis.pac_bayes_training import fit_posterior
from certify.errors import InvalidInput, InvalidSetting


def gen(seed):
    return torch.Generator().manual_seed(seed)


def blobs(n, seed, spread=0.5):
    g = gen(seed)
    y = torch.randint(0, 2, (n,), generator=g)
    return (2.0 * y[:, None] - 1) * torch.tensor([1.5, 0.0]) + spread * torch.randn(n, 2, generator=g), y


def half_space():
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    net[0].bias.data.zero_()
    return net.eval()


def test_kl_agrees_with_torch_distributions():
    mean = {"a": torch.randn(3, 2, generator=gen(0)), "b": torch.randn(4, generator=gen(1))}
    prior = {k: torch.randn(v.shape, generator=gen(2)) for k, v in mean.items()}
    scale = {k: torch.rand(v.shape, generator=gen(3)) + 0.1 for k, v in mean.items()}
    want = sum(
        float(kl_divergence(Normal(mean[k], scale[k]), Normal(prior[k], 0.3)).double().sum()) for k in mean
    )
    assert gaussian_kl(mean, scale, prior, 0.3) == pytest.approx(want, rel=1e-5)
    assert gaussian_kl(mean, 0.5, prior, 0.5) == pytest.approx(
        squared_distance(mean, prior) / (2 * 0.25), rel=1e-6
    )


def test_gibbs_risk_of_a_noisy_threshold_is_known():
    # One weight pair (w0, w1) on the point x = 1: wrong when w1 - w0 <= 0, a normal tail.
    net = nn.Sequential(nn.Linear(1, 2, bias=False)).eval()
    net[0].weight.data = torch.tensor([[0.0], [1.0]])
    gibbs = Gibbs.around(net, 0.8)
    risk = 0.5 * math.erfc(1.0 / (0.8 * math.sqrt(2)) / math.sqrt(2))
    x, y = torch.ones(3000, 1), torch.ones(3000, dtype=torch.long)
    wrong, low, high = gibbs.risk_interval(x, y, delta=1e-4, generator=gen(0))
    assert low <= risk <= high
    assert wrong / 3000 == pytest.approx(risk, abs=0.05)
    mean = gibbs.empirical_risk(x[:1], y[:1], draws=3000, generator=gen(1))
    assert mean == pytest.approx(risk, abs=0.05)


def test_perturbation_bound_is_above_the_gibbs_risk_and_picks_its_scale():
    x, y = blobs(400, 0)
    rows, gibbs = perturbation_bounds(half_space(), x, y, draws=300, generator=gen(0))
    assert gibbs.scale in SCALES
    _, low, high = gibbs.risk_interval(*blobs(2000, 1), generator=gen(2))
    for row in rows:
        assert row.value >= low
    assert high < rows[0].value < 0.25
    assert rows[0].union_terms["priors"] == len(SCALES)


def test_a_closer_prior_gives_a_smaller_bound():
    x, y = blobs(400, 0)
    net = half_space()
    near = {k: v.detach() + 0.01 for k, v in net.named_parameters()}
    by_zero, _ = perturbation_bounds(net, x, y, draws=200, generator=gen(0))
    by_near, _ = perturbation_bounds(net, x, y, prior=near, draws=200, generator=gen(0))
    assert by_near[0].value < by_zero[0].value


def test_input_noise_belongs_to_the_classifier():
    x, y = blobs(300, 0, spread=0.05)
    quiet = Gibbs(half_space(), dict(half_space().named_parameters()), 1e-6)
    loud = Gibbs(half_space(), dict(half_space().named_parameters()), 1e-6, input_sigma=3.0)
    assert quiet.empirical_risk(x, y, draws=5, generator=gen(0)) == 0.0
    assert loud.empirical_risk(x, y, draws=50, generator=gen(0)) == pytest.approx(
        0.5 * math.erfc(0.5 / math.sqrt(2)), abs=0.03
    )


def test_training_on_the_bound_gives_a_bound_that_holds():
    x, y = blobs(300, 3)
    torch.manual_seed(0)
    got = fit_posterior(
        lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)), x, y,
        prior_epochs=20, epochs=10, lr=2e-2, draws=200, generator=gen(0),
    )  # fmt: skip
    assert len(got.held) == 150
    assert got.kl == pytest.approx(
        gaussian_kl(got.gibbs.mean, got.gibbs.scale, got.prior, got.prior_scale), rel=1e-9
    )
    _, low, _ = got.gibbs.risk_interval(*blobs(2000, 4), generator=gen(1))
    assert all(low <= row.value < 0.4 for row in got.bounds)
    assert "prior learned on 150 other points" in got.bounds[0].name


@pytest.mark.slow
def test_bound_on_digits_is_not_vacuous():
    from certify.data import load
    from pdenets.baselines import mlp

    train, test = load("digits", split="train"), load("digits", split="test")
    torch.manual_seed(0)
    got = fit_posterior(
        lambda: mlp(num_classes=10, input_shape=(1, 8, 8)), train.x, train.y, generator=gen(0)
    )
    _, low, _ = got.gibbs.risk_interval(test.x, test.y, generator=gen(1))
    assert low <= got.bounds[0].value <= 0.15


def test_impossible_requests_are_refused():
    x, y = blobs(10, 0)
    with pytest.raises(InvalidSetting):
        fit_posterior(half_space, x, y)
    with pytest.raises(InvalidInput):
        perturbation_bounds(nn.Sequential(nn.ReLU()), x, y)
