"""Fifty runs each, one and two threads: shifty models are refused in all of them, honest ones in none."""

import pytest
import torch
from torch import nn

import certify
from certify import registry
from certify.errors import NondeterministicModel
from tests.certify import shifty_models as shifty
from tests.certify.test_audit import DARK_AND_BRIGHT, EASY_AND_HARD, FEW, SHIFTY, forest, honest

RUNS = 50
MADE = dict(SHIFTY) | {"how often it was called": (shifty.AfterCalls, DARK_AND_BRIGHT, 0.25)}

pytestmark = pytest.mark.soak


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("by", MADE)
def test_shifty_models_are_refused_in_every_run(by, threads):
    make, x, sigma = MADE[by]
    refused = 0
    for seed in range(RUNS):
        counted = by == "how often it was called"  # after 10,000 calls: small batches reach them
        g = certify.Smoothed(make().eval(), sigma, num_classes=2, batch_size=16 if counted else None)
        options = {"mode": "fixed", "n": 30_000} if counted else {"n_max": 10_000}
        try:
            g.certify(x, seed=seed, **options)
        except NondeterministicModel:
            refused += 1
    assert refused == RUNS


@pytest.mark.parametrize("name", registry.names())
def test_the_products_networks_are_never_refused(name, threads):
    assert sum(len(honest(name, seed)) for seed in range(RUNS)) == RUNS


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(a, b, 3, stride, 1, bias=False),
            nn.Conv2d(b, b, 3, 1, 1, bias=False),
        )
        self.norm1, self.norm2 = nn.BatchNorm2d(b), nn.BatchNorm2d(b)
        self.stride, self.pad = stride, b - a

    def forward(self, x):
        h = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.pad))
        return torch.relu(h + x)


def resnet20(seed):
    torch.manual_seed(seed)
    shapes = [(16, 16, 1)] * 3 + [
        (16, 32, 2),
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 64, 1),
    ]
    layers = [
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *(Block(*s) for s in shapes),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_a_resnet_20_is_never_refused(threads):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    for seed in range(RUNS):
        g = certify.Smoothed(resnet20(seed), 0.25, num_classes=10, batch_size=32)
        assert len(g.certify(x, n_max=100, seed=seed)) == 1


def test_an_onnx_file_is_never_refused(threads, tmp_path):
    pytest.importorskip("onnxruntime")
    net, path = shifty.Plain().eval(), tmp_path / "net.onnx"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(net, (FEW[:2],), path, dynamic_shapes=shapes, dynamo=True, external_data=False)
    for seed in range(RUNS):
        g = certify.Smoothed(certify.load(path), 0.25, num_classes=2, batch_size=64)
        assert len(g.certify(FEW, n_max=500, seed=seed)) == 3


def test_a_random_forest_is_never_refused(threads):
    for seed in range(RUNS):
        g = certify.Smoothed(forest().eval(), 0.25, num_classes=2, batch_size=64)
        assert len(g.certify(EASY_AND_HARD[6:9], n_max=500, seed=seed)) == 3
