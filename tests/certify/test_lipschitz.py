"""Lipschitz upper bounds against the assembled operator, and what must never be called one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from certify.errors import InvalidInput, InvalidModel, InvalidSetting
from certify.lipschitz import conv2d_upper, dense_upper, gradient_step_upper, lipschitz_upper


def gen(seed):
    return torch.Generator().manual_seed(seed)


def operator_norm(module, shape):
    """Largest singular value of a linear module's whole matrix, assembled column by column."""
    module = module.double()
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        offset = module(torch.zeros(1, *shape, dtype=torch.float64))
        matrix = (module(basis) - offset).flatten(1)
    return float(torch.linalg.matrix_norm(matrix, 2))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 10_000), scale=st.floats(-8, 8)
)
def test_power_is_below_svd_is_below_gram(rows, columns, seed, scale):
    w = 10.0**scale * torch.randn(rows, columns, generator=gen(seed), dtype=torch.float64)
    v = torch.randn(columns, generator=gen(seed + 1), dtype=torch.float64)
    for _ in range(50):
        v = w.T @ (w @ v)
        v = v / torch.linalg.vector_norm(v)
    power = float(torch.linalg.vector_norm(w @ v))
    svd, gram = dense_upper(w), dense_upper(w, method="gram")
    assert power <= svd <= gram * (1 + 1e-12)
    assert gram <= svd * 12 ** (1 / 2**13) * (1 + 1e-9)


@pytest.mark.parametrize("method", ["svd", "gram"])
def test_known_spectral_norms(method):
    assert dense_upper(torch.diag(torch.tensor([3.0, -5.0, 1.0])), method=method) == pytest.approx(5, 1e-3)
    assert dense_upper(torch.diag(torch.tensor([3.0, -5.0, 1.0])), method=method) >= 5.0
    assert dense_upper(torch.zeros(4, 3), method=method) < 1e-6
    rank_one = torch.outer(torch.arange(1.0, 5.0), torch.ones(9)).double()
    assert dense_upper(rank_one, method=method) == pytest.approx(3 * math.sqrt(30), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"padding": 1}, (6, 6)),
        ({"padding": 0}, (7, 5)),
        ({"padding": 2, "kernel_size": 5}, (12, 12)),
        ({"padding": 1, "stride": 2}, (8, 8)),
        ({"padding": 2, "dilation": 2}, (8, 8)),
        ({"padding": 1, "groups": 2}, (6, 6)),
        ({"padding": 1, "padding_mode": "circular"}, (6, 6)),
        ({"padding": 2, "padding_mode": "circular"}, (6, 6)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_convolution_bound_is_above_the_assembled_operator(options, size, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(2, 4, **({"kernel_size": 3} | options)).double().eval()
    true = operator_norm(conv, (2, *size))
    bound = lipschitz_upper(conv, (2, *size)).value
    assert true <= bound
    if conv.stride == (1, 1) and conv.padding_mode == "zeros":
        assert bound <= 1.3 * true


def test_circular_same_padding_is_exact_and_gram_is_above():
    weight = torch.randn(3, 3, 3, 3, generator=gen(3), dtype=torch.float64)
    conv = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular", bias=False).double()
    conv.weight.data = weight
    true = operator_norm(conv, (3, 8, 8))
    assert conv2d_upper(weight, (8, 8), circular=True) == pytest.approx(true, rel=1e-9)
    gram = conv2d_upper(weight, (8, 8), circular=True, method="gram")
    assert true <= gram <= 1.01 * true


def test_reshaped_kernel_and_torch_spectral_norm_are_not_upper_bounds():
    # A constant kernel: the reshaped matrix has norm 3, the operator nearly 9.
    weight = torch.ones(1, 1, 3, 3)
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    conv.weight.data = weight
    true = operator_norm(conv, (1, 10, 10))
    assert float(torch.linalg.matrix_norm(weight.reshape(1, -1), 2)) == pytest.approx(3.0)
    assert true > 8
    assert conv2d_upper(weight, (10, 10)) >= true
    torch.manual_seed(0)
    normed = parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1), n_power_iterations=50).eval()
    assert operator_norm(nn.Sequential(normed), (4, 6, 6)) > 1.2
    assert lipschitz_upper(normed.double(), (4, 6, 6)).value > 1.2


def test_no_pair_of_inputs_beats_the_bound_of_a_network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 5),
        nn.LeakyReLU(2.0), nn.Sequential(nn.Dropout(), nn.Linear(5, 3), nn.Softmax(1)),
    ).double()  # fmt: skip
    net(torch.randn(20, 1, 8, 8, dtype=torch.float64))  # moves the running statistics
    net.eval()
    bound = lipschitz_upper(net, (1, 8, 8))
    x = torch.randn(500, 1, 8, 8, generator=gen(1), dtype=torch.float64)
    y = x + 0.01 * torch.randn(x.shape, generator=gen(2), dtype=torch.float64)
    with torch.no_grad():
        ratio = torch.linalg.vector_norm(net(x) - net(y), dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(ratio.max()) <= bound.value
    assert bound.value == pytest.approx(math.prod(v for _, v in bound.layers), rel=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.AdaptiveAvgPool2d(3), (1, 7, 8)),
        (nn.AdaptiveAvgPool2d((5, None)), (1, 2, 4)),  # enlarging copies pixels: norm above 1
        (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
        (nn.AvgPool2d(3, 1, 1), (1, 6, 6)),
        (nn.AvgPool2d(2), (1, 6, 6)),
    ],
)
def test_averaging_layers_against_their_matrix(layer, shape):
    true = operator_norm(layer.eval(), shape)
    bound = lipschitz_upper(layer, shape).value
    assert true <= bound <= 1.5 * true


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), step=st.floats(0, 1.5), decay=st.floats(0, 1.5), size=st.floats(0.1, 2))
def test_gradient_step_never_expands_beyond_its_bound(seed, step, decay, size):
    w = size * torch.randn(6, 4, generator=gen(seed), dtype=torch.float64)
    bound = gradient_step_upper(dense_upper(w), step, decay)
    x = torch.randn(64, 4, generator=gen(seed + 1), dtype=torch.float64)
    y = torch.randn(64, 4, generator=gen(seed + 2), dtype=torch.float64)

    def g(z):
        return (1 - step * decay) * z - step * torch.tanh(z @ w.T) @ w

    ratio = torch.linalg.vector_norm(g(x) - g(y), dim=1) / torch.linalg.vector_norm(x - y, dim=1)
    assert float(ratio.max()) <= bound * (1 + 1e-12)


def test_gradient_step_contracts_where_the_one_sided_bound_says_so():
    # |W| = 1, step .5, decay 1: eigenvalues between 0 and .5; the two-sided bound would be 1.
    assert gradient_step_upper(1.0, 0.5, 1.0) == pytest.approx(0.5)
    assert gradient_step_upper(2.0, 1.0, 0.0) == pytest.approx(3.0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm(4),
        nn.MaxPool2d(2, dilation=2),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.Softplus(),
    ],
)
def test_a_layer_without_a_proof_is_refused(layer):
    with pytest.raises(InvalidModel, match="no proved"):
        lipschitz_upper(layer.eval(), (1, 4, 4))


def test_hooks_and_training_mode_are_refused():
    layer = nn.Linear(3, 3)
    with pytest.raises(InvalidModel, match="evaluation"):
        lipschitz_upper(layer, (3,))
    layer.eval().register_forward_hook(lambda m, i, o: 100 * o)
    with pytest.raises(InvalidModel, match="hook"):
        lipschitz_upper(layer, (3,))


def test_bad_numbers_are_refused():
    with pytest.raises(InvalidInput):
        dense_upper(torch.tensor([[math.nan]]))
    with pytest.raises(InvalidSetting):
        dense_upper(torch.eye(2), method="power")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting):
        gradient_step_upper(-1.0, 0.1, 0.0)
