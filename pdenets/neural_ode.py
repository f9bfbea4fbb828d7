"""Neural ODE classifier: the hidden state follows dz/dt = f(z, t) from t = 0 to 1.

Reference: Chen, Rubanova, Bettencourt and Duvenaud (2018); augmentation by zeros:
Dupont, Doucet and Teh (2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# At the top: tensors that it makes when it is first imported could not be trained with, had a forward
# pass in inference mode been the first to import it.
from torchdiffeq import odeint, odeint_adjoint

from certify.errors import InvalidSetting

#: Solvers a network may be *trained* with. Evaluation always uses rk4 with fixed steps.
SOLVERS = ("rk4", "midpoint", "dopri5")


def neural_ode(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: int = 32,
    augment: int = 2,
    steps: int = 8,
    solver: str = "rk4",
    adjoint: bool = False,
) -> nn.Module:
    """For vectors, the state is the input with ``augment`` zeros appended; images are first
    mapped to ``width`` channels (plus ``augment`` zero channels) at half the resolution.

    ``adjoint`` trains with the adjoint equation, in constant memory, instead of
    backpropagation through the solver.
    """
    if len(input_shape) not in (1, 3) or solver not in SOLVERS or augment < 0 or steps < 1:
        raise InvalidSetting(
            f"neural-ode has no form with solver {solver!r}, {steps} steps, {augment} added dimensions "
            f"for inputs of shape {tuple(input_shape)}",
            why=f"it takes vectors or images; the solvers are {', '.join(SOLVERS)}",
            remedy="leave the arguments out to use rk4 with 8 steps and 2 added dimensions",
        )
    settings = {"augment": augment, "steps": steps, "solver": solver, "adjoint": adjoint}
    if len(input_shape) == 1:
        states = input_shape[0] + augment
        rate = Rate(
            nn.Linear(states + 1, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, states),
        )
        return NeuralODE(nn.Identity(), rate, nn.Linear(states, num_classes), **settings)
    channels = width + augment
    stem = nn.Sequential(nn.Conv2d(input_shape[0], width, 4, stride=2, padding=1), nn.Tanh())
    rate = Rate(
        nn.Conv2d(channels + 1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, channels, 3, padding=1)
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, num_classes))
    return NeuralODE(stem, rate, head, **settings)


class NeuralODE(nn.Module):
    """head(z(1)) with z(0) = (stem(x), 0, ..., 0).

    In eval mode the solver is rk4 with a fixed number of steps whatever training used:
    an adaptive solver chooses its steps from the whole batch, so an input's class would
    depend on its batch mates and no certificate could be issued for it.
    """

    def __init__(
        self,
        stem: nn.Module,
        rate: Rate,
        head: nn.Module,
        *,
        augment: int,
        steps: int,
        solver: str,
        adjoint: bool,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__()
        self.stem, self.rate, self.head = stem, rate, head
        self.augment, self.steps, self.solver = augment, steps, solver
        self.adjoint, self.tolerance = adjoint, tolerance

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flow(self.start(x)))

    def start(self, x: Tensor) -> Tensor:
        """z(0), shape (batch, channels + augment, ...)."""
        z = self.stem(x)
        return torch.cat([z, z.new_zeros(z.shape[0], self.augment, *z.shape[2:])], dim=1)

    def flow(self, z: Tensor) -> Tensor:
        """z(1) from z(0)."""
        solver = self.solver if self.training else "rk4"
        solve = odeint_adjoint if self.adjoint and self.training else odeint
        times = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
        settings: dict[str, Any] = {"options": {"step_size": 1 / self.steps}}
        if solver == "dopri5":
            settings = {"rtol": self.tolerance, "atol": self.tolerance}
        states = solve(self.rate, z, times, method=solver, **settings)
        assert isinstance(states, Tensor)
        return states[-1]


class Rate(nn.Sequential):
    """f(z, t): a network that sees the time as one more channel of the state."""

    def forward(self, t: Tensor, z: Tensor) -> Tensor:  # the order torchdiffeq calls with
        time = t.to(z.dtype).expand(z.shape[0], 1, *z.shape[2:])
        return super().forward(torch.cat([z, time], dim=1))
