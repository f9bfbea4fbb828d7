"""Neural ODE: the solver against the exact flow, the adjoint against backpropagation."""

import math
import subprocess
import sys

import pytest
import torch

from certify.errors import InvalidSetting
from pdenets.neural_ode import NeuralODE, Rate, neural_ode

D = torch.float64


class Linear(Rate):
    """dz/dt = A z."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(a)

    def forward(self, t, z):
        return z @ self.a.T


def ode(rate, **settings):
    identity = torch.nn.Identity()
    settings = {"augment": 0, "steps": 20, "solver": "rk4", "adjoint": False, "tolerance": 1e-10} | settings
    return NeuralODE(identity, rate, identity, **settings)


def test_linear_flow_is_the_matrix_exponential_with_order_four():
    g = torch.Generator().manual_seed(0)
    a, x = torch.randn(3, 3, generator=g, dtype=D), torch.randn(5, 3, generator=g, dtype=D)
    exact = x @ torch.linalg.matrix_exp(a).T
    errors = [float((ode(Linear(a), steps=n).eval()(x) - exact).abs().max().detach()) for n in (10, 20)]
    assert errors[1] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.25)


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(("solver", "steps"), [("rk4", 40), ("dopri5", 1)])
@pytest.mark.parametrize("shape", [(3,), (1, 6, 6)])
def test_adjoint_gradient_is_the_backpropagated_gradient(solver, steps, shape):
    torch.manual_seed(0)
    model = neural_ode(num_classes=2, input_shape=shape, width=6, solver=solver, steps=steps).double().train()
    model.tolerance = 1e-9
    x = torch.randn(4, *shape, dtype=D)
    direct = gradients(model, x)
    model.adjoint = True
    adjoint = gradients(model, x)
    assert (adjoint - direct).norm() / direct.norm() < 1e-6


def test_evaluation_is_fixed_step_and_ignores_batch_mates_even_when_trained_adaptively():
    torch.manual_seed(0)
    model = neural_ode(num_classes=2, input_shape=(2,), solver="dopri5", adjoint=True).double()
    x = torch.randn(6, 2, dtype=D)
    x[3:] *= 100  # stiff neighbours would change an adaptive solver's steps
    model.eval()
    assert torch.allclose(model(x)[:3], model(x[:3]), atol=1e-13)
    calls = []
    model.rate.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    model(x)
    assert len(calls) == 4 * model.steps


def test_augmentation_adds_zero_dimensions():
    model = neural_ode(num_classes=2, input_shape=(2,), augment=3)
    assert torch.equal(model.start(torch.ones(1, 2)), torch.tensor([[1.0, 1, 0, 0, 0]]))
    image = neural_ode(num_classes=3, input_shape=(1, 8, 8), width=4, augment=2)
    assert image.start(torch.rand(2, 1, 8, 8)).shape == (2, 6, 4, 4)
    assert image(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_time_reaches_the_rate():
    class Clock(Rate):
        def forward(self, t, z):
            return torch.cos(t) * torch.ones_like(z)

    out = ode(Clock()).eval()(torch.zeros(1, 1, dtype=D))
    assert out.item() == pytest.approx(math.sin(1), abs=1e-7)


@pytest.mark.parametrize("bad", [{"solver": "euler"}, {"augment": -1}, {"steps": 0}, {"input_shape": (2, 2)}])
def test_forms_that_do_not_exist_are_refused(bad):
    with pytest.raises(InvalidSetting, match="no form"):
        neural_ode(**({"num_classes": 2, "input_shape": (2,)} | bad))


def test_a_network_that_was_evaluated_first_can_still_be_trained():
    # A process of its own: whatever the solver's package keeps is made when it is first used.
    script = """
import torch
from pdenets.neural_ode import neural_ode
model = neural_ode(num_classes=2, input_shape=(3,), solver="dopri5").eval()
with torch.inference_mode():
    model(torch.zeros(1, 3))
model.train()(torch.ones(2, 3)).sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
