"""Rademacher complexities against enumeration, closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis import AdversarialLinear, Finite, Kernel, Linear, empirical_rademacher
from analysis.rademacher import all_signs
from analysis.rademacher_bounds import expected_absolute_sum
from certify.errors import InvalidInput, InvalidSetting


def sample(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("norm", "power"), [(1, 0.0), (2, 0.5), (math.inf, 1.0)])
def test_orthogonal_points_have_the_closed_form(norm, power):
    # x_i = R e_i: R_S = W R N^power / N with power 0, 1/2, 1 for l1, l2, linf weights.
    n, reach, width = 8, 3.0, 2.0
    value = empirical_rademacher(Linear(norm=norm, radius=width), reach * torch.eye(n)).value
    assert value == pytest.approx(width * reach * n**power / n, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_one_dimension_is_the_expected_absolute_sum(n):
    value = empirical_rademacher(Linear(norm=1, radius=1.0), torch.ones(n, 1), method="exact").value
    assert value == pytest.approx(expected_absolute_sum(n) / n, rel=1e-12)


@pytest.mark.parametrize("norm", [1, 2, math.inf, 3.0])
@pytest.mark.parametrize("interval", ["t", "bootstrap", "guaranteed"])
def test_monte_carlo_interval_holds_the_enumerated_value_at_n_12(norm, interval):
    points = sample(12, 5)
    cls = Linear(norm=norm, radius=1.5, bias=0.3)
    exact = empirical_rademacher(cls, points, method="exact")
    estimate = empirical_rademacher(
        cls, points, method="mc", draws=3000, delta=0.01, interval=interval,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert estimate.low <= exact.value <= estimate.high
    assert estimate.high - estimate.low < 0.5 * exact.value
    assert exact.low == exact.value == exact.high


def test_t_interval_covers_at_its_level():
    # 300 independent intervals at 95 %: fails by chance with probability below 1e-4.
    points = sample(12, 4)
    cls = Linear(norm=2, radius=1.0)
    exact = empirical_rademacher(cls, points, method="exact").value
    hits = 0
    for seed in range(300):
        got = empirical_rademacher(
            cls, points, method="mc", draws=100, generator=torch.Generator().manual_seed(seed)
        )
        hits += got.low <= exact <= got.high
    assert stats.binomtest(hits, 300, 0.95, alternative="less").pvalue > 1e-4


def test_guaranteed_interval_is_mcdiarmids():
    points, draws, delta = sample(20, 3), 500, 0.05
    cls = Linear(norm=1, radius=2.0)
    got = empirical_rademacher(cls, points, draws=draws, delta=delta, interval="guaranteed")
    c = 2 * 2.0 * points.abs().amax(1) / 20
    half = math.sqrt(float((c**2).sum()) * math.log(2 / delta) / (2 * draws))
    assert got.high - got.value == pytest.approx(half, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.05, 20), seed=st.integers(0, 1000), n=st.integers(1, 8), d=st.integers(1, 4),
    norm=st.sampled_from([1, 2, math.inf]),
)  # fmt: skip
def test_complexity_is_homogeneous(scale, seed, n, d, norm):
    points = sample(n, d, seed)
    one = empirical_rademacher(Linear(norm=norm, radius=1.0), points).value
    many = empirical_rademacher(Linear(norm=norm, radius=scale), points).value
    assert many == pytest.approx(scale * one, rel=1e-9)


def test_bias_adds_exactly_the_absolute_sum():
    points = sample(7, 3)
    with_bias = empirical_rademacher(Linear(norm=2, radius=1.0, bias=2.0), points).value
    without = empirical_rademacher(Linear(norm=2, radius=1.0), points).value
    assert with_bias - without == pytest.approx(2.0 * expected_absolute_sum(7) / 7, rel=1e-12)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_adversarial_supremum_beats_every_function_and_is_attained(norm):
    # Brute force over many weight vectors in d = 2: never above, and close from below.
    gen = torch.Generator().manual_seed(1)
    points, attack = sample(6, 2, seed=5), 0.4
    labels = 2 * torch.randint(0, 2, (6,), generator=gen) - 1
    cls = AdversarialLinear(norm=norm, radius=1.3, attack=attack, labels=labels)
    signs = all_signs(6)
    exact = cls.supremum(signs, points)
    angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
    w = torch.stack([angle.cos(), angle.sin()], 1)
    w = 1.3 * w / torch.linalg.vector_norm(w, float(norm), dim=1, keepdim=True)
    margin = labels * (w @ points.T) - attack * w.abs().sum(1, keepdim=True)
    brute = (signs @ margin.T / 6).amax(1).clamp_min(0.0)
    assert torch.all(brute <= exact + 1e-12)
    assert torch.allclose(brute, exact, atol=1e-3)


def test_adversarial_with_dual_attack_norm_matches_the_scalar_problem():
    points = sample(5, 3)
    labels = torch.tensor([1, -1, 1, 1, -1])
    cls = AdversarialLinear(norm=2, radius=1.0, attack=0.3, labels=labels, attack_norm=2)
    signs = all_signs(5)
    total = torch.linalg.vector_norm(signs @ (labels[:, None] * points), dim=1)
    assert torch.allclose(cls.supremum(signs, points), (total - 0.3 * signs.sum(1)).clamp_min(0) / 5)


def test_adversarial_attack_of_size_zero_is_the_linear_class():
    points, labels = sample(9, 4), torch.ones(9)
    for norm in (1, 2, math.inf):
        robust = empirical_rademacher(AdversarialLinear(norm, 1.0, 0.0, labels), points).value
        assert robust == pytest.approx(empirical_rademacher(Linear(norm, 1.0), points).value, rel=1e-12)


def test_adversarial_refuses_what_it_cannot_solve():
    with pytest.raises(InvalidSetting, match="dual"):
        AdversarialLinear(norm=1, radius=1.0, attack=0.1, labels=torch.ones(3), attack_norm=2)
    with pytest.raises(InvalidInput, match="-1"):
        AdversarialLinear(norm=1, radius=1.0, attack=0.1, labels=torch.tensor([0, 1]))


def test_linear_kernel_is_the_l2_class():
    points = sample(10, 3)
    kernel = empirical_rademacher(Kernel(lambda a, b: a @ b.T, radius=2.0), points).value
    assert kernel == pytest.approx(empirical_rademacher(Linear(2, 2.0), points).value, rel=1e-9)


def test_gaussian_kernel_stays_below_its_trace_bound():
    points = sample(10, 3)
    value = empirical_rademacher(Kernel.gaussian(1.0, radius=2.0), points).value
    assert 2.0 / math.sqrt(2 * 10) <= value <= 2.0 / math.sqrt(10)


def test_finite_class_by_hand():
    # Two functions f, -f on two points: sup = |eps_1 a + eps_2 b|/2.
    cls = Finite([lambda x: x[:, 0], lambda x: -x[:, 0]])
    value = empirical_rademacher(cls, torch.tensor([[3.0], [1.0]])).value
    assert value == pytest.approx((4 + 2) / 2 / 2)


def test_diffusion_lowers_the_complexity_of_half_spaces():
    gen = torch.Generator().manual_seed(0)
    weights, offsets = torch.randn(400, 2, generator=gen), torch.randn(400, generator=gen)
    points = sample(60, 2)
    values = [
        empirical_rademacher(Finite.half_spaces(weights, offsets, sigma=s), points, draws=400).value
        for s in (0.0, 0.25, 1.0, 2.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5 * values[0]


def test_smoothed_half_space_is_the_gaussian_average():
    weights, offsets = torch.tensor([[3.0, 4.0]]), torch.tensor([0.5])
    smooth = Finite.half_spaces(weights, offsets, sigma=0.7).outputs(torch.zeros(1, 2))
    assert float(smooth) == pytest.approx(stats.norm.cdf(0.5 / (0.7 * 5)), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: empirical_rademacher(Linear(1, 1.0), torch.empty(0, 2)), InvalidInput),
        (lambda: empirical_rademacher(Linear(1, 1.0), torch.tensor([[math.nan]])), InvalidInput),
        (lambda: empirical_rademacher(Linear(1, 1.0), torch.ones(30, 1), method="exact"), InvalidSetting),
        (lambda: empirical_rademacher(Linear(1, 1.0), torch.ones(3, 1), method="bracket"), InvalidSetting),
        (lambda: empirical_rademacher(Linear(1, 1.0), torch.ones(3, 1), draws=1), InvalidSetting),
        (lambda: Linear(0.5, 1.0), InvalidSetting),
        (lambda: Linear(1, -1.0), InvalidSetting),
        (lambda: Finite([]), InvalidSetting),
    ],
)
def test_bad_input_is_refused_by_name(call, error):
    with pytest.raises(error):
        call()


def test_result_is_plain_json():
    import json

    got = empirical_rademacher(Linear(1, 1.0), np.ones((4, 2)))
    assert json.loads(json.dumps(got.to_json()))["value"] == got.value
