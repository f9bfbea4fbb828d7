"""A network that injects other noise than it declares, or lets a path pass by it, is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from certify.errors import InvalidModel
from certify.inside.effective_sigma import NoiseStage
from certify.inside.injections import check_injections
from certify.inside.internal_noise import SmoothedInside
from pdenets.noisy_resnet import noisy_resnet

A, B = 0.3, 0.5


class Net(nn.Module):
    """Two injections of three coordinates; ``how`` computes the logits."""

    input_shape = (3,)

    def __init__(self, how, stages=((A, 1.0, 3), (B, 0.9, 3))):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.stages = how, stages
        self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.eval()

    def noise_stages(self):
        return tuple(NoiseStage(*s) for s in self.stages)

    def noisy_logits(self, x, normals):
        return self.how(self, x, normals)

    def forward(self, x):
        return self.noisy_logits(x, x.new_zeros(len(x), sum(s[2] for s in self.stages)))


def honest(net, x, n):
    first, second = n.split(3, dim=1)
    z = torch.tanh(net.inner(x + A * first)) * 0.5 + 0.1
    return net.head(torch.relu(z + B * second))


def in_place_and_residual(net, x, n):
    z = x.clone()
    z += n[:, :3].mul(A)
    z = z - 0.1 * F.linear(F.relu(F.linear(z, net.inner.weight)), net.inner.weight.T)
    z = z.add(n[:, 3:] * B)
    return net.head(z.reshape(-1, 3))


def by_alpha(net, x, n):
    return net.head(torch.add(net.inner(torch.add(x, n[:, :3], alpha=A)), n[:, 3:], alpha=B))


@pytest.mark.parametrize("how", [honest, in_place_and_residual, by_alpha])
def test_an_honest_network_passes(how):
    check_injections(Net(how), Net(how).noise_stages())
    SmoothedInside(Net(how), num_classes=2, bounds=None)


@pytest.mark.parametrize(
    "network",
    [
        noisy_resnet(num_classes=3, input_shape=(4,), blocks=3),
        noisy_resnet(num_classes=3, input_shape=(1, 6, 6), blocks=1, width=4),
        noisy_resnet(num_classes=3, input_shape=(4,), sigma=0.0),
        noisy_resnet(num_classes=3, input_shape=(4,), inner=0.0),
    ],
)
def test_the_shipped_networks_pass(network):
    network.eval()
    check_injections(network, network.noise_stages())


def part_of_the_state(net, x, n):
    z = x.clone()
    z[:, :2] += A * n[:, :2]
    return net.head(net.inner(z) + B * n[:, 3:])


def bypass(net, x, n):
    z = net.inner(x + A * n[:, :3]) + B * n[:, 3:]
    return net.head(z) + 0.1 * net.head(x)


def skip_over_a_stage(net, x, n):
    z = x + A * n[:, :3]
    return net.head(z + (net.inner(z) + B * n[:, 3:]))


def skip_before_the_first(net, x, n):
    z = net.inner(x + A * n[:, :3]) + x
    return net.head(z + B * n[:, 3:])


def unused(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]))


def larger_than_declared(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + 0.5 * B * n[:, 3:])


def anisotropic(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + B * n[:, 3:] * torch.tensor([1.0, 1.0, 0.1]))


def shared(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + B * n[:, :3])


def broadcast(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + B * n[:, 3:4])


def multiplied(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) * (1 + B * n[:, 3:]))


def bent(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + B * torch.tanh(n[:, 3:]))


def swapped(net, x, n):
    return net.head(net.inner(x + B * n[:, 3:]) + A * n[:, :3])


def averaged(net, x, n):
    return net.head(net.inner(x + A * n[:, :3]) + B * n[:, 3:].mean(1, keepdim=True).expand(-1, 3))


def out_of_sight(net, x, n):
    z = torch.from_numpy(x.numpy() + A * n[:, :3].numpy())
    return net.head(net.inner(z) + B * n[:, 3:])


def noise_on_one_of_two_states(net, x, n):
    left, right = x + A * n[:, :3], net.inner(x)
    return net.head(left + B * n[:, 3:]) + net.head(right)


@pytest.mark.parametrize(
    "how",
    [part_of_the_state, bypass, skip_over_a_stage, skip_before_the_first, unused, larger_than_declared,
     anisotropic, shared, broadcast, multiplied, bent, swapped, averaged, out_of_sight,
     noise_on_one_of_two_states],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_other_noise_than_declared_is_refused_by_name(how):
    with pytest.raises(InvalidModel, match="does not inject the noise it declares"):
        SmoothedInside(Net(how), num_classes=2, bounds=None)


def test_a_declared_size_that_is_not_the_states_is_refused():
    def half(net, x, n):
        return net.head(net.inner(x + A * n[:, :3]) + F.pad(B * n[:, 3:], (0, 1)))

    with pytest.raises(InvalidModel, match="does not inject"):
        SmoothedInside(Net(half, ((A, 1.0, 3), (B, 0.9, 2))), num_classes=2, bounds=None)
