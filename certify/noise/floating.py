"""What the floating-point noises share: x + noise in float32, a certificate in exact arithmetic only.

Low bits of a floating-point sum reveal the summands, so a base classifier can tell the noisy
copies of two inputs apart and falsify the certificate; ``certify.noise.lattice`` cannot be fooled so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from certify.geometry import Geometry
from certify.laws import LAWS, NoiseLaw
from certify.noise.fill import Law, fill_rows
from certify.noise.philox import NAME


@dataclass(frozen=True)
class FloatNoise(ABC):
    """Base of the floating-point laws; children give ``name``, ``parameters``, ``law`` and ``ball``."""

    purpose: int = 0

    name = ""

    @property
    def about(self) -> NoiseLaw:
        return LAWS[self.name]

    @property
    def label(self) -> str:
        return self.about.label

    @property
    def exact(self) -> bool:
        return self.about.exact

    @abstractmethod
    def ball(self, p: float, dim: int) -> Geometry:
        """What the law proves in the lp norm: see ``certify.noise.Noise.ball``."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The law's own parameters, as JSON types."""

    @abstractmethod
    def law(self, shape: tuple[int, ...]) -> Law:
        """How words become noise for inputs of ``shape``."""

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, **self.parameters(), "generator": NAME}

    def for_purpose(self, purpose: int) -> Self:
        """The same law from random words that no other purpose uses."""
        return replace(self, purpose=purpose)

    def tv(self, dim: int) -> float:
        """Zero: the claim is made for exact arithmetic, and ``about`` says so."""
        return 0.0

    def snap(self, x: Tensor) -> Tensor:
        """``x`` itself: every point is spoken about."""
        return x

    def prepare(self, x: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """One input (*shape) as float32, flat."""
        return x.detach().to(device=device or x.device, dtype=torch.float32).flatten()

    def fill(
        self,
        out: Tensor,
        *,
        bases: Sequence[Tensor] | None,
        ids: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
        seed: int,
    ) -> None:
        """Write noisy inputs into ``out`` (rows, *shape): see ``certify.noise.Noise.fill``."""
        fill_rows(
            self.law(tuple(out.shape[1:])),
            out,
            bases=bases,
            ids=ids,
            starts=starts,
            counts=counts,
            seed=seed,
            purpose=self.purpose,
        )
