"""Physics-informed networks: train u(x, t) by the residual of its equation.

The penalty is the one of ``pdenets.residual``, the mean of |r|^2, with exact
derivatives instead of finite differences: a residual is a function of the field and
of points, and any equation can be put in its place.

Reference: Raissi, Perdikaris and Karniadakis (2019).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from certify.calls import checked

#: A field: x (n, dim), t (n,) -> u (n, outputs).
Field = Callable[[Tensor, Tensor], Tensor]
#: A residual: field, x, t -> r (n, outputs).
Residual = Callable[[Field, Tensor, Tensor], Tensor]


@checked
def residual_penalty(u: Field, x: Tensor, t: Tensor, *, residual: Residual) -> Tensor:
    """Mean over the points of the squared residual."""
    return residual(u, x, t).square().sum(1).mean()


@checked
def burgers(*, viscosity: float | Tensor) -> Residual:
    """r = u_t + u u_x - viscosity u_xx, in one space dimension."""

    def residual(u: Field, x: Tensor, t: Tensor) -> Tensor:
        value, u_t, u_x, u_xx = derivatives(u, x, t)
        return u_t + value * u_x[:, :, 0] - viscosity * u_xx[:, :, 0]

    return residual


@checked
def heat(*, diffusion: float) -> Residual:
    """r = u_t - diffusion^2 Laplacian u, in any number of space dimensions."""

    def residual(u: Field, x: Tensor, t: Tensor) -> Tensor:
        _, u_t, _, u_xx = derivatives(u, x, t)
        return u_t - diffusion**2 * u_xx.sum(2)

    return residual


@checked
def derivatives(u: Field, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u and u_t, shape (n, outputs); u_x and the second derivatives u_xx, shape (n, outputs, dim).

    By automatic differentiation, and differentiable again. u must treat points
    independently of each other.
    """
    x = x.detach().requires_grad_() if not x.requires_grad else x
    t = t.detach().requires_grad_() if not t.requires_grad else t
    value = u(x, t)
    first_t, first_x, second_x = [], [], []
    for output in value.unbind(1):
        gradient, rate = torch.autograd.grad(output.sum(), (x, t), create_graph=True)
        diagonal = [
            torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i]
            for i in range(x.shape[1])
        ]
        first_t.append(rate)
        first_x.append(gradient)
        second_x.append(torch.stack(diagonal, dim=1))
    return value, torch.stack(first_t, 1), torch.stack(first_x, 1), torch.stack(second_x, 1)


class HardConstrained(nn.Module):
    """u(x, t) = start(x) + t (1 - x^2) N(x, t) on [-1, 1]: initial and zero boundary values hold exactly.

    Only the equation is left to train, so no weights between several losses have to be
    chosen. ``start`` must vanish at -1 and 1.
    """

    def __init__(self, start: Callable[[Tensor], Tensor], *, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.start = start
        layers: list[nn.Module] = [nn.Linear(2, width), nn.Tanh()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.Tanh()]
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        inner = self.network(torch.cat([x, t[:, None]], dim=1))
        return self.start(x) + t[:, None] * (1 - x.square()) * inner


@checked
def fit(
    u: nn.Module,
    residual: Residual,
    x: Tensor,
    t: Tensor,
    *,
    adam_steps: int = 1000,
    lbfgs_steps: int = 500,
    lr: float = 2e-3,
) -> list[float]:
    """Minimise the residual at the collocation points: Adam, then L-BFGS. The losses, step by step."""
    losses: list[float] = []
    adam = torch.optim.Adam(u.parameters(), lr=lr)
    for _ in range(adam_steps):
        adam.zero_grad()
        loss = residual_penalty(u, x, t, residual=residual)
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    if lbfgs_steps:
        lbfgs = torch.optim.LBFGS(u.parameters(), max_iter=lbfgs_steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            lbfgs.zero_grad()
            loss = residual_penalty(u, x, t, residual=residual)
            loss.backward()
            losses.append(float(loss.detach()))
            return loss

        lbfgs.step(closure)  # pyright: ignore[reportArgumentType]
    return losses
