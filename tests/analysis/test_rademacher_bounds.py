"""The printed covering bound fails, the corrected one holds, and the order of the bounds is right."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Finite, Kernel, Linear, empirical_rademacher, linear_bounds
from analysis.rademacher_bounds import (
    covering_as_printed,
    covering_corrected,
    expected_absolute_sum,
    kernel_bound,
    l2_bound,
    linf_bound,
    massart_data,
    massart_finite,
    massart_vertices,
)
from certify.errors import InvalidSetting


def sample(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_figures_of_the_smallest_counterexample():
    assert empirical_rademacher(Linear(1, 10.0), torch.ones(1, 1)).value == 10.0
    assert covering_as_printed(1, 1, 10.0, 1.0) == pytest.approx(3.333, abs=2e-3)
    assert covering_corrected(1, 1, 10.0, 1.0) == pytest.approx(23.9, abs=0.05)
    truth = 10 * expected_absolute_sum(1000) / 1000
    assert truth == pytest.approx(0.252, abs=5e-4)
    assert covering_as_printed(1, 1000, 10.0, 1.0) == pytest.approx(0.136, abs=5e-4)


def test_vertices_beat_the_covering_at_mnist_size():
    assert massart_vertices(784, 60_000, 1.0, 1.0) == pytest.approx(0.0157, abs=1e-3)
    assert covering_corrected(784, 60_000, 1.0, 1.0) == pytest.approx(0.376, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    dim=st.integers(1, 50), n=st.integers(1, 2000), width=st.floats(0.1, 30), scale=st.floats(2.0, 40.0)
)  # fmt: skip
def test_homogeneity_holds_for_the_corrected_bound(dim, n, width, scale):
    one = covering_corrected(dim, n, width, 1.0)
    assert covering_corrected(dim, n, scale * width, 1.0) == pytest.approx(scale * one, rel=1e-6)
    one = massart_vertices(dim, n, width, 1.0)
    assert massart_vertices(dim, n, scale * width, 1.0) == pytest.approx(scale * one, rel=1e-12)


@pytest.mark.parametrize(("dim", "n", "width"), [(1, 1, 1.0), (1, 1000, 10.0), (5, 50, 2.0), (64, 300, 1.0)])
def test_homogeneity_fails_for_the_printed_bound(dim, n, width):
    one = covering_as_printed(dim, n, width, 1.0)
    assert covering_as_printed(dim, n, 10 * width, 1.0) < 0.7 * 10 * one


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 10), d=st.integers(1, 4), seed=st.integers(0, 10_000), width=st.floats(0.1, 30))
def test_every_sound_bound_is_above_the_enumerated_complexity(n, d, seed, width):
    points = sample(n, d, seed)
    for norm in (1, 2, math.inf):
        cls = Linear(norm, width, bias=0.5)
        exact = empirical_rademacher(cls, points, method="exact").value
        for bound in linear_bounds(cls, points):
            if bound.sound:
                assert bound.value >= exact * (1 - 1e-9), bound.name


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 200), d=st.integers(1, 30), seed=st.integers(0, 10_000))
def test_massart_on_data_is_below_massart_on_vertices_is_below_covering(n, d, seed):
    points = sample(n, d, seed)
    reach = float(points.abs().max())
    data, vertices = massart_data(points, 1.0), massart_vertices(d, n, 1.0, reach)
    assert data <= vertices * (1 + 1e-12)
    assert vertices <= covering_corrected(d, n, 1.0, reach)


def test_finite_class_is_below_massart():
    points = sample(12, 3)
    outputs = sample(20, 12, seed=1)
    cls = Finite([lambda _: outputs])
    exact = empirical_rademacher(cls, points).value
    assert exact <= massart_finite(outputs)


@pytest.mark.parametrize(("norm", "bound"), [(2, l2_bound), (math.inf, linf_bound)])
def test_khinchine_brackets_the_truth(norm, bound):
    points = sample(12, 4)
    exact = empirical_rademacher(Linear(norm, 2.0), points).value
    assert bound(points, 2.0) / math.sqrt(2) <= exact <= bound(points, 2.0)


def test_kernel_bound_is_above():
    points = sample(10, 2)
    cls = Kernel.gaussian(0.5, 1.5)
    assert empirical_rademacher(cls, points).value <= kernel_bound(points, cls)


def test_printed_bound_is_marked_unsound_and_refuted_by_the_data():
    points = torch.ones(1, 1)
    rows = {r.name: r for r in linear_bounds(Linear(1, 10.0), points)}
    assert not rows["covering bound, as printed"].sound
    assert rows["covering bound, as printed"].value < 10.0 < rows["covering bound, corrected"].value


def test_sizes_that_describe_no_class_are_refused():
    with pytest.raises(InvalidSetting):
        covering_as_printed(0, 1, 1.0, 1.0)
    with pytest.raises(InvalidSetting):
        covering_corrected(1, 1, 0.0, 1.0)
