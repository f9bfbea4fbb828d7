"""Inverse evolution against exact solutions of the discrete equations."""

import math

import pytest
import torch

from certify.errors import InvalidInput, InvalidSetting
from pdenets.evolution import (
    EVOLUTIONS,
    InverseEvolution,
    curve_motion,
    heat,
    inverse_evolution,
    reaction_diffusion,
    with_inverse_evolution,
)  # fmt: skip
from pdenets.unet import unet

D = torch.float64
H, W, DT, STEPS = 12, 9, 0.1, 20


def wave(kind, size, k):
    i = torch.arange(size, dtype=D)
    if kind == "zero":  # vanishes one step outside the border
        return torch.sin(math.pi * k * (i + 1) / (size + 1)), math.pi * k / (size + 1)
    return torch.cos(math.pi * k * (i + 0.5) / size), math.pi * k / size


@pytest.mark.parametrize("boundary", ["zero", "replicate"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 5), (7, 3), (8, 8)])
def test_modes_grow_by_their_exact_factor(boundary, k, m):
    (rows, a), (columns, b) = wave(boundary, H, k), wave(boundary, W, m)
    mode = (rows[:, None] * columns)[None, None]
    mu = 1 - (math.cos(a) + math.cos(b)) / 2
    layer = inverse_evolution("heat", dt=DT, steps=STEPS, boundary=boundary).train()
    assert torch.allclose(layer(mode), (1 + DT * mu) ** STEPS * mode, rtol=1e-13, atol=1e-13)


def test_replicate_keeps_constants_and_zero_does_not():
    z = torch.full((1, 2, H, W), 3.0, dtype=D)
    assert torch.equal(inverse_evolution("heat", boundary="replicate").train()(z), z)
    assert not torch.allclose(inverse_evolution("heat").train()(z), z)


@pytest.mark.parametrize("boundary", ["zero", "replicate"])
def test_removing_the_layer_is_implicit_euler_for_the_heat_equation(boundary):
    # If the network was fitted so that layer(z) = y, then z is y after n implicit heat steps.
    g = torch.Generator().manual_seed(0)
    y = torch.randn(1, 1, H, W, generator=g, dtype=D)
    rate = heat(boundary)
    identity = torch.eye(H * W, dtype=D)
    k = rate(identity.reshape(-1, 1, H, W)).reshape(H * W, H * W).T
    z = y.flatten()
    for _ in range(STEPS):
        z = torch.linalg.solve(identity - DT * k, z)
    layer = inverse_evolution("heat", dt=DT, steps=STEPS, boundary=boundary).train()
    assert torch.allclose(layer(z.reshape(y.shape)), y, atol=1e-12)


def test_heat_is_the_depthwise_convolution_of_the_paper():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(2, 3, H, W, generator=g, dtype=D)
    kernel = torch.tensor([[0, 0.25, 0], [0.25, -1, 0.25], [0, 0.25, 0]], dtype=D)
    expected = torch.nn.functional.conv2d(z, kernel.expand(3, 1, 3, 3), padding=1, groups=3)
    assert torch.allclose(heat()(z), expected, atol=1e-15)


def test_circles_shrink_with_their_curvature():
    errors = []
    for h in (0.5, 0.25):  # the same circles on a finer grid: second order
        i = torch.arange(-int(20 / h), int(20 / h) + 1, dtype=D) * h
        r = (i[:, None] ** 2 + i**2).sqrt()
        rate = curve_motion("replicate", epsilon=0.0)(r[None, None])[0, 0] / h**2
        ring = (r > 5) & (r < 15)
        errors.append((rate - 1 / (4 * r))[ring].abs().max().item())
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_straight_level_lines_do_not_move_by_curvature():
    i = torch.arange(16, dtype=D)
    plane = torch.sin((0.3 * i[:, None] + 0.2 * i) / 4)[None, None]
    moved, diffused = (evolution("replicate")(plane)[..., 2:-2, 2:-2] for evolution in (curve_motion, heat))
    assert moved.abs().max() < 2e-4 < 1e-3 < diffused.abs().max()


def test_reaction_has_two_stable_states_and_none_at_strength_zero():
    well = torch.tensor(1.9150080481545375, dtype=D)
    for state in (well, -well, well * 0):
        z = state.expand(1, 1, 5, 5)
        assert reaction_diffusion("replicate")(z).abs().max() < 1e-12
    z = torch.randn(1, 1, 5, 5, dtype=D, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(reaction_diffusion(strength=0.0)(z), heat()(z))
    forward = z.clone()
    for _ in range(2000):
        forward = forward + 0.1 * reaction_diffusion("replicate")(forward)
    assert torch.allclose(forward.abs(), well.expand_as(forward), atol=1e-6)


@pytest.mark.parametrize("name", sorted(EVOLUTIONS))
def test_the_layer_exists_in_training_only_and_has_no_parameter(name):
    layer = inverse_evolution(name)
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(layer.eval()(z), z)
    out = layer.train()(z)
    assert not torch.allclose(out, z)
    assert out.isfinite().all()
    assert list(layer.parameters()) == []


def test_unet_gives_every_pixel_its_logits_and_trains_through_the_layer():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 33, 22)
    plain = unet(num_classes=3, input_shape=(1, 33, 22), width=8)
    assert plain(x).shape == (2, 3, 33, 22)
    layered = with_inverse_evolution(plain, InverseEvolution(heat(), steps=5)).train()
    layered(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in plain.parameters())
    assert torch.equal(layered.eval()(x), plain(x))


def test_unet_images_do_not_depend_on_each_other():
    torch.manual_seed(0)
    net = unet(num_classes=2, input_shape=(1, 16, 16), width=4, evolution="heat").double().eval()
    x = torch.randn(3, 1, 16, 16, dtype=D)
    assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_unet_takes_images_from_twice_its_reduction_on_and_refuses_smaller_ones(depth):
    least = 2 * 2**depth
    net = unet(num_classes=2, input_shape=(1, least, least), width=2, depth=depth)
    net.train()(torch.randn(1, 1, least, least)).sum().backward()
    with pytest.raises(InvalidSetting, match=f"at least {least}"):
        unet(num_classes=2, input_shape=(1, 4 * least, least - 1), width=2, depth=depth)
    for mode in (True, False):
        with pytest.raises(InvalidInput, match=f"at least {least}"):
            net.train(mode)(torch.randn(1, 1, least - 1, 4 * least))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse_evolution("wind"), "no evolution"),
        (lambda: inverse_evolution("heat", boundary="periodic"), "boundary"),
        (lambda: inverse_evolution("heat", dt=0.0), "no evolution"),
        (lambda: unet(num_classes=2, input_shape=(1, 4, 4)), "no form"),
        (lambda: unet(num_classes=2, input_shape=(64,)), "no form"),
    ],
)
def test_settings_without_meaning_are_refused(call, message):
    with pytest.raises(InvalidSetting, match=message):
        call()
