"""Noise laws: what is added to an input, keyed so that every sample can be drawn again.

A sample's noise depends on (run seed, purpose, input id, sample index) and on nothing else: not
on the batch it is drawn in, the thread, the shard or the device (see ``certify.noise.philox``).

    noise = make_noise("lattice", sigma=0.25, grid=1/255, bounds=(0.0, 1.0))
    base = noise.prepare(image)                              # (1, 28, 28) float32, on the grid
    batch = torch.empty(64, 1, 28, 28)
    noise.fill(batch, bases=[base], ids=[17], starts=[0], counts=[64], seed=7)

``lattice`` is the sound one. The others add floating-point noise: their certificates hold in
exact arithmetic only, and what is said of them (``certify.laws``) says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from certify.calls import checked
from certify.errors import InvalidSetting
from certify.geometry import Geometry
from certify.laws import NoiseLaw
from certify.noise.gaussian import AnisotropicNoise, GaussianNoise, standard_normal
from certify.noise.grid import make_grid
from certify.noise.l1 import LaplaceNoise, UniformNoise
from certify.noise.lattice import LatticeNoise
from certify.noise.level import check_sigma

#: Every law that adds noise to the input, the sound one first.
REGISTERED = (LatticeNoise, GaussianNoise, AnisotropicNoise, UniformNoise, LaplaceNoise)
NAMES = tuple(kind.name for kind in REGISTERED)


class Noise(Protocol):
    """One noise law of a run."""

    @property
    def name(self) -> str:
        """The law's name among ``NAMES``."""
        ...

    @property
    def about(self) -> NoiseLaw:
        """The law in the words of a guarantee, and what the guarantee does not cover."""
        ...

    @property
    def label(self) -> str:
        """``about.label``: the law in the words of a guarantee."""
        ...

    @property
    def exact(self) -> bool:
        """``about.exact``: whether certificates hold on a real computer, rounding included."""
        ...

    def ball(self, p: float, dim: int) -> Geometry:
        """What a class probability proves in the lp norm for inputs of ``dim`` coordinates.

        Every law names its own: nothing stands in for a missing one (``certify.geometry``). Raises
        InvalidSetting for a norm without a theorem.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that determines the noise besides the seed, as JSON types."""
        ...

    def for_purpose(self, purpose: int) -> Noise:
        """The same law from random words that no other purpose uses."""
        ...

    def tv(self, dim: int) -> float:
        """Bound on one sample's total variation distance from the ideal law; subtract it from pA.

        Zero for floating-point noises, which claim exact arithmetic.
        """
        ...

    def snap(self, x: Tensor) -> Tensor:
        """The point nearest to ``x`` that a certificate can speak about."""
        ...

    def prepare(self, x: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """One input (*shape), ready to be filled from. Raises InvalidInput where it cannot be."""
        ...

    def fill(
        self,
        out: Tensor,
        *,
        bases: Sequence[Tensor],
        ids: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
        seed: int,
    ) -> None:
        """Write noisy copies into ``out`` (sum(counts), *shape), float32, contiguous.

        Item k fills the next ``counts[k]`` rows with samples ``starts[k], starts[k] + 1, ...`` of
        the input ``ids[k]``, whose prepared image is ``bases[k]``. ``seed`` is the run seed,
        0 <= seed < 2**128.
        """
        ...


@checked
def make_noise(
    name: str, *, sigma: Any, grid: float | None = None, bounds: tuple[float, float] | None = None
) -> Noise:
    """The noise law called ``name`` with standard deviation ``sigma``.

    ``sigma`` is one number, or for "anisotropic" an array that broadcasts to the input shape
    (per feature, or per channel as (channels, 1, 1)). ``grid`` and ``bounds`` are used by
    "lattice". Raises InvalidSetting.
    """
    if name not in NAMES:
        raise InvalidSetting(
            f"there is no noise called {name!r}",
            why="the known laws are " + ", ".join(NAMES),
            remedy="use 'lattice' (sound) unless the input space is not a grid",
        )
    values = np.asarray(check_sigma(sigma))
    if name == "anisotropic":
        return AnisotropicNoise(sigma=values)
    if values.ndim:
        raise InvalidSetting(
            f"noise {name!r} takes one sigma, not an array of shape {values.shape}",
            why="its law has the same standard deviation in every coordinate",
            remedy="pass noise='anisotropic' for a sigma per feature or channel",
        )
    if name == "lattice":
        if grid is None:
            raise InvalidSetting(
                "lattice noise needs the step of the input grid",
                why="none is declared by the checkpoint, the data or the caller",
                remedy="pass grid=1/255 for 8-bit images or a power of two the inputs are rounded to, "
                "or noise='gaussian' (a certificate in exact arithmetic only)",
            )
        return LatticeNoise(float(values), make_grid(grid, bounds))
    simple: dict[str, Any] = {kind.name: kind for kind in REGISTERED}
    return simple[name](sigma=float(values))


__all__ = ["NAMES", "Noise", "make_noise", "standard_normal"]
