"""Noises with their own l1 certificates: uniform and Laplace (exact arithmetic only).

G. Yang et al., "Randomized Smoothing of All Shapes and Sizes", ICML 2020. With a probability gap
Delta = pA - pB, Uniform[-lambda, lambda]^d certifies the l1 radius lambda * Delta, and Laplace(b)
certifies max{(b/2) ln(pA/pB), -b ln(1 - Delta)}. ``sigma`` is the standard deviation of one
coordinate for both, so lambda = sqrt(3) sigma and b = sigma / sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.geometry import LaplaceBall, UniformBall, only_norm
from certify.noise.fill import Segment
from certify.noise.floating import FloatNoise
from certify.noise.gaussian import add_bases

_MAGNITUDE = 0x7FFFFFFF


@dataclass(frozen=True)
class UniformNoise(FloatNoise):
    """Uniform on [-half_width, half_width] in every coordinate."""

    sigma: float = field(kw_only=True)

    name = "uniform"

    @property
    def half_width(self) -> float:
        """lambda = sqrt(3) sigma."""
        return math.sqrt(3) * self.sigma

    def parameters(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "half_width": self.half_width}

    def law(self, shape: tuple[int, ...]) -> _Uniform:
        return _Uniform(self.half_width)

    def ball(self, p: float, dim: int) -> UniformBall:
        only_norm(self.name, p, 1.0)
        return UniformBall(self.half_width)


@dataclass(frozen=True)
class LaplaceNoise(FloatNoise):
    """Density exp(-|t| / scale) / (2 scale) in every coordinate."""

    sigma: float = field(kw_only=True)

    name = "laplace"

    @property
    def scale(self) -> float:
        """b = sigma / sqrt(2)."""
        return self.sigma / math.sqrt(2)

    def parameters(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "scale": self.scale}

    def law(self, shape: tuple[int, ...]) -> _Laplace:
        return _Laplace(self.scale)

    def ball(self, p: float, dim: int) -> LaplaceBall:
        only_norm(self.name, p, 1.0)
        return LaplaceBall(self.scale)


@dataclass(frozen=True)
class _Uniform:
    half_width: float

    def words(self, dim: int) -> int:
        return -(-dim // 2)

    def write(self, words: np.ndarray, segments: Sequence[Segment], out: np.ndarray) -> None:
        out[...] = _halves(words, self.words(out.shape[1]))[:, : out.shape[1]]
        out += np.float32(0.5)
        out *= np.float32(self.half_width * 2.0**-31)
        add_bases(out, segments)

    def on_device(self, words: Tensor, base: Tensor | None, dim: int) -> Tensor:
        bits = _device_halves(words, self.words(dim))[:, :dim]
        noise = (bits.float() + 0.5) * (self.half_width * 2.0**-31)
        return noise if base is None else noise + base


@dataclass(frozen=True)
class _Laplace:
    scale: float

    def words(self, dim: int) -> int:
        return -(-dim // 2)

    def write(self, words: np.ndarray, segments: Sequence[Segment], out: np.ndarray) -> None:
        bits = _halves(words, self.words(out.shape[1]))[:, : out.shape[1]]
        size = (bits & _MAGNITUDE).astype(np.float32)
        size += np.float32(0.5)
        size *= np.float32(2.0**-31)
        np.log(size, out=size)
        size *= np.float32(-self.scale)
        np.copysign(size, (bits | 1).astype(np.float32), out=out)
        add_bases(out, segments)

    def on_device(self, words: Tensor, base: Tensor | None, dim: int) -> Tensor:
        bits = _device_halves(words, self.words(dim))[:, :dim]
        size = (((bits & _MAGNITUDE).float() + 0.5) * 2.0**-31).log() * -self.scale
        noise = torch.where(bits < 0, -size, size)
        return noise if base is None else noise + base


def _halves(words: np.ndarray, count: int) -> np.ndarray:
    """Signed 32-bit halves of the first ``count`` words of each row, low half first."""
    return words[:, :count].astype("<u8", copy=False).view("<i4")


def _device_halves(words: Tensor, count: int) -> Tensor:
    return torch.stack((words[:, :count] << 32 >> 32, words[:, :count] >> 32), dim=-1).flatten(1)
