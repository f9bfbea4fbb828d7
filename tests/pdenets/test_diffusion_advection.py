"""The Global layer: the scheme term by term, conservation, stability, and every parameter count."""

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets.diffusion_advection import GlobalLayer, dufort_frankel
from pdenets.global_nets import coefficient_maps, global_cifar, tiny_global
from pdenets.resnet import resnet

D = torch.float64


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def fields(count, *, shape=(2, 3, 6, 7), seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=D) for _ in range(count)]


def test_one_step_is_the_printed_update_at_every_point():
    h, u, v, dx_map, dy_map, f = fields(6)
    dx_map, dy_map, dt, dx = dx_map.abs(), dy_map.abs(), 0.2, 0.7
    got = dufort_frankel(h, u, v, dx_map, dy_map, source=f, steps=1, dt=dt, dx=dx)
    rows, columns = h.shape[-2:]
    for y in range(rows):
        for x in range(columns):
            e, w = (y, (x + 1) % columns), (y, (x - 1) % columns)
            s, n = ((y + 1) % rows, x), ((y - 1) % rows, x)
            at = lambda z, p: z[..., p[0], p[1]]  # noqa: E731
            c = (y, x)
            ux = (at(u, e) - at(u, w)) / (2 * dx)
            vy = (at(v, s) - at(v, n)) / (2 * dx)
            ax, ay = at(u, c) * dt / dx, at(v, c) * dt / dx
            bx, by = at(dx_map, c) * dt / dx**2, at(dy_map, c) * dt / dx**2
            expected = (
                (1 - 2 * bx - 2 * by) * at(h, c)
                - 2 * (ux + vy) * dt * at(h, c)
                + 2 * dt * at(f, c)
                + (-ax + 2 * bx) * at(h, e)
                + (ax + 2 * bx) * at(h, w)
                + (-ay + 2 * by) * at(h, s)
                + (ay + 2 * by) * at(h, n)
            ) / (1 + 2 * bx + 2 * by)
            assert torch.allclose(at(got, c), expected, atol=1e-13)


def test_the_third_level_uses_the_first():
    h, u, v, f = fields(4)
    one = torch.ones((), dtype=D)
    arguments = {"source": f, "dt": 0.2, "dx": 1.0}
    first = dufort_frankel(h, u, v, one, one, steps=1, **arguments)
    second = dufort_frankel(h, u, v, one, one, steps=2, **arguments)
    # With B = .2 the weight of H^(k-1) is (1 - .8) / (1 + .8).
    restarted = dufort_frankel(first, u, v, one, one, steps=1, **arguments)
    assert torch.allclose(second - restarted, (0.2 / 1.8) * (h - first), atol=1e-13)


def test_without_source_and_with_constant_diffusion_the_mean_is_conserved():
    h, u, v = fields(3)
    one = torch.ones((), dtype=D)
    out = dufort_frankel(h, 0.3 * u, 0.3 * v, one, 2 * one, source=h * 0, steps=30, dt=0.2, dx=1.0)
    assert torch.allclose(out.mean((-2, -1)), h.mean((-2, -1)), atol=1e-13)
    changed = dufort_frankel(h, u, v, one, one, source=h, steps=1, dt=0.2, dx=1.0)
    assert not torch.allclose(changed.mean((-2, -1)), h.mean((-2, -1)), atol=1e-3)


def test_the_scheme_moves_a_wave_downstream():
    # u > 0 carries features towards larger x.
    x = torch.arange(64, dtype=D)
    bump = torch.exp(-((x - 20) ** 2) / 30).expand(1, 1, 4, 64).contiguous()
    one, zero = torch.ones((), dtype=D), torch.zeros((), dtype=D)
    moved = dufort_frankel(bump, one, zero, zero, zero, source=bump * 0, steps=50, dt=0.2, dx=1.0)
    # H^0 = H^1 costs the leapfrog scheme half a step.
    centre = (moved[0, 0, 0] * x).sum() / moved[0, 0, 0].sum()
    assert centre.item() == pytest.approx(20 + 50 * 0.2, abs=0.3)


def test_pure_diffusion_is_bounded_at_any_time_step():
    (h,) = fields(1, shape=(1, 1, 16, 16))
    one, zero = torch.ones((), dtype=D), torch.zeros((), dtype=D)
    out = dufort_frankel(h, zero, zero, one, one, source=h * 0, steps=2000, dt=10.0, dx=1.0)
    assert out.abs().max() <= 10 * h.abs().max()


@pytest.mark.parametrize(("courant", "bounded"), [(0.9, True), (1.2, False)])
def test_advection_is_bounded_exactly_below_the_courant_limit(courant, bounded):
    (h,) = fields(1, shape=(1, 1, 16, 16))
    speed, zero = torch.full((), courant / 2, dtype=D), torch.zeros((), dtype=D)
    out = dufort_frankel(h, speed, speed, zero, zero, source=h * 0, steps=300, dt=1.0, dx=1.0)
    largest = out.abs().max() / h.abs().max()
    assert largest < 20 if bounded else largest > 1e10


def test_max_speed_keeps_the_layer_below_the_limit():
    torch.manual_seed(0)
    layer = GlobalLayer(3, diffusion="none", max_speed=2.0, dt=0.2, steps=50).double().eval()
    f = 50 * fields(1, shape=(2, 3, 8, 8))[0]
    maps = layer.coefficients(f)
    assert ((maps["u"].abs() + maps["v"].abs()) * 0.2 <= 0.8 + 1e-12).all()
    assert layer.coefficients(f)["Dx"] == 0


def test_maps_are_nonnegative_and_collected_in_order():
    torch.manual_seed(0)
    net = global_cifar(num_classes=10, input_shape=(3, 32, 32)).eval()
    maps = coefficient_maps(net, torch.rand(2, 3, 32, 32))
    assert [tuple(m["u"].shape) for m in maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]
    assert all((m[name] >= 0).all() for m in maps for name in ("u", "v", "Dx", "Dy"))


def test_the_small_network_shows_the_velocity_it_computes_with():
    torch.manual_seed(0)
    net = tiny_global(num_classes=10, input_shape=(1, 28, 28)).eval()
    (maps,) = coefficient_maps(net, torch.rand(2, 1, 28, 28))
    assert maps["u"].shape == (2, 1, 28, 28)
    assert torch.equal(maps["u"], maps["v"])
    assert (maps["u"] < 0).any()
    assert float(maps["Dx"]) == float(maps["Dy"]) == 1.0
    assert coefficient_maps(tiny_global(num_classes=10, input_shape=(1, 28, 28), backbone="residual"),
                            torch.rand(1, 1, 28, 28)) == []  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "steps", "count"), [("residual", 1, 524), ("global", 5, 524), ("convolution", None, 522)]
)
def test_mnist_trio_counts(backbone, steps, count):
    net = tiny_global(num_classes=10, input_shape=(1, 28, 28), backbone=backbone, steps=steps)
    assert parameters(net) == count
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_the_one_channel_convolution_is_a_convolution():
    net = tiny_global(num_classes=10, input_shape=(1, 28, 28)).double()
    (x,) = fields(1, shape=(2, 1, 5, 7))
    expected = torch.nn.functional.conv2d(x, net.first.weight, padding=1)
    assert torch.allclose(net.first(x), expected, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 161_850),
        ({"diffusion": "constant"}, 159_162),
        ({"advection": False}, 159_162),
        ({"diffusion": "none"}, 159_162),
    ],
)
def test_cifar_global_counts(arguments, count):
    net = global_cifar(num_classes=10, input_shape=(3, 32, 32), **arguments)
    assert parameters(net) == count
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("depth", "count"), [(20, 272_474), (32, 466_906), (110, 1_730_714)])
def test_resnet_counts(depth, count):
    net = resnet(num_classes=10, input_shape=(3, 32, 32), depth=depth)
    assert parameters(net) == count


def test_normalisation_is_inside_the_network_and_in_its_checkpoint():
    net = resnet(num_classes=10, input_shape=(3, 32, 32))
    grey = net[0](torch.full((1, 3, 1, 1), 0.5)).flatten()[0]
    assert torch.allclose(grey, torch.tensor((0.5 - 0.4914) / 0.2023))
    assert net.state_dict()["0.mean"].flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])


@pytest.mark.parametrize(
    "call",
    [
        lambda: tiny_global(num_classes=10, input_shape=(3, 32, 32)),
        lambda: tiny_global(num_classes=10, input_shape=(1, 28, 28), backbone="attention"),
        lambda: GlobalLayer(3, diffusion="some"),
        lambda: resnet(num_classes=10, input_shape=(3, 32, 32), depth=21),
    ],
)
def test_forms_that_do_not_exist_are_refused(call):
    with pytest.raises(InvalidSetting):
        call()
