"""The same attacks on a CUDA device: same verdicts, and no waiting for the device at every step."""

import math
import warnings

import pytest
import torch
from torch import nn

from attacks import Threat, attack
from attacks.apgd import apgd_ce
from attacks.oracle import Oracle
from attacks.problem import Problem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def convolution() -> nn.Module:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    with torch.no_grad():
        model[-1].weight.mul_(4)
    return model.eval()


@pytest.mark.parametrize(("p", "eps"), [(2.0, 0.25), (math.inf, 0.04)])
def test_a_cuda_device_reaches_the_same_verdicts(p, eps):
    x = torch.rand((16, 1, 8, 8), generator=torch.Generator().manual_seed(5))
    threat = Threat(p, eps)
    here = attack(convolution(), x, threat=threat, preset="standard", seed=0)
    there = attack(convolution(), x, threat=threat, preset="standard", seed=0, device="cuda")
    assert [o.status for o in here] == [o.status for o in there]


def test_the_model_of_the_caller_stays_on_its_device():
    model = convolution()
    attack(model, torch.rand(2, 1, 8, 8), threat=Threat(2, 0.1), preset="quick", device="cuda")
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_steps_do_not_wait_for_the_device():
    model, x = convolution().cuda(), torch.rand((8, 1, 8, 8), device="cuda")
    oracle = Oracle(model, 8)
    problem = Problem.of(
        oracle, x, model(x).argmax(1), eps=1e-4, p=math.inf, box=(0.0, 1.0), seed=0, classes=10
    )
    apgd_ce(problem, steps=10)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            apgd_ce(problem, steps=100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(w.message) for w in seen)
    assert waits < 100
