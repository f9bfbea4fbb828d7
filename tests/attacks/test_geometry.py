import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.geometry import distance, inside, norm, project, random_start
from attacks.hyperplane import to_hyperplane

NORMS = [1.0, 2.0, math.inf]


@pytest.mark.parametrize("p", NORMS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.floats(1e-3, 5.0), scale=st.sampled_from([1.0, 255.0]))
def test_inside_is_exact_in_double_precision(p, seed, eps, scale):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand((5, 3, 4), generator=g) * scale
    wild = x + torch.randn((5, 3, 4), generator=g) * eps * scale
    size = torch.full((5,), eps * scale)
    found = inside(x, wild, size, p, (0.0, scale))
    assert (distance(x, found, p) <= size.double()).all()
    assert (found >= 0).all()
    assert (found <= scale).all()


@pytest.mark.parametrize("p", NORMS)
def test_projection_leaves_a_point_of_the_ball_alone_and_is_nearest_for_l1(p):
    g = torch.Generator().manual_seed(1)
    x = torch.rand((6, 8), generator=g)
    eps = torch.full((6,), 0.3)
    near = x + 0.01 * (torch.rand((6, 8), generator=g) - 0.5)
    assert torch.allclose(project(x, near.clamp(0, 1), eps, p, (0.0, 1.0)), near.clamp(0, 1), atol=1e-6)
    if p != 1:
        return
    far = x + torch.randn((6, 8), generator=g)
    best = project(x, far, eps, p, (0.0, 1.0))
    for _ in range(200):
        other = project(x, best + 0.05 * torch.randn((6, 8), generator=g), eps, p, (0.0, 1.0))
        assert (norm(far - best, 2) <= norm(far - other, 2) + 1e-5).all()


@pytest.mark.parametrize("p", NORMS)
def test_random_starts_lie_in_ball_and_box(p):
    g = torch.Generator().manual_seed(2)
    x = torch.rand((20, 7), generator=g)
    noise = torch.rand((20, 7), generator=g) if math.isinf(p) else torch.randn((20, 7), generator=g)
    start = random_start(x, noise, torch.full((20,), 0.4), p, (0.0, 1.0))
    assert (norm(start - x, p) <= 0.4 + 1e-5).all()
    assert (start >= 0).all()
    assert (start <= 1).all()


@pytest.mark.parametrize("p", NORMS)
def test_without_a_box_the_hyperplane_is_at_excess_over_dual_norm(p):
    g = torch.Generator().manual_seed(3)
    t, w = torch.randn((30, 9), generator=g), torch.randn((30, 9), generator=g)
    excess = torch.randn(30, generator=g)
    move = to_hyperplane(t, w, excess, p, (-math.inf, math.inf))
    assert torch.allclose((w * move).sum(1), -excess, atol=1e-4)
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
    assert torch.allclose(norm(move, p), excess.abs() / norm(w, dual), rtol=1e-4)


@pytest.mark.parametrize("p", NORMS)
def test_in_a_box_no_feasible_move_is_shorter(p):
    """Against a general solver: minimise the norm subject to the plane and the box."""
    import numpy as np
    from scipy.optimize import linprog, minimize

    rng = np.random.default_rng(4)
    for _ in range(12):
        d = 5
        t, w = rng.random(d), rng.normal(size=d)
        reachable = np.where(w > 0, t, t - 1) @ w
        excess = 0.7 * reachable
        move = to_hyperplane(
            torch.tensor(t)[None], torch.tensor(w)[None], torch.tensor([excess]), p, (0.0, 1.0)
        )[0].numpy()
        assert move @ w == pytest.approx(-excess, rel=1e-5)
        assert (t + move > -1e-9).all()
        assert (t + move < 1 + 1e-9).all()
        bounds = [(-a, 1 - a) for a in t]
        if p == 2:
            solved = minimize(
                lambda z: z @ z, np.zeros(d), jac=lambda z: 2 * z, bounds=bounds, method="SLSQP",
                constraints={"type": "eq", "fun": lambda z, w=w, e=excess: w @ z + e},
            )  # fmt: skip
            assert np.linalg.norm(move) <= np.linalg.norm(solved.x) * (1 + 1e-4)
        else:  # |z|_1 or |z|_inf as a linear programme in (z, bound)
            extra = d if p == 1 else 1
            eye = np.eye(d)
            tail = -np.eye(d) if p == 1 else -np.ones((d, 1))
            solved = linprog(
                np.r_[np.zeros(d), np.ones(extra)],
                A_ub=np.block([[eye, tail], [-eye, tail]]), b_ub=np.zeros(2 * d),
                A_eq=np.r_[w, np.zeros(extra)][None], b_eq=[-excess],
                bounds=bounds + [(0, None)] * extra,
            )  # fmt: skip
            size = np.abs(move).sum() if p == 1 else np.abs(move).max()
            assert size <= solved.fun * (1 + 1e-5) + 1e-9


def test_an_unreachable_plane_gives_the_nearest_corner():
    t = torch.tensor([[0.5, 0.5]])
    w = torch.tensor([[1.0, -1.0]])
    for p in NORMS:
        move = to_hyperplane(t, w, torch.tensor([10.0]), p, (0.0, 1.0))
        assert torch.allclose(t + move, torch.tensor([[0.0, 1.0]]))


def test_a_ball_does_not_grow_when_its_size_is_stored():
    from attacks.oracle import Oracle
    from attacks.problem import Problem

    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    sizes = torch.tensor([0.1, 0.7, 1e-3], dtype=torch.float64)  # the first and last round up in float32
    problem = Problem.of(
        Oracle(torch.nn.Identity(), 3), x, y, eps=sizes, p=2.0, box=(0.0, 1.0), seed=0, classes=2
    )
    assert (problem.eps.double() <= sizes).all()
    assert torch.allclose(problem.eps.double(), sizes, rtol=1e-6)
