"""What is said about each noise law, once, for guarantees, reports and pages; no torch is needed to read it.

The law itself, and the ball that it proves, are in ``certify.noise`` (noise inside a network:
``certify.inside``). A certificate always assumes that the sampler's words are random; what else it assumes of
the arithmetic is ``excludes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NoiseLaw:
    """A law's name in settings, its ``label`` in a guarantee, and what the guarantee does not cover.

    ``excludes`` is empty for the one law whose certificates hold on a real computer.
    """

    name: str
    label: str
    excludes: str = ""

    @property
    def exact(self) -> bool:
        """Whether certificates hold on a real computer, rounding included."""
        return not self.excludes

    def reach(self, grid: float | None) -> str:
        """The points that a certificate speaks about, as the end of a sentence."""
        if self.exact:
            return f"all points of the input grid (step {grid:.6g})"
        return f"all points, in exact arithmetic only ({self.excludes}),"

    @property
    def caveat(self) -> str:
        """What a reader must not forget, in one sentence or two; empty where there is nothing of the kind."""
        if self.exact:
            return ""
        return (
            f"{self.label[0].upper()}{self.label[1:]}: the statement assumes exact real arithmetic "
            f"({self.excludes}). In floating point the noisy input can leak the clean one; lattice noise on "
            "the input closes that gap."
        )


def _floating(name: str, drawn: str) -> NoiseLaw:
    return NoiseLaw(
        name, f"{name} noise, exact arithmetic only",
        f"not covered: rounding when the noise is added, and its law as it is drawn, {drawn}",
    )  # fmt: skip


_NORMAL = "from 31 and 32 random bits, never beyond 6.67 standard deviations"

#: Every law by name, noise inside a network included.
LAWS: dict[str, NoiseLaw] = {
    law.name: law
    for law in (
        NoiseLaw("lattice", "integer noise on the input grid"),
        _floating("gaussian", _NORMAL),
        _floating("anisotropic", _NORMAL),
        _floating("uniform", "from 32 random bits"),
        _floating("laplace", "from 31 random bits, never beyond 15.7 standard deviations"),
        NoiseLaw(
            "internal", "gaussian noise inside the network, exact arithmetic only",
            f"not covered: rounding in the network's layers, and the noise's law as it is drawn, {_NORMAL}",
        ),
    )
}  # fmt: skip


def law_of(settings: Mapping[str, Any]) -> NoiseLaw:
    """The law of a run, from its settings; of one that is not known here nothing is taken for granted."""
    noise = settings.get("noise")
    name = noise.get("name") if isinstance(noise, Mapping) else noise
    known = LAWS.get(name) if isinstance(name, str) else None
    return known or NoiseLaw(
        str(name),
        f"noise called {name!r}",
        "not covered: whatever this law rests on, which is not known here",
    )
