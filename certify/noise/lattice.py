"""Integer noise on the input grid: a certificate that floating point cannot falsify.

x + sigma * noise in floating point leaks x through its low bits, and a base classifier can read
them. Here x = step * i, the noise is an integer J = round(sigma / step * N(0, 1)), i + J is added
in integers and converted to float once: two inputs that reach the same grid point show the model
the same bits. Smoothing f with J is smoothing f o round with Gaussian noise (``rounded_normal``),
so J. Cohen et al. 2019, Theorem 1, holds for all grid points within the radius; the sampler's
distance from that law, ``tv``, is subtracted from the lower bound on the class probability.

Random bits: 16 per coordinate decide nearly every value through a table. Where a threshold cuts
through those 16, the next unused word of the same sample supplies 48 more. The words reserved for
this run out with probability below 2**-52 per sample, which ``tv`` contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.errors import InvalidSetting
from certify.geometry import GaussianBall
from certify.laws import LAWS
from certify.noise.fill import Segment, fill_rows
from certify.noise.grid import MAX_INTEGER, Grid
from certify.noise.philox import NAME
from certify.noise.rounded_normal import RoundedNormal, overflow_bound, reserve_for, rounded_normal

_PER_WORD = 4


@dataclass(frozen=True)
class LatticeNoise:
    """Rounded Gaussian noise of standard deviation ``sigma`` on ``grid``: the default."""

    sigma: float
    grid: Grid
    purpose: int = 0

    name = "lattice"
    about = LAWS["lattice"]
    label, exact = about.label, about.exact

    def __post_init__(self) -> None:
        law = rounded_normal(self.sigma, self.grid.step)
        if self.grid.largest + law.reach > MAX_INTEGER:
            raise InvalidSetting(
                f"the grid of step {self.grid.step} is too fine",
                why="noisy inputs would need more integers than float32 holds exactly",
                remedy="declare a coarser grid (a larger power of two)",
            )

    def ball(self, p: float, dim: int) -> GaussianBall:
        """That of Gaussian noise: the rounding is taken to belong to the classifier."""
        return GaussianBall(float(self.sigma), p, dim)

    def settings(self) -> dict[str, Any]:
        step = self.grid.step
        return {
            "name": self.name,
            "sigma": self.sigma,
            "step": f"{step.numerator}/{step.denominator}",
            "generator": NAME,
        }

    def for_purpose(self, purpose: int) -> LatticeNoise:
        """The same noise from words that no other purpose uses."""
        return replace(self, purpose=purpose)

    def tv(self, dim: int) -> float:
        """Bound on the total variation distance of one sample (``dim`` coordinates) from its law.

        Union over coordinates, plus the probability that a sample's reserve of words runs out.
        """
        law = rounded_normal(self.sigma, self.grid.step)
        share = law.undecided_share
        return (dim * law.tv + overflow_bound(share, dim, _reserve(share, dim))) * (1 + 1e-9)

    def snap(self, x: Tensor) -> Tensor:
        """The nearest grid point in the declared range (float32)."""
        return self.grid.snap(x)

    def prepare(self, x: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """One input's grid integers, flat. Raises InvalidInput off the grid."""
        return self.grid.integers(x).to(self._writer.dtype).flatten().to(device or x.device)

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
        """Write noisy images into ``out`` (rows, *shape): see ``certify.noise.Noise.fill``."""
        fill_rows(
            self._writer,
            out,
            bases=bases,
            ids=ids,
            starts=starts,
            counts=counts,
            seed=seed,
            purpose=self.purpose,
        )

    @cached_property
    def _writer(self) -> _Writer:
        return _Writer(rounded_normal(self.sigma, self.grid.step), self.grid)


@dataclass(frozen=True, eq=False)
class _Writer:
    law: RoundedNormal
    grid: Grid

    @property
    def dtype(self) -> torch.dtype:
        """int16 where every sum of input and noise fits."""
        small = self.law.guide.dtype == np.int16 and self.grid.largest + self.law.reach < 1 << 15
        return torch.int16 if small else torch.int32

    def words(self, dim: int) -> int:
        return -(-dim // _PER_WORD) + _reserve(self.law.undecided_share, dim)

    def write(self, words: np.ndarray, segments: Sequence[Segment], out: np.ndarray) -> None:
        values = self.integers(words, out.shape[1])
        for part in segments:
            if part.base is not None:
                values[part.low : part.high] += part.base.numpy()
        np.divide(values, np.float32(self.grid.divisor), out=out, dtype=np.float32, casting="same_kind")

    def integers(self, words: np.ndarray, dim: int) -> np.ndarray:
        """Noise integers (rows, dim) from words (rows, >= words(dim))."""
        split = -(-dim // _PER_WORD)
        slices = words[:, :split].astype("<u8", copy=False).view("<u2")[:, :dim]
        values = np.take(self._guide, slices, mode="clip")
        open_ = np.flatnonzero(values == self.law.undecided)
        if len(open_):
            rows, columns = np.divmod(open_, dim)
            # Each sample hands out its reserve in the order of its own coordinates.
            firsts = np.searchsorted(rows, np.arange(len(words)))
            used = np.minimum(np.arange(len(open_)) - firsts[rows], self._last(dim))
            values.reshape(-1)[open_] = self.law.refine(slices[rows, columns], words[rows, split + used])
        return values

    def on_device(self, words: Tensor, base: Tensor | None, dim: int) -> Tensor:
        values = self.device_integers(words, dim)
        return self.grid.image(values if base is None else values + base)

    def device_integers(self, words: Tensor, dim: int) -> Tensor:
        """The same integers as ``integers`` by torch operations, without a host synchronisation."""
        split = -(-dim // _PER_WORD)
        shifts = torch.arange(0, 64, 16, device=words.device)
        slices = ((words[:, :split, None] >> shifts) & 0xFFFF).flatten(1)[:, :dim]
        guide, thresholds = _device_tables(self.law, words.device)
        open_ = guide[slices] == self.law.undecided
        used = (open_.cumsum(1) - 1).clamp(0, self._last(dim))
        spare = words.gather(1, split + used)
        # Where 16 bits decide, any completion of them gives the same value. Flipping the sign
        # bit makes signed comparison agree with the unsigned order of the thresholds.
        draws = ((slices << 48) | ((spare >> 16) & ((1 << 48) - 1))) ^ torch.iinfo(torch.int64).min
        return torch.searchsorted(thresholds, draws, right=True).to(torch.int32) - self.law.reach

    @cached_property
    def _guide(self) -> np.ndarray:
        return self.law.guide.astype(np.int16 if self.dtype is torch.int16 else np.int32)

    def _last(self, dim: int) -> int:
        return max(_reserve(self.law.undecided_share, dim) - 1, 0)


@lru_cache(maxsize=64)
def _reserve(share: float, dim: int) -> int:
    return reserve_for(share, dim)


@lru_cache(maxsize=8)
def _device_tables(law: RoundedNormal, device: torch.device) -> tuple[Tensor, Tensor]:
    shifted = (law.thresholds ^ np.uint64(1 << 63)).view(np.int64)
    guide = torch.from_numpy(law.guide.astype(np.int32))
    return guide.to(device), torch.from_numpy(shifted).to(device)
