"""Smooth a network over the noise it carries inside, and certify its input.

The certificate is that of ``Smoothed`` with the effective sigma of ``certify.inside.effective_sigma``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from certify.errors import InvalidModel
from certify.geometry import GaussianBall
from certify.identity import identify
from certify.inside.effective_sigma import NoiseStage, effective_sigma
from certify.inside.injections import check_injections
from certify.laws import LAWS
from certify.noise import standard_normal
from certify.procedures.outcome import Procedure
from certify.sampling.audit import still_the_same
from certify.sampling.classifier import BaseClassifier
from certify.sampling.engine import Sampler
from certify.sampling.start import among, noisy_rows, probed
from certify.sampling.tally import tally_for
from certify.seeds import Seed
from certify.smoothing import PURPOSES, Smoothed
from certify.unchanged import Unchanged

#: Samples per forward pass where the caller names none; only speed depends on it.
BATCH_SIZE = 256


class NoisyNetwork(Protocol):
    """What ``SmoothedInside`` certifies; ``pdenets.noisy_resnet`` is one.

    The theorem needs more than its methods can say. The network is a chain x -> g_1(x) + s_1 xi_1 ->
    g_2(...) + s_2 xi_2 -> ... -> logits: every injection is isotropic and acts on the *whole* state; nothing
    passes from before an injection to after it; each ``lipschitz`` bounds g_k in l2, from the whole state
    after one injection to the whole state before the next. The first two are followed through one pass
    (``certify.inside.injections``), the bounds are the network's word.
    """

    #: Shape of one input.
    input_shape: tuple[int, ...]

    def noise_stages(self) -> Sequence[NoiseStage]:
        """The injections in order from the input, with certified Lipschitz bounds."""
        ...

    def noisy_logits(self, x: Tensor, normals: Tensor) -> Tensor:
        """Logits (batch, classes) for inputs x and standard normals (batch, sum of sizes).

        A fixed function of both arguments; stage k adds scale_k times its own normals to the state.
        """
        ...


class SmoothedInside(Smoothed):
    """A noisy network averaged over its internal noise; certified with s_eff in place of sigma.

    Everything ``Smoothed`` does (modes, stores, prediction) works unchanged: the noise is drawn as
    extra input coordinates, keyed by (seed, input id, sample) like input noise. Certificates hold
    in exact arithmetic. Raises InvalidModel when the network has no certified noise stages, or injects its
    noise otherwise than they declare (``NoisyNetwork``).
    """

    def __init__(
        self,
        model: Any,
        *,
        num_classes: int | None = None,
        bounds: tuple[float, float] | str | None = "header",
        batch_size: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not hasattr(model, "noise_stages") or not hasattr(model, "noisy_logits"):
            raise InvalidModel(
                f"{type(model).__name__} has no noise inside",
                why="the certificate needs the network's noise stages and their Lipschitz bounds",
                remedy="use an architecture such as noisy-resnet, or Smoothed for noise on the input",
            )
        classes = num_classes if num_classes is not None else model.certify_header.num_classes
        size = sum(stage.size for stage in model.noise_stages())
        classifier = BaseClassifier(_Augmented(model, size), num_classes=classes, device=device)
        # The classifier may have copied the weights to another dtype: bound the copy that will run.
        self.stages = tuple(classifier.model.model.noise_stages())
        check_injections(classifier.model.model, self.stages, device=classifier.device)
        noise = InternalNoise(self.stages)
        super().__init__(
            model, noise.sigma, num_classes=num_classes, noise="gaussian", bounds=bounds,
            batch_size=batch_size, device=device, reduce=False,
        )  # fmt: skip
        self.noise = noise
        self.classifier = self._view = classifier
        self._kept = Unchanged(self)

    def noisy(self, x: Tensor, count: int, *, seed: int, id: int, start: int = 0) -> Tensor:
        """The rows (x, normals) that ``certify`` classifies, shape (count, d + noise coordinates)."""
        base = self.noise.prepare(x, device=self.device)
        out = torch.empty(count, base.numel(), dtype=torch.float32, device=self.device)
        self.noise.fill(out, bases=[base], ids=[id], starts=[start], counts=[count], seed=seed)
        return out

    @property
    def without_noise(self) -> nn.Module:
        """The certified network with all its noise at 0: what a search for adversarial inputs follows."""
        return _Quiet(self.classifier.model)

    def identity(self, shape: Sequence[int]) -> dict[str, Any]:
        """As ``Smoothed.identity``, with the labels of the network without its noise."""

        def rows(points: Tensor) -> Tensor:
            return torch.stack([self.noise.prepare(p, device=self.device) for p in points])

        return identify(self.model, self.classifier, shape=shape, bounds=self.bounds, rows=rows)

    def guarantee(self, procedure: Procedure, alpha: float, seed: Seed) -> str:
        return (
            super().guarantee(procedure, alpha, seed)
            + f" The noise is inside the network ({len(self.stages)} injections); sigma is its effective"
            " value at the input, from certified Lipschitz bounds of the blocks."
        )

    def _sampler(self, x: Tensor, *, seed: int, purpose: str, procedure: Procedure | None = None) -> Sampler:
        size = self.batch_size = self.batch_size or BATCH_SIZE
        rows = partial(noisy_rows, self.noisy, x[among(len(x), seed)], seed=seed)
        before, self.probe = self.probe, probed(self.classifier, self.probe, rows, size)
        if self.probe is not before:
            still_the_same(self.classifier, self._first)
            self._kept.settle()
        return Sampler(
            self.classifier,
            self.noise.for_purpose(PURPOSES[purpose]),
            seed=seed,
            shape=tuple(self.noise.prepare(x[0]).shape),
            batch_size=size,
            tally=None if procedure is None else tally_for(procedure, self.num_classes),
            purpose=PURPOSES[purpose],
            anchors=self.probe.anchors,
        )


@dataclass(frozen=True)
class InternalNoise:
    """A noise law on augmented inputs (x, normals): x is left alone, the rest is N(0, I)."""

    stages: tuple[NoiseStage, ...]
    purpose: int = 0

    name = "internal"
    about = LAWS["internal"]
    label, exact = about.label, about.exact

    @property
    def sigma(self) -> float:
        """The effective standard deviation at the input."""
        return effective_sigma([s.scale for s in self.stages], [s.lipschitz for s in self.stages])

    @property
    def size(self) -> int:
        """How many standard normals one pass through the network takes."""
        return sum(stage.size for stage in self.stages)

    def ball(self, p: float, dim: int) -> GaussianBall:
        """That of Gaussian noise on the input with the effective sigma."""
        return GaussianBall(self.sigma, p, dim)

    def settings(self) -> dict[str, Any]:
        return {
            "scales": [s.scale for s in self.stages],
            "lipschitz": [s.lipschitz for s in self.stages],
            "sizes": [s.size for s in self.stages],
        }

    def for_purpose(self, purpose: int) -> InternalNoise:
        return InternalNoise(self.stages, purpose)

    def tv(self, dim: int) -> float:
        return 0.0

    def snap(self, x: Tensor) -> Tensor:
        return x

    def prepare(self, x: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        flat = x.detach().float().flatten()
        return torch.cat([flat, flat.new_zeros(self.size)]).to(device)

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
        row = 0
        for base, count in zip(bases, counts, strict=True):
            out[row : row + count] = base
            row += count
        normals = torch.empty(len(out), self.size, dtype=torch.float32, device=out.device)
        standard_normal(normals, ids=ids, starts=starts, counts=counts, seed=seed, purpose=self.purpose)
        out[:, -self.size :] = normals


class _Augmented(nn.Module):
    """(x, normals) -> logits, so that the engine can treat internal noise as input coordinates."""

    def __init__(self, model: Any, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.shape = tuple(model.input_shape)
        self.train(model.training)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, : -self.size].reshape(len(z), *self.shape)
        return self.model.noisy_logits(x, z[:, -self.size :])


class _Quiet(nn.Module):
    """x -> logits of a network with noise inside, each of its normals 0."""

    def __init__(self, augmented: Any) -> None:
        super().__init__()
        self.model = augmented
        self.train(augmented.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(torch.cat([x.flatten(1), x.new_zeros(len(x), self.model.size)], dim=1))
