"""The regularisers: what each loss is made of, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional as F

from certify.errors import InvalidSetting
from pdenets.baselines import linear
from pdenets.convection_diffusion import convection_diffusion
from pdenets.regularisers import REGULARISERS, GaussianAugmentation, noisy, regulariser


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    x = torch.randn(16, 2, generator=generator(1))
    return x, (x[:, 0] > 0).long()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return convection_diffusion(num_classes=2, input_shape=(2,))


def test_plain_is_cross_entropy(model, batch):
    x, y = batch
    losses = regulariser("none", sigma=0.0).loss(model, x, y, generator=generator())
    assert torch.equal(losses["classification"], F.cross_entropy(model(x), y))


def test_gaussian_noise_has_the_stated_standard_deviation():
    x = torch.zeros(100_000)
    assert noisy(x, 0.25, generator()).std().item() == pytest.approx(0.25, rel=0.02)


def test_gaussian_augmentation_sees_the_noisy_inputs(model, batch):
    x, y = batch
    loss = GaussianAugmentation(0.5).loss(model, x, y, generator=generator(4))["classification"]
    assert torch.equal(loss, F.cross_entropy(model(noisy(x, 0.5, generator(4))), y))


def test_diffusion_without_weight_is_cross_entropy_at_both_ends(model, batch):
    x, y = batch
    losses = regulariser("residual", sigma=0.5, weight=0.0).loss(model, x, y, generator=generator())
    expected = (F.cross_entropy(model(x, 1.0), y) + F.cross_entropy(model(x, 2.0), y)) / 2
    assert list(losses) == ["classification"]
    assert torch.allclose(losses["classification"], expected)


class HeatSolution(torch.nn.Module):
    """Logits whose softmax solves the heat equation exactly: a smoothed half-space."""

    horizon = 2.0

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma

    def forward(self, x, t=1.0):
        t = torch.as_tensor(t, dtype=x.dtype).expand(len(x))
        s = (0.3**2 + self.sigma**2 * (t - 1)).sqrt()
        p = torch.special.ndtr(x[:, 0] / s).clamp(1e-12, 1 - 1e-12)
        return torch.stack([torch.log1p(-p), p.log()], dim=1)


def test_the_penalty_vanishes_at_the_smoothed_classifier_of_matched_noise(batch):
    # s = sqrt(2) sigma_p: noise of standard deviation s solves the unit diffusion phase.
    x, y = batch[0].double(), batch[1]
    matched = regulariser("residual", sigma=0.5, tau=1e-4, h=0.01, weight=1.0)
    mismatched = regulariser("residual", sigma=0.5 / math.sqrt(2), tau=1e-4, h=0.01, weight=1.0)
    net = HeatSolution(0.5)
    right = matched.loss(net, x, y, generator=generator())["residual"]
    wrong = mismatched.loss(net, x, y, generator=generator())["residual"]
    assert right < 1e-5 < 1e-3 < wrong


@pytest.mark.parametrize("name", ["gaussian", "diffusion"])
def test_anisotropic_noise_leaves_the_still_coordinates_alone(name, model):
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    x, y = torch.zeros(4000, 2), torch.zeros(4000, dtype=torch.long)
    regulariser(name, sigma=0.5, scales=[2.0, 0.0]).loss(model, x, y, generator=generator())
    assert seen[0].std(0)[0].item() == pytest.approx(1.0, rel=0.05)
    assert (seen[0][:, 1] == 0).all()
    if name == "diffusion":  # no stencil point leaves the line on which there is diffusion
        assert (seen[-1][:, 1] == 0).all()
    with pytest.raises(InvalidSetting, match="scales do not fit"):
        regulariser(name, sigma=0.5, scales=[1.0]).loss(model, x, y, generator=generator())


def test_share_of_the_batch_pays_for_the_residual(model, batch):
    x, y = batch
    calls = []
    model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    regulariser("diffusion", sigma=0.5, share=0.25).loss(model, x, y, generator=generator())
    # Two losses on the whole batch, then 2d + 2 points for each of 4 inputs.
    assert calls == [16, 16, 4 * 6]


def test_consistency_is_the_spread_of_the_copies_around_their_mean(model, batch):
    x, y = batch
    losses = regulariser("consistency", sigma=0.4, weight=3.0, eta=0.5).loss(
        model, x, y, generator=generator(7)
    )
    noise = 0.4 * torch.randn(2, *x.shape, generator=generator(7))
    p, q = model(x + noise[0]).softmax(1), model(x + noise[1]).softmax(1)
    m = (p + q) / 2
    spread = ((m * (m / p).log()).sum(1) + (m * (m / q).log()).sum(1)).mean() / 2
    expected = 3 * (spread - 0.5 * (m * m.log()).sum(1).mean())
    assert torch.allclose(losses["consistency"], expected, atol=1e-5)
    copies = torch.cat([model(x + noise[0]), model(x + noise[1])])
    assert torch.allclose(losses["classification"], F.cross_entropy(copies, torch.cat([y, y])))


def test_consistency_without_disagreement_and_entropy_costs_nothing(batch):
    class Sure(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[40.0, -40.0]]).expand(len(x), 2)

    losses = regulariser("consistency", sigma=0.4).loss(Sure(), *batch, generator=generator())
    assert losses["consistency"].abs() < 1e-6


def test_smoothadv_attacks_a_linear_model_to_the_border_of_its_ball():
    torch.manual_seed(0)
    model = linear(num_classes=2, input_shape=(2,))
    direction = (model[1].weight[0] - model[1].weight[1]).detach()
    x, y = torch.randn(32, 2), torch.zeros(32, dtype=torch.long)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    regulariser("smoothadv", sigma=1e-9, radius=0.3).loss(model, x, y, generator=generator())
    moved = seen[-1][:32] - x
    assert torch.allclose(moved, (-0.3 * direction / direction.norm()).expand_as(x), atol=1e-4)
    assert model[1].weight.grad is None  # the attack leaves no gradient behind


class Fixed(torch.nn.Module):
    """The same logits for every row."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([logits]))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_macer_is_a_hinge_on_the_radius_of_the_inputs_that_are_right():
    model, x = Fixed(0.05, 0.0, -0.1), torch.zeros(4, 2)
    y = torch.tensor([0, 0, 0, 1])  # three right, one wrong
    options = {"weight": 3.0, "gamma": 2.0, "beta": 16.0, "copies": 5}
    losses = regulariser("macer", sigma=0.5, **options).loss(model, x, y, generator=generator())
    p = torch.tensor([0.8, 0.0, -1.6]).softmax(0).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    gap = float(normal.icdf(p[0]) - normal.icdf(p[1]))
    assert losses["radius"].item() == pytest.approx(3.0 * 0.5 / 2 * (2.0 - gap) * 3 / 4, rel=1e-4)
    expected = F.cross_entropy(model(x), y)
    assert losses["classification"].item() == pytest.approx(float(expected), rel=1e-5)


def test_macer_leaves_out_probabilities_without_a_quantile():
    model = Fixed(50.0, 0.0)
    losses = regulariser("macer", sigma=0.5).loss(
        model, torch.zeros(3, 2), torch.tensor([0, 0, 1]), generator=generator()
    )
    sum(losses.values()).backward()
    assert losses["radius"].item() == 0.0
    assert model.logits.grad.isfinite().all()


def test_macer_asks_for_no_more_than_gamma():
    losses = regulariser("macer", sigma=0.5, gamma=0.1).loss(
        Fixed(0.2, 0.0), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), generator=generator()
    )
    assert losses["radius"].item() == 0.0


def test_smoothadv_with_consistency_adds_the_disagreement_of_the_attacked_copies(batch):
    class Sure(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return torch.stack([self.logit + 0 * x[:, 0], 0 * x[:, 0]], 1)

    model = Sure()
    plain = regulariser("smoothadv", sigma=0.4).loss(model, *batch, generator=generator())
    both = regulariser("smoothadv", sigma=0.4, consistency=2.0, eta=0.5).loss(
        model, *batch, generator=generator()
    )
    p = torch.tensor([1.0, 0.0]).softmax(0)
    entropy = -float((p * p.log()).sum())  # copies that agree leave their entropy alone
    assert "consistency" not in plain
    assert torch.equal(both["classification"], plain["classification"])
    assert both["consistency"].item() == pytest.approx(2.0 * 0.5 * entropy, rel=1e-5)


@pytest.mark.parametrize("name", sorted(REGULARISERS))
def test_every_regulariser_gives_finite_gradients(name, model, batch):
    x, y = batch
    losses = regulariser(name, sigma=0.3).loss(model, x, y, generator=generator())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "sigma", "options", "message"),
    [
        ("ridge", 0.25, {}, "unknown"),
        ("gaussian", 0.0, {}, "cannot be used"),
        ("gaussian", math.nan, {}, "cannot be used"),
        ("diffusion", 0.25, {"strength": 2}, "does not take strength"),
        ("none", 0.25, {"weight": 2}, "does not take weight"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, sigma, options, message):
    with pytest.raises(InvalidSetting, match=message):
        regulariser(name, sigma=sigma, **options)


def test_the_residual_needs_a_time_dependent_network(batch):
    x, y = batch
    with pytest.raises(InvalidSetting, match="time-dependent"):
        regulariser("diffusion", sigma=0.25).loss(
            linear(num_classes=2, input_shape=(2,)), x, y, generator=generator()
        )
