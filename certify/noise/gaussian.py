"""Gaussian noise in floating point: the literature's noise, a certificate in exact arithmetic only.

G. Box, M. Muller, "A note on the generation of random normal deviates", 1958: from two uniforms
u and t, z = sqrt(-2 ln u) (cos 2 pi t, sin 2 pi t). u has 31 bits and t 32, so |z| < 6.67, which a
normal exceeds with probability 3e-11. Every step is one elementwise operation on contiguous
arrays, whose result does not depend on the element's place; the tests check that bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.errors import InvalidSetting
from certify.geometry import Ellipsoid, GaussianBall, only_norm
from certify.noise.fill import Segment
from certify.noise.floating import FloatNoise

_MAGNITUDE = 0x7FFFFFFF
_TO_UNIT = 2.0**-31
_TO_ANGLE = math.pi * 2.0**-31


@dataclass(frozen=True)
class GaussianNoise(FloatNoise):
    """N(0, sigma^2 I) added in float32."""

    sigma: float = field(kw_only=True)

    name = "gaussian"

    def parameters(self) -> dict[str, Any]:
        return {"sigma": self.sigma}

    def law(self, shape: tuple[int, ...]) -> BoxMuller:
        return BoxMuller(self.sigma)

    def ball(self, p: float, dim: int) -> GaussianBall:
        return GaussianBall(float(self.sigma), p, dim)


@dataclass(frozen=True, eq=False)
class AnisotropicNoise(FloatNoise):
    """N(0, diag(sigma_i^2)): ``sigma`` broadcasts to the input shape.

    The certificate is an ellipsoid, sum_i (delta_i / sigma_i)^2 <= rho^2 (F. Eiras et al., "ANCER",
    TMLR 2022).
    """

    sigma: np.ndarray = field(kw_only=True)

    name = "anisotropic"

    def parameters(self) -> dict[str, Any]:
        return {"sigma": self.sigma.tolist()}

    def law(self, shape: tuple[int, ...]) -> BoxMuller:
        try:
            full = np.broadcast_to(self.sigma, shape)
        except ValueError:
            raise InvalidSetting(
                f"sigma of shape {self.sigma.shape} does not fit inputs of shape {shape}",
                why="a sigma per coordinate must broadcast to the input shape",
                remedy="give one sigma per feature, or per channel with shape (channels, 1, 1)",
            ) from None
        return BoxMuller(1.0, np.ascontiguousarray(full, dtype=np.float32).reshape(-1))

    def ball(self, p: float, dim: int) -> Ellipsoid:
        only_norm(self.name, p, 2.0)
        return Ellipsoid.of(self.sigma, dim)


def standard_normal(
    out: Tensor,
    *,
    ids: Sequence[int],
    starts: Sequence[int],
    counts: Sequence[int],
    seed: int,
    purpose: int = 0,
) -> None:
    """Write N(0, 1) into ``out`` (sum(counts), *shape), keyed like ``Noise.fill``.

    For laws that are linear images of a few normals, such as the noise after a first linear
    layer, N(0, sigma^2 W W^T).
    """
    GaussianNoise(purpose, sigma=1.0).fill(out, bases=None, ids=ids, starts=starts, counts=counts, seed=seed)


@dataclass(frozen=True, eq=False)
class BoxMuller:
    """Words to normals times ``scale`` (and times ``stretch`` (dim,) where given)."""

    scale: float
    stretch: np.ndarray | None = None

    def words(self, dim: int) -> int:
        """One word is one point in the plane: two normals."""
        return -(-dim // 2)

    def write(self, words: np.ndarray, segments: Sequence[Segment], out: np.ndarray) -> None:
        dim = out.shape[1]
        half = self.words(dim)
        bits = words[:, :half].astype("<u8", copy=False).view("<i4")
        radius = (bits[:, :half] & _MAGNITUDE).astype(np.float32)
        radius += np.float32(0.5)
        radius *= np.float32(_TO_UNIT)
        np.log(radius, out=radius)
        radius *= np.float32(-2 * self.scale**2)
        np.sqrt(radius, out=radius)
        angle = bits[:, half:].astype(np.float32)
        angle *= np.float32(_TO_ANGLE)
        part = np.cos(angle)
        np.multiply(part, radius, out=out[:, :half])
        np.sin(angle, out=part)
        np.multiply(part[:, : dim - half], radius[:, : dim - half], out=out[:, half:])
        if self.stretch is not None:
            out *= self.stretch
        add_bases(out, segments)

    def on_device(self, words: Tensor, base: Tensor | None, dim: int) -> Tensor:
        half = self.words(dim)
        bits = torch.stack((words[:, :half] << 32 >> 32, words[:, :half] >> 32), dim=-1).flatten(1)
        radius = ((bits[:, :half] & _MAGNITUDE).float() + 0.5) * _TO_UNIT
        radius = (radius.log() * (-2 * self.scale**2)).sqrt()
        angle = bits[:, half:].float() * _TO_ANGLE
        noise = torch.cat((angle.cos() * radius, angle.sin() * radius), dim=1)[:, :dim]
        if self.stretch is not None:
            noise = noise * torch.from_numpy(self.stretch).to(noise.device)
        return noise if base is None else noise + base


def add_bases(out: np.ndarray, segments: Sequence[Segment]) -> None:
    """Add each segment's image to its rows."""
    for part in segments:
        if part.base is not None:
            out[part.low : part.high] += part.base.numpy()
