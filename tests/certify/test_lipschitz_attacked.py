"""Every bound on a slope is attacked by gradient ascent on networks put together at random.

A bound that any pair of inputs exceeds would be a wrong certificate; a network that has none must be
refused by the name of the layer that is in the way.
"""

import math
import random
import re
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from analysis.lipschitz_estimates import lipschitz_bracket
from certify.errors import InvalidInput, InvalidModel, InvalidSetting
from certify.lipschitz import conv2d_upper, dense_upper, gradient_step_upper, lipschitz_upper, product_up
from tests.certify.random_networks import Doubling, Twice, assembled, steepest


def bound_or_refusal(net, shape) -> tuple[float, str]:
    try:
        return lipschitz_upper(net, shape).value, ""
    except InvalidModel as error:
        return math.inf, str(error)


def attacked(seeds) -> tuple[int, int]:
    """(bounds that held, those of them that some pair comes within a half of)."""
    held = tight = 0
    for seed in seeds:
        net, shape = assembled(seed)
        bound, refusal = bound_or_refusal(net, shape)
        if refusal:
            assert re.search(r"(for|and) [\w.]+: \w+", refusal.splitlines()[0]), refusal
            continue
        found = steepest(net, shape, seed)
        assert found <= bound * (1 + 1e-9), f"seed {seed}: {bound} claimed, {found} found in {net}"
        held, tight = held + 1, tight + (found > bound / 2)
    return held, tight


@pytest.mark.filterwarnings("ignore")
def test_no_network_put_together_at_random_beats_its_bound():
    held, tight = attacked(range(250))
    assert held >= 110
    assert tight >= 70


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_network_of_two_thousand_beats_its_bound():
    held, _ = attacked(range(250, 2250))
    assert held >= 900


def linear(value=1.0, **options):
    layer = nn.Linear(1, 1, bias=False, **options).double()
    layer.weight.data.fill_(value)
    return layer


def test_a_layer_that_is_used_twice_counts_twice():
    twice = linear(2.0)
    inner = nn.Sequential(twice, nn.ReLU())
    net = nn.Sequential(inner, twice, inner).eval()
    bound = lipschitz_upper(net, (1,))
    assert bound.value == pytest.approx(8.0)
    assert [name for name, _ in bound.layers] == [
        "0.0: Linear",
        "0.1: ReLU",
        "1: Linear",
        "2.0: Linear",
        "2.1: ReLU",
    ]


@pytest.mark.parametrize("layer", [nn.Dropout(0.9), nn.BatchNorm1d(1), nn.ReLU(), nn.Sequential(nn.RReLU())])
def test_training_mode_anywhere_is_refused_and_changes_nothing(layer):
    net = nn.Sequential(linear(), nn.Sequential(layer)).eval()
    layer.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(InvalidModel, match=r"1\.0: .* is in training mode"):
        lipschitz_upper(net, (1,))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "slope"),
    [
        (nn.ELU(-5.0), 5.0),
        (nn.ELU(0.5), 1.0),
        (nn.LeakyReLU(-3.0), 3.0),
        (nn.PReLU(init=-4.0), 4.0),
        (nn.Softmax(1), 0.5),
        (nn.Softmax(-1), 0.5),
        (nn.AlphaDropout(0.5), 1.0),
    ],
)
def test_the_slope_of_an_activation_follows_its_options_and_is_reached(layer, slope):
    net = nn.Sequential(layer).double()
    net.eval()
    x = torch.tensor([[-1e-6, 1e-6]], dtype=torch.float64)
    steep = torch.tensor([[-1e-6, 0.0]] if slope > 1 else [[0.0, 1e-6]], dtype=torch.float64)
    y = -x if isinstance(layer, nn.Softmax) else x + steep
    with torch.no_grad():
        found = float((net(x) - net(y)).norm() / (x - y).norm())
    assert lipschitz_upper(net, (2,)).value == pytest.approx(slope)
    assert 0.99 * slope <= found <= slope * (1 + 1e-9)


def swapped(layer, **changes):
    for name, value in changes.items():
        setattr(layer, name, value)
    return layer


def negative_variance():
    layer = nn.BatchNorm1d(2)
    layer.running_var[1] = -1.0 + 1e-7
    return layer


def batch_statistics():
    return nn.BatchNorm1d(2, track_running_stats=False)


class Hidden(nn.Linear):
    """Equal in all but its class."""


@pytest.mark.parametrize(
    "layer",
    [
        Hidden(2, 2), Doubling(), nn.Sequential(Hidden(2, 2)), type("Own", (nn.Sequential,), {})(nn.ReLU()),
        swapped(nn.ReLU(), forward=lambda x: 10 * x),
        swapped(nn.Sequential(nn.ReLU()), forward=lambda x: 10 * x),
        parametrize.register_parametrization(nn.Linear(2, 2), "weight", Twice()),
        negative_variance(), swapped(nn.BatchNorm1d(2), eps=-2.0), batch_statistics(),
        swapped(nn.BatchNorm1d(2), eps=math.nan), nn.ELU(math.inf), nn.LeakyReLU(math.nan), nn.ELU(math.nan),
        nn.Softmax(dim=0), nn.Softmax(dim=-2), nn.Softmax(), nn.Flatten(0), nn.Unflatten(0, (1, 3)),
        nn.Softplus(), nn.Threshold(0.5, 0.0), nn.Hardshrink(), nn.LazyLinear(2), nn.Linear(3, 2),
        nn.Linear(2, 2, device="meta"), nn.Linear(2, 2, dtype=torch.complex64), nn.InstanceNorm1d(2),
        nn.Sequential(nn.Linear(2, 2, bias=False), swapped(nn.Linear(2, 2), bias=None, weight=None)),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_bound_is_refused_by_name(layer):
    with pytest.raises(InvalidModel, match=r"no proved Lipschitz bound for .*: \w+"):
        lipschitz_upper(nn.Sequential(nn.Identity(), layer).eval(), (2,))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_numbers_that_are_not_finite_are_refused(name, bad):
    layer = nn.BatchNorm1d(2).eval()
    with torch.no_grad():
        getattr(layer, name)[0] = bad
    with pytest.raises(InvalidModel, match=f"its {name} is not made of finite"):
        lipschitz_upper(layer, (2,))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.MaxPool2d(2), (6, 6)),  # without a channel axis the batch would be taken for one
        (nn.Conv2d(3, 3, 1), (6, 6)),
        (nn.MaxPool2d(2, return_indices=True), (1, 6, 6)),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), (1, 6, 6)),
        (nn.AvgPool2d(2, divisor_override=1), (1, 6, 6)),
        (nn.Upsample(scale_factor=2), (1, 6, 6)),
        (nn.LPPool2d(2, 2), (1, 6, 6)),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate"), (1, 6, 6)),
        (nn.ConvTranspose2d(1, 1, 3), (1, 6, 6)),
    ],
)
def test_options_without_a_proof_and_missing_axes_are_refused(layer, shape):
    with pytest.raises(InvalidModel, match="no proved"):
        lipschitz_upper(layer.eval(), shape)


def test_a_circular_convolution_is_bounded_by_what_it_pads_not_by_what_it_says():
    conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False).double().eval()
    conv.weight.data.fill_(1.0)
    conv._reversed_padding_repeated_twice = [3, 3, 3, 3]  # what forward reads
    net = nn.Sequential(conv).eval()
    assert steepest(net, (1, 4, 4), 0) > 9.0
    assert steepest(net, (1, 4, 4), 0, steps=40) <= lipschitz_upper(net, (1, 4, 4)).value


def test_a_container_that_holds_itself_is_refused():
    net = nn.Sequential(nn.ReLU()).eval()
    net.append(net)
    with pytest.raises(InvalidModel, match="without end"):
        lipschitz_upper(net, (2,))


def test_a_product_whose_parts_vanish_or_overflow_is_still_a_bound():
    factors = [1e-200, 1e-200, 1e250, 1e250]
    assert product_up(factors) == pytest.approx(1e100, rel=1e-12)
    assert Fraction(product_up(factors)) >= math.prod(map(Fraction, factors))
    assert product_up([1e-200, 1e-200]) > 0.0
    assert product_up([1e-200, 0.0]) == 0.0
    huge = nn.Sequential(linear(1e200), linear(1e200)).eval()
    with pytest.raises(InvalidModel, match="too large"):
        lipschitz_upper(huge, (1,))


@pytest.mark.parametrize("shape", [(), (0,), (2.5,), (-1,)])
def test_a_shape_that_no_input_has_is_refused(shape):
    with pytest.raises(InvalidSetting, match="input_shape"):
        lipschitz_upper(nn.ReLU().eval(), shape)


def test_the_bracket_of_a_changed_network_has_no_upper_end():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()
    x = torch.randn(4, 3)
    assert math.isfinite(lipschitz_bracket(net, x, ascent_steps=2).upper)
    net[1].register_forward_hook(lambda module, args, out: 100 * out)
    found = lipschitz_bracket(net, x, ascent_steps=2)
    assert math.isinf(found.upper)
    assert found.lower > 0


# -- single operators -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["svd", "gram"])
@pytest.mark.parametrize("size", [1e-320, 1e-310, 1e-200, 1.0, 1e200, 1e307])
def test_matrices_of_any_size_are_bounded_from_above(method, size):
    # Known norm: 5 times the size, exactly.
    matrix = size * torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    exact = max(abs(Fraction(float(v))) for v in matrix[1]) ** 2 + Fraction(float(matrix[0, 0])) ** 2
    bound = dense_upper(matrix, method=method)
    assert math.isinf(bound) or Fraction(bound) ** 2 >= exact
    assert math.isinf(bound) == (size == 1e308)
    kernel = matrix.reshape(1, 1, 2, 2)
    assert conv2d_upper(kernel, (3, 3), method=method) >= float(matrix.max())


def test_no_operator_beats_its_bound():
    r = random.Random(0)
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        groups, k, d, stride = (
            r.choice([1, 2]),
            (r.choice([1, 2, 3]), 3),
            r.choice([1, 2]),
            r.choice([1, 2, 3]),
        )
        weight = torch.randn(4, 2 // groups, *k, generator=g, dtype=torch.float64)
        padding = r.choice([0, 1, 3])

        def conv(x, w=weight, s=stride, p=padding, d=d, groups=groups):
            return F.conv2d(x, w, None, s, p, d, groups)

        found = steepest(conv, (2, 7, 8), seed, steps=40)
        for method in ("svd", "gram"):
            bound = conv2d_upper(weight, (7, 8), dilation=(d, d), groups=groups, method=method)
            assert found <= bound * (1 + 1e-12)
        matrix = weight.flatten(1)
        assert steepest(lambda x, m=matrix: x @ m.T, (matrix.shape[1],), seed, steps=40) <= dense_upper(
            matrix
        )


@pytest.mark.parametrize(
    ("norm", "step", "decay"),
    [
        (0.0, 0.1, 10.0),
        (0.0, 1 / 3, 3.0),
        (1.0, 0.3, 7 / 3),
        (0.1**0.5, 0.9, 1.0111111111111111),
        (3.0, 0.1, 0.0),
    ],
)
def test_a_gradient_step_whose_terms_cancel_is_bounded_in_exact_arithmetic(norm, step, decay):
    stay = 1 - Fraction(step) * Fraction(decay)
    pulled = stay - Fraction(step) * Fraction(norm) ** 2
    assert Fraction(gradient_step_upper(norm, step, decay)) >= max(abs(stay), abs(pulled))


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (torch.ones(2, 2, 1, 1, dtype=torch.complex128), {}),
        (torch.ones(2, 2), {}),
        (torch.ones(3, 1, 3, 3), {"groups": 2}),
        (torch.ones(2, 1, 3, 3), {"groups": 0}),
        (torch.ones(2, 2, 3, 3), {"dilation": (0, 1)}),
        (torch.ones(2, 2, 3, 3), {"method": "power"}),
        (torch.full((1, 1, 1, 1), math.nan), {}),
        (torch.ones(1, 1, 1, 1, device="meta"), {}),
    ],
)
def test_a_convolution_that_is_none_is_refused(weight, options):
    with pytest.raises((InvalidInput, InvalidSetting)):
        conv2d_upper(weight, (4, 4), **options)
    with pytest.raises(InvalidSetting, match="input_size"):
        conv2d_upper(torch.ones(1, 1, 1, 1), (0, 4))


def test_a_complex_matrix_is_refused_and_not_cut_to_its_real_part():
    with pytest.raises(InvalidInput, match="complex64"):
        dense_upper(10j * torch.eye(2))


def test_torch_parametrizations_are_read_at_their_value():
    torch.manual_seed(0)
    for make in (parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal):
        net = nn.Sequential(make(nn.Linear(4, 4)), nn.ReLU()).double().eval()
        bound = lipschitz_upper(net, (4,)).value
        assert 0.5 * bound <= steepest(net, (4,), 1, steps=40) <= bound * (1 + 1e-9)
