"""Norms of layers against assembled matrices; norm-based bounds against brackets and risks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from analysis import Finite, Linear, empirical_rademacher
from analysis.homogeneous import HomogeneousNet
from analysis.layers import network_norms, with_constant
from analysis.margins import lipschitz_complexity, margin_bound, margin_distribution
from analysis.network_bounds import dudley, golowich_frobenius, golowich_path, norm_bounds
from analysis.rademacher import all_signs
from analysis.transported import Transported, euler_flow, identity
from certify.errors import InvalidInput, InvalidModel, InvalidSetting


def gen(seed):
    return torch.Generator().manual_seed(seed)


def sample(n, d, seed=0):
    return torch.randn(n, d, generator=gen(seed), dtype=torch.float64)


def matrix_of(module, shape):
    basis = torch.eye(math.prod(shape)).reshape(-1, *shape)
    with torch.no_grad():
        return (module(basis) - module(torch.zeros(1, *shape))).flatten(1).double().T


def test_convolution_norms_bound_the_assembled_matrix():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(3 * 9, 4, bias=False))
    norms = network_norms(net, (2, 6, 6)).layers[0]
    matrix = matrix_of(conv, (2, 6, 6))
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= norms.spectral
    assert float(torch.linalg.matrix_norm(matrix)) <= norms.frobenius <= 1.5 * float(matrix.norm())
    assert float(matrix.norm(dim=1).sum()) <= norms.rows
    assert float(matrix.norm(dim=1).max()) <= norms.row
    assert norms.width == len(matrix)


def test_dense_norms_with_the_bias_absorbed():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4))
    norms = network_norms(net, (3,))
    first = torch.cat([net[0].weight, net[0].bias[:, None]], 1).detach().double()
    first = torch.cat([first, torch.tensor([[0.0, 0, 0, 1]]).double()])
    assert norms.layers[0].frobenius == pytest.approx(float(first.norm()))
    assert norms.layers[0].spectral == pytest.approx(float(torch.linalg.matrix_norm(first, 2)), rel=1e-9)
    last = torch.cat([net[2].weight, net[2].bias[:, None]], 1).detach().double()
    assert norms.frobenius_product == pytest.approx(float(first.norm() * last.norm(dim=1).max()))
    # The augmented network computes the same function.
    x = sample(4, 3)
    hidden = (with_constant(x, True) @ first.T).clamp_min(0) @ last.T
    assert torch.allclose(hidden.float(), net(x.float()), atol=1e-6)


def test_the_network_that_is_measured_stays_as_it_is():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    network_norms(net, (1, 4, 4))
    after = net.state_dict()
    assert all(after[k].dtype == v.dtype and torch.equal(after[k], v) for k, v in before.items())


def test_path_norm_by_hand_and_for_two_classes():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))
    net[0].weight.data = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    net[0].bias.data = torch.tensor([0.0, -1.0])
    net[2].weight.data = torch.tensor([[1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    net[2].bias.data = torch.tensor([0.5, 0.0, 0.0])
    assert network_norms(net, (2,)).path == pytest.approx(max(3 + 1.5 + 0.5, 9.0))
    two = nn.Sequential(nn.Linear(2, 2, bias=False))
    two[0].weight.data = torch.tensor([[1.0, 2.0], [-1.0, 5.0]])
    norms = network_norms(two, (2,))
    assert norms.path == pytest.approx(5.0)
    assert norms.frobenius_product == pytest.approx(math.hypot(2, 3))


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.BatchNorm1d(4), nn.MaxPool2d(2)])
def test_layers_without_a_theorem_are_refused(layer):
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)).eval()
    with pytest.raises(InvalidModel, match="norm-based"):
        network_norms(net, (3,))
    x = torch.randn(20, 3)
    if not isinstance(layer, nn.MaxPool2d):
        assert norm_bounds(net, x, torch.zeros(20, dtype=torch.long), num_classes=2) == []


def test_depth_one_class_lies_between_its_bracket_and_is_the_l2_class():
    points = sample(12, 3)
    exact = empirical_rademacher(Linear(2, 2.0), points).value
    bracket = empirical_rademacher(HomogeneousNet(depth=1, radius=2.0), points, draws=40)
    assert bracket.low <= exact <= bracket.high
    assert bracket.value == pytest.approx(exact, rel=0.15)


def test_depth_two_in_one_dimension_is_known_exactly():
    # sup over |W|_F |v| <= 1 of sum eps_i v.relu(W x_i) = max over the sign of x of |sum eps_i x_i|.
    points = torch.tensor([[1.0], [2.0], [-1.0], [-3.0], [0.5]]).double()
    signs = all_signs(5)
    up, down = points.clamp_min(0)[:, 0], (-points).clamp_min(0)[:, 0]
    exact = float(torch.maximum((signs @ up).abs(), (signs @ down).abs()).mean()) / 5
    got = empirical_rademacher(HomogeneousNet(depth=2, radius=1.0, steps=200), points, draws=64)
    assert got.low <= exact <= got.high
    assert got.value == pytest.approx(exact, rel=0.25)
    with pytest.raises(InvalidSetting):
        HomogeneousNet(depth=0, radius=1.0)


def test_golowich_bounds_are_above_what_training_reaches():
    points = sample(20, 4, seed=3)
    for depth in (2, 3):
        got = empirical_rademacher(HomogeneousNet(depth=depth, radius=1.0), points, draws=16)
        assert got.value <= golowich_frobenius(points, depth) == got.high
    # One hidden unit per sign of one coordinate: path norm 1 reaches max_j |sum eps_i relu(x_ij)|.
    signs = all_signs(10)
    reached = float((signs @ points[:10].clamp_min(0)).abs().amax(1).mean()) / 10
    assert reached <= golowich_path(points[:10], 2)


def test_dudley_is_above_a_class_whose_covering_is_known():
    # Linear l2 class of norm c: ln N(eps) <= (c |X| / eps)^2 ln(2 d) (Maurey), values within [0, 1].
    points = sample(30, 2) / 10
    exact = empirical_rademacher(Linear(2, 0.5), points, draws=500).value
    entropy = 0.5 * float(points.norm()) * math.sqrt(math.log(2 * 2 + 1))
    assert exact <= dudley(entropy, 30)


def test_margin_distribution_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    got = margin_distribution(logits, torch.tensor([0, 2]))
    assert got.values.tolist() == [-2.0, 1.0]
    assert got.below(0.0) == 0.5
    assert got.ramp(2.0) == pytest.approx((1.0 + 0.5) / 2)
    with pytest.raises(InvalidInput):
        margin_distribution(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))


def test_margin_bound_takes_the_best_margin_and_pays_for_it():
    margins = margin_distribution(torch.tensor([[4.0, 0.0]] * 400), torch.zeros(400, dtype=torch.long))
    row = margin_bound(
        margins, lipschitz_complexity(0.01, 2.0), 1.0, 0.05, name="m", reference="r"
    )  # fmt: skip
    parts = row.terms
    assert row.value == pytest.approx(parts["ramp_loss"] + parts["complexity"] + parts["confidence"])
    assert row.union_terms["delta_k"] < 0.05
    total = sum(1 / (3 * (abs(k) + 1) ** 2) for k in range(-100_000, 100_001))
    assert total < 1
    # Scaling network and class together changes nothing.
    double = margin_distribution(torch.tensor([[8.0, 0.0]] * 400), torch.zeros(400, dtype=torch.long))
    again = margin_bound(double, lipschitz_complexity(0.01, 2.0), 2.0, 0.05, name="m", reference="r")
    assert again.value == pytest.approx(row.value, rel=1e-12)


def test_linear_margin_bound_holds_on_simulated_data():
    # Two Gaussians far apart, 2,000 points: non-vacuous and above the true risk.
    g = gen(0)
    y = torch.randint(0, 2, (2000,), generator=g)
    x = (2 * y[:, None] - 1) * torch.tensor([1.5, 0.0]) + 0.5 * torch.randn(2000, 2, generator=g)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    net[1].weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    net[1].bias.data.zero_()
    rows = norm_bounds(net, x, y, num_classes=2)
    risk = 0.5 * math.erfc(3.0 / math.sqrt(2))
    assert [row.sound for row in rows] == [True] * 3
    assert risk < rows[0].value < 0.6
    assert rows[1].value < rows[2].value  # Massart before the covering bound


# -- transported and smoothed classes ---------------------------------------------------------


def test_diffusion_alone_leaves_linear_classes_as_they_are():
    points = sample(10, 3)
    plain = empirical_rademacher(Linear(1, 1.0), points).value
    smooth = empirical_rademacher(
        Transported(Linear(1, 1.0), identity, sigma=0.3, copies=4000), points
    )  # fmt: skip
    assert smooth.value == pytest.approx(plain, abs=4 * smooth.terms["mean_point_error"])


def test_a_fixed_velocity_can_raise_the_complexity():
    # One point at the origin, constant velocity c: complexity 0 becomes W |c|_inf.
    flow = euler_flow(lambda z: torch.tensor([0.5, -2.0]).double().expand_as(z))
    origin = torch.zeros(1, 2)
    assert empirical_rademacher(Linear(1, 3.0), origin).value == 0.0
    moved = empirical_rademacher(Transported(Linear(1, 3.0), flow, sigma=0.0), origin)
    assert moved.value == pytest.approx(6.0)


def test_expanding_flow_multiplies_the_complexity_of_a_linear_class():
    points = sample(8, 2)
    flow = euler_flow(lambda z: z, steps=1000)
    before = empirical_rademacher(Linear(1, 1.0), points).value
    after = empirical_rademacher(Transported(Linear(1, 1.0), flow, sigma=0.0), points).value
    assert after == pytest.approx(math.e * before, rel=1e-3)


def test_jensen_bound_is_above_the_smoothed_class():
    # Half-spaces smoothed exactly against the average over noisy copies of the sample.
    weights, offsets = torch.randn(60, 2, generator=gen(0)), torch.randn(60, generator=gen(1))
    points = sample(10, 2)
    exact = empirical_rademacher(Finite.half_spaces(weights, offsets, sigma=0.7), points).value
    bound = empirical_rademacher(
        Transported(Finite.half_spaces(weights, offsets), identity, sigma=0.7), points
    )  # fmt: skip
    assert bound.side == "upper"
    assert exact <= bound.high


def test_rank_correlation_finds_the_order_it_was_given():
    from analysis.correlation import rank_correlations

    rng = np.random.default_rng(0)
    gaps = rng.normal(size=40)
    measures = {"same": gaps**3, "noise": rng.normal(size=40), "flat": np.ones(40), "minus": -gaps}
    measures["partly"] = np.where(np.arange(40) < 10, np.nan, gaps)
    rows = {r.measure: r for r in rank_correlations(measures, gaps, resamples=300)}
    assert rows["same"].tau == 1.0
    assert rows["minus"].tau == -1.0
    assert rows["noise"].low < 0 < rows["noise"].high
    assert "flat" not in rows
    assert (rows["partly"].tau, rows["partly"].networks) == (1.0, 30)
    with pytest.raises(InvalidInput):
        rank_correlations({"a": [1, 2]}, gaps)
