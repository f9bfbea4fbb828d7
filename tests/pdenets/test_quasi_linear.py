"""Quasi-linear networks: counts, equations, stable balls, and where the symmetry holds and fails."""

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets.balls import hardball, softball
from pdenets.quasi_linear import ACTIVATIONS, EQUATIONS, QuasiLinearBlock, quasi_linear

D = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"equation": 3}, 8_608_868),
        ({"equation": 3, "shared": False}, 8_728_100),
        ({"equation": 3, "shared": False, "kernels": 6}, 12_971_044),
        ({"equation": 4}, 5_696_612),
        ({"equation": 5}, 4_259_556),
        ({"equation": 6}, 5_610_596),
        ({"equation": 7, "shared": False, "kernels": 6}, 12_971_044),
    ],
)
def test_parameter_counts_of_the_paper(arguments, count):
    with torch.device("meta"):
        net = quasi_linear(num_classes=100, input_shape=(3, 224, 224), **arguments)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("shared", [True, False])
def test_every_equation_runs_and_its_rate_is_quadratic(equation, shared):
    torch.manual_seed(0)
    net = quasi_linear(num_classes=4, input_shape=(2, 9, 8), equation=equation, shared=shared)
    net(torch.randn(3, 2, 9, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    block = QuasiLinearBlock(
        5, 5, stride=1, equation=equation, kernels=4, shared=shared, activation=torch.nn.Identity()
    ).double()
    block.eval()
    u = torch.randn(2, 5, 6, 6, generator=generator(), dtype=D)
    assert torch.allclose(block._rate(3 * u), 9 * block._rate(u), rtol=1e-10)


def test_equation_3_is_the_printed_sum():
    torch.manual_seed(1)
    block = QuasiLinearBlock(
        3, 3, stride=1, equation="3", kernels=4, shared=True, activation=torch.nn.Identity()
    )
    block = block.double().eval()
    u = torch.randn(1, 3, 7, 7, generator=generator(), dtype=D)
    a, c = block.out.conv.weight[:, :, 0, 0], block.mix.weight[:, :, 0, 0]
    expected = torch.zeros(1, 3, 7, 7, dtype=D)
    for q in range(4):
        kernel = block.derivative.weight[q : q + 1]
        for j in range(3):
            slope = torch.nn.functional.conv2d(u[:, j : j + 1], kernel, padding=1)
            product = torch.einsum("k,bkhw->bhw", c[4 * j + q], u)[:, None] * slope
            expected += a[:, 4 * j + q].view(1, 3, 1, 1) * product
    # In eval mode a fresh batch norm only divides by sqrt(1 + eps): here twice.
    assert torch.allclose(block._rate(u), expected / (1 + 1e-5), rtol=1e-9)


@pytest.mark.parametrize("ball", [hardball, softball])
def test_balls_bound_the_norm_and_commute_with_rotations(ball):
    x = 10 * torch.randn(4, 6, 3, 3, generator=generator(), dtype=D)
    out = ball(x)
    assert (out.norm(dim=1) <= 6**0.5 + 1e-12).all()
    q = torch.linalg.qr(torch.randn(6, 6, generator=generator(1), dtype=D)).Q
    turn = lambda z: torch.einsum("ab,bchw->achw", q, z.transpose(0, 1)).transpose(0, 1)  # noqa: E731
    assert torch.allclose(ball(turn(x)), turn(out), atol=1e-13)


def test_balls_agree_with_their_formulas():
    x = 2 * torch.randn(4, 6, 3, 3, generator=generator(), dtype=D)
    norm = x.norm(dim=1, keepdim=True)
    assert torch.allclose(softball(x), x / (1 + norm**2 / 6).sqrt(), atol=1e-14)
    assert torch.allclose(hardball(x), torch.where(norm < 6**0.5, x, 6**0.5 * x / norm), atol=1e-14)
    assert torch.autograd.gradcheck(softball, x.clone().requires_grad_())
    assert torch.autograd.gradcheck(hardball, x.clone().requires_grad_())


@pytest.mark.parametrize("ball", [hardball, softball])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20, 1e38])
def test_balls_survive_zero_and_huge_pixels_in_single_precision(ball, size):
    x = torch.full((1, 4, 2, 2), size, requires_grad=True)
    out = ball(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    if size >= 1e20:
        assert torch.allclose(out.norm(dim=1), torch.tensor(2.0), rtol=1e-5)


def change(activation, group, seed=0):
    """Relative change of the outputs when the channels are transformed by elements of the group."""
    torch.manual_seed(seed)
    net = quasi_linear(
        num_classes=5, input_shape=(1, 8, 8), equation="factored", activation=activation, placement="all"
    ).double()
    g = generator(seed)
    with torch.no_grad():
        for _ in range(3):  # statistics for the batch norms
            net(torch.randn(16, 1, 8, 8, generator=g, dtype=D))
    net.eval()
    matrices = []
    for n in (16, 32):
        random = torch.randn(n, n, generator=g, dtype=D)
        matrices.append(
            {
                "GL": torch.eye(n, dtype=D) + 0.5 * random / n**0.5,
                "O": torch.linalg.qr(random).Q,
                "S": torch.eye(n, dtype=D)[torch.randperm(n, generator=g)],
            }[group]
        )
    x = torch.randn(8, 1, 8, 8, generator=g, dtype=D)
    before, after = net(x), net.transform(*matrices)(x)
    return ((after - before).norm() / before.norm()).item()


SYMMETRIES = {"none": "GL O S", "softball": "O S", "hardball": "O S", "hardtanh": "S", "relu": "S"}


@pytest.mark.parametrize("group", ["GL", "O", "S"])
@pytest.mark.parametrize("activation", sorted(SYMMETRIES))
def test_symmetry_holds_exactly_where_the_theory_says(activation, group):
    found = change(activation, group)
    if group in SYMMETRIES[activation].split():
        assert found < 1e-12
    else:
        assert found > 1e-2
    assert set(SYMMETRIES) == set(ACTIVATIONS)


def test_folding_changes_nothing_and_the_original_is_left_alone():
    torch.manual_seed(0)
    net = quasi_linear(num_classes=3, input_shape=(1, 8, 8), equation="factored").double().eval()
    x = torch.randn(4, 1, 8, 8, generator=generator(), dtype=D)
    before = net(x)
    net.transform(2 * torch.eye(16, dtype=D), None)
    assert torch.equal(net(x), before)
    assert torch.allclose(net.folded()(x), before, atol=1e-12)


def test_only_the_factored_form_is_transformed():
    with pytest.raises(InvalidSetting, match="cannot be transformed"):
        quasi_linear(num_classes=3, input_shape=(1, 8, 8)).transform(torch.eye(16), torch.eye(32))
    net = quasi_linear(num_classes=3, input_shape=(1, 8, 8), equation="factored")
    for bad in [(torch.eye(16),), (torch.eye(32), torch.eye(16))]:
        with pytest.raises(InvalidSetting, match="channels"):
            net.transform(*bad)


@pytest.mark.parametrize(
    "bad", [{"equation": 8}, {"activation": "gelu"}, {"placement": "ends"}, {"widths": (8,)}]
)
def test_forms_that_do_not_exist_are_refused(bad):
    with pytest.raises(InvalidSetting, match="no form"):
        quasi_linear(num_classes=3, input_shape=(1, 8, 8), **bad)
