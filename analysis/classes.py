"""Function classes whose supremum against random signs has a closed form.

A class answers three questions about a sample of N points: the supremum of
(1/N) sum_i eps_i f(x_i) over its functions for given signs, the largest |f(x_i)| at each
point, and what to call itself. Everything else (enumeration, Monte Carlo, McDiarmid) is
the business of ``analysis.rademacher``.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from certify.calls import checked_class, shown
from certify.errors import InvalidInput, InvalidSetting

Norm = float | int


class FunctionClass(Protocol):
    """What ``empirical_rademacher`` needs to know about a class of functions."""

    def describe(self) -> str:
        """The class in one line."""
        ...

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        """sup_f (1/N) sum_i signs[m, i] f(x_i) for signs (M, N), points (N, d): shape (M,)."""
        ...

    def envelope(self, points: Tensor) -> Tensor:
        """sup_f |f(x_i)| at each point, shape (N,): half the bounded difference times N."""
        ...


@checked_class
@dataclass(frozen=True)
class Linear:
    """x -> w.x + b with |w|_norm <= radius and |b| <= bias.

    The supremum is exactly (radius |sum eps_i x_i|_q* + bias |sum eps_i|) / N with q* the dual
    exponent. Reference: duality of the norms; Awasthi, Frank and Mohri, ALT 2020.
    """

    norm: Norm
    radius: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_size("radius", self.radius)
        check_size("bias", self.bias)

    def describe(self) -> str:
        tail = f", |b| <= {self.bias:g}" if self.bias else ""
        return f"linear, |w|_{self.norm:g} <= {self.radius:g}{tail}"

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        total = signs @ points
        slope = torch.linalg.vector_norm(total, dual(self.norm), dim=1)
        return (self.radius * slope + self.bias * signs.sum(1).abs()) / points.shape[0]

    def envelope(self, points: Tensor) -> Tensor:
        return self.radius * torch.linalg.vector_norm(points, dual(self.norm), dim=1) + self.bias


@checked_class
@dataclass(frozen=True)
class AdversarialLinear:
    """(x, y) -> min over |delta|_attack_norm <= attack of y w.(x + delta), |w|_norm <= radius.

    The worst case is y w.x - attack |w|_p* with p* dual to the attack's norm. With a = sum eps_i
    y_i x_i and S = sum eps_i the supremum is exactly (radius/N) |(|a| - attack S)_+|_q* coordinate
    by coordinate for an linf attack and any weight norm q, and (radius/N) (|a|_q* - attack S)_+
    where the weight norm is dual to the attack's. ``labels`` are -1 or +1, shape (N,).
    Upper bounds for the same class: Yin, Ramchandran and Bartlett, ICML 2019; Awasthi et al., ICML 2020.
    """

    norm: Norm
    radius: float
    attack: float
    labels: Tensor
    attack_norm: Norm = math.inf

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_norm(self.attack_norm)
        check_size("radius", self.radius)
        check_size("attack", self.attack)
        if not self._coordinatewise and dual(self.attack_norm) != float(self.norm):
            raise InvalidSetting(
                f"no exact supremum for an l{self.attack_norm:g} attack on |w|_{self.norm:g} weights",
                why="the closed form needs an linf attack, or a weight norm dual to the attack's",
                remedy=f"use attack_norm=inf, or norm={dual(self.attack_norm):g}",
            )
        if not bool(torch.isin(torch.as_tensor(self.labels), torch.tensor([-1, 1])).all()):
            raise InvalidInput(
                "the labels of AdversarialLinear must be -1 or +1",
                why="the margin y w.x is defined for binary classification",
                remedy="pass labels=2 * (y == some_class) - 1",
            )

    @property
    def _coordinatewise(self) -> bool:
        return math.isinf(self.attack_norm)

    def describe(self) -> str:
        return (
            f"linear under an l{self.attack_norm:g} attack of size {self.attack:g}, "
            f"|w|_{self.norm:g} <= {self.radius:g}"
        )

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        labels = torch.as_tensor(self.labels).to(points)
        total = signs @ (labels[:, None] * points)
        loss = self.attack * signs.sum(1)
        if self._coordinatewise:
            gain = (total.abs() - loss[:, None]).clamp_min(0.0)
            value = torch.linalg.vector_norm(gain, dual(self.norm), dim=1)
        else:
            value = (torch.linalg.vector_norm(total, dual(self.norm), dim=1) - loss).clamp_min(0.0)
        return self.radius * value / points.shape[0]

    def envelope(self, points: Tensor) -> Tensor:
        clean = torch.linalg.vector_norm(points, dual(self.norm), dim=1)
        penalty = self.attack
        if self._coordinatewise and not math.isinf(dual(self.norm)):
            # |w|_1 can exceed |w|_q by d^(1 - 1/q).
            penalty *= points.shape[1] ** (1.0 / dual(self.norm))
        return self.radius * (clean + penalty)


@checked_class
@dataclass(frozen=True)
class Kernel:
    """Functions of norm at most ``radius`` in the reproducing kernel Hilbert space of ``kernel``.

    Supremum (radius/N) sqrt(eps' K eps), exactly; always at most radius sqrt(trace K)/N in mean.
    ``kernel(a, b)`` returns the Gram matrix of points (n, d), (m, d). Reference: Bartlett and
    Mendelson, JMLR 2002, Lemma 22.
    """

    kernel: Callable[[Tensor, Tensor], Tensor]
    radius: float
    title: str = "kernel"

    def __post_init__(self) -> None:
        check_size("radius", self.radius)

    @classmethod
    def gaussian(cls, bandwidth: float, radius: float) -> Kernel:
        """The Gaussian kernel exp(-|a - b|^2 / (2 bandwidth^2))."""
        check_size("bandwidth", bandwidth, positive=True)
        return cls(
            lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / (2 * bandwidth**2)),
            radius,
            f"Gaussian kernel, bandwidth {bandwidth:g}",
        )

    def describe(self) -> str:
        return f"{self.title}, norm <= {self.radius:g}"

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        gram = self.kernel(points, points)
        square = torch.einsum("mi,ij,mj->m", signs, gram, signs).clamp_min(0.0)
        return self.radius * square.sqrt() / points.shape[0]

    def envelope(self, points: Tensor) -> Tensor:
        return self.radius * self.kernel(points, points).diagonal().clamp_min(0.0).sqrt()


@checked_class
@dataclass(frozen=True)
class Finite:
    """Finitely many functions, each mapping points (N, d) to values (N,)."""

    functions: Sequence[Callable[[Tensor], Tensor]]

    def __post_init__(self) -> None:
        if not self.functions:
            raise InvalidSetting(
                "an empty class has no Rademacher complexity",
                why="Finite was given no functions",
                remedy="pass at least one function of the points",
            )

    @classmethod
    def half_spaces(cls, weights: Tensor, offsets: Tensor, *, sigma: float = 0.0) -> Finite:
        """Indicators of w.x + b > 0 under Gaussian noise: Phi((w.x + b) / (sigma |w|)).

        weights (K, d), offsets (K,). sigma = 0 gives the indicators themselves. These are the exact
        Gaussian smoothings, so the class shows what diffusion does to complexity.
        """
        check_size("sigma", sigma)
        return cls([_HalfSpaces(weights.double(), offsets.double(), sigma)])

    def outputs(self, points: Tensor) -> Tensor:
        """Values of every function at every point, shape (K, N)."""
        rows = [torch.as_tensor(f(points)).double() for f in self.functions]
        return torch.cat([r if r.ndim == 2 else r[None] for r in rows])

    def describe(self) -> str:
        return f"finite class ({len(self.functions)} callable{'s' if len(self.functions) > 1 else ''})"

    def supremum(self, signs: Tensor, points: Tensor) -> Tensor:
        return (signs @ self.outputs(points).T).amax(1) / points.shape[0]

    def envelope(self, points: Tensor) -> Tensor:
        return self.outputs(points).abs().amax(0)


@dataclass(frozen=True)
class _HalfSpaces:
    weights: Tensor
    offsets: Tensor
    sigma: float

    def __call__(self, points: Tensor) -> Tensor:
        score = points.double() @ self.weights.T + self.offsets
        if self.sigma == 0:
            return (score > 0).double().T
        scale = self.sigma * torch.linalg.vector_norm(self.weights, dim=1)
        return torch.special.ndtr(score / scale).T


def dual(norm: Norm) -> float:
    """The dual exponent q* of q: 1/q + 1/q* = 1."""
    norm = float(norm)
    if norm == 1.0:
        return math.inf
    return 1.0 if math.isinf(norm) else norm / (norm - 1.0)


def check_norm(norm: Norm) -> None:
    if not isinstance(norm, numbers.Real) or not norm >= 1.0:
        raise InvalidSetting(
            f"norm = {shown(norm)} is not a norm", why="l_q needs q >= 1", remedy="use 1, 2 or math.inf"
        )


def check_size(name: str, value: float, *, positive: bool = False) -> None:
    if not (math.isfinite(value) and value >= 0 and (value > 0 or not positive)):
        raise InvalidSetting(
            f"{name} = {value!r} cannot be used",
            why=f"it must be finite and {'> 0' if positive else '>= 0'}",
            remedy=f"pass {name} as a number such as 1.0",
        )
