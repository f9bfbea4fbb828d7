"""The smoothed segmentation: sample it, certify its pixels, replay its votes.

M. Fischer, M. Baader, M. Vechev, "Scalable Certified Segmentation via Randomized Smoothing", ICML 2021:
at every pixel the class the base segmenter most often gives it under noise on the whole image. What
is proved, and why for all pixels together: ``certify.dense.procedure``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.arguments import (
    check_batch_size,
    check_ids,
    check_sigma,
    count_classes,
    declared,
    refuse_other_task,
)
from certify.audits import AUDIT, audit_settings
from certify.bounds import check_alpha
from certify.calls import checked
from certify.contents import model_contents
from certify.contract import check_inputs, check_model
from certify.data import gather
from certify.dense.maps import ABSTAIN, MOST_CLASSES, PixelMaps
from certify.dense.procedure import PixelTests, make_pixel_tests
from certify.dense.run import SegmentationRun
from certify.dense.votes import BaseSegmenter, PixelVotes, choose_batch_size
from certify.dense.work import Work
from certify.errors import InvalidInput, InvalidSetting
from certify.geometry import make_geometry, norm_name, parse_norm
from certify.guarantees import of_pixels
from certify.identity import (
    described,
    named,
    with_callers,
)
from certify.inputs import Rows
from certify.noise import Noise, make_noise
from certify.records import Record, Run
from certify.sampling.classifier import Probe
from certify.sampling.engine import Request, Sampler, audited_counts
from certify.sampling.start import among, noisy_rows, probed
from certify.seeds import Seed, settled
from certify.store import RunStore, open_run, read_run
from certify.unchanged import Unchanged

PURPOSES = {"certify": 0, "predict": 1}
#: Images and pixels of each whose classes are part of a segmenter's identity.
_PROBES, _PROBED_PIXELS = 4, 64
#: Scores of one image from which on the determinism probe takes fewer samples.
_LARGE = 1 << 20


class SmoothedSegmentation:
    """A base segmenter averaged over noise of standard deviation ``sigma`` on the whole image.

    ``model``: any nn.Module in eval mode or callable, (batch, channels, height, width) -> scores
    (batch, num_classes, height, width). ``noise``, ``norm``, ``grid``, ``bounds``, ``device``,
    ``dtype``, ``compiled`` and ``batch_size`` as for ``certify.Smoothed``; what is not given is read
    from ``data``, or from the model's checkpoint header where it has one.
    """

    @checked
    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        sigma: float,
        *,
        data: Any = None,
        num_classes: int | None = None,
        noise: str = "lattice",
        norm: str | float = "2",
        grid: float | None = None,
        bounds: tuple[float, float] | str | None = "header",
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: str = "fp32",
        compiled: bool = False,
    ) -> None:
        header = getattr(model, "certify_header", None)
        refuse_other_task(header, "segmentation")
        self.sigma = check_sigma(sigma)
        check_model(model)
        self.num_classes, self.grid, self.bounds = declared(
            model, data, num_classes=num_classes, grid=grid, bounds=bounds
        )
        self._check_count()
        self.noise: Noise = make_noise(noise, sigma=self.sigma, grid=self.grid, bounds=self.bounds)
        self.norm = norm_name(parse_norm(norm))
        self.model = model
        self.header = header
        self.classifier = BaseSegmenter(
            model, num_classes=self.num_classes, spatial=(), device=device, dtype=dtype, compiled=compiled
        )
        self.device = self.classifier.device
        self.batch_size = check_batch_size(batch_size)
        self.probe: Probe | None = None
        self._kept = Unchanged(self)

    # -- certificates -----------------------------------------------------------------------

    @checked
    def certify(
        self,
        x: Any,
        y: Any = None,
        *,
        ids: Sequence[int] | None = None,
        alpha: float = 1e-3,
        radius: float | None = None,
        correction: str | None = None,
        n0: int = 100,
        n: int = 1000,
        tolerate: float = 0.0,
        seed: int | None = None,
        store: RunStore | str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        on_record: Callable[[Record], None] | None = None,
        on_samples: Callable[[int], None] | None = None,
    ) -> SegmentationRun:
        """Certify the pixels of every image of ``x``: (n, channels, height, width), a loader or a data set.

        Per image, with probability >= 1 - alpha *all* its certified pixels (all but the tolerated ones) keep
        their class within their radius. ``radius``: test this one, by Holm's correction. Without it every
        pixel gets a radius of its own (correction "bonferroni"). ``n0`` samples choose the classes, ``n``
        fresh ones test them. ``tolerate``: the share of an image's pixels that may be certified wrongly with
        probability 1 - alpha (default 0), which needs fewer samples. ``y``: label maps (n, height, width),
        used for scores only; pixels without a class hold ``certify.contract.IGNORE``. ``ids``, ``seed`` and
        ``store`` as for ``Smoothed.certify``; a run directory also gets the maps of every image.
        """
        given = gather(x, y)
        self._count_classes(given.x)
        x, y = check_inputs(given.x, given.y, bounds=self.bounds, num_classes=self.num_classes, dense=True)
        self._check_images(x, y)
        ids = check_ids(given.ids if ids is None else ids, len(x))
        self.noise.prepare(x)
        key = settled(seed, store)
        geometry = make_geometry(self.noise, norm=self.norm, dim=x[0].numel())
        alpha = check_alpha(alpha, shares=x[0, 0].numel())
        procedure = make_pixel_tests(
            geometry, correction=correction, radius=radius, alpha=alpha, n0=n0, n=n, tolerate=tolerate,
            tv=self.noise.tv(x[0].numel()),
        )  # fmt: skip
        sampler = self._sampler(x, seed=key.value, purpose="certify")
        rows = Rows.of(ids, x, y)
        described = with_callers(self.settings(x, procedure=procedure, seed=key), rows.described(settings))
        guarantee = self.guarantee(procedure, key)
        work = Work(self, x, y, ids, geometry, procedure, sampler, on_record, on_samples)
        if isinstance(store, str | os.PathLike):
            with open_run(store, described, guarantee, rows=rows) as opened:
                work.into(opened)
        elif store is not None:
            rows.refuse_other(store.run(), store.path)
            work.into(store)
        else:
            kept: dict[int, PixelMaps] = {}
            records = work.records(ids, lambda record, maps: kept.update({record.index: maps}))
            return SegmentationRun(Run(records, described, guarantee), kept.get)
        return SegmentationRun.of(read_run(store if not isinstance(store, RunStore) else store.path))

    def votes(self, x: Any, *, n: int, seed: int, ids: Sequence[int] | None = None) -> np.ndarray:
        """Fresh votes (len(x), classes, height, width) from words that ``certify`` never uses.

        A pixel whose score is not finite in a sample votes for no class in it.
        """
        given = gather(x)
        self._count_classes(given.x)
        x, _ = check_inputs(given.x, None, bounds=self.bounds, num_classes=self.num_classes)
        self._check_images(x, None)
        ids = check_ids(given.ids if ids is None else ids, len(x))
        sampler = self._sampler(x, seed=seed, purpose="predict")
        found = [
            audited_counts(sampler, [Request(i, self.prepared(row), 0, n)])[0, :-1]
            for i, row in zip(ids, x, strict=True)
        ]
        return np.stack(found)

    def plain(self, x: Tensor) -> np.ndarray:
        """The base model's classes (n, height, width) on images as they are; -1 for no finite score."""
        self._count_classes(x)
        self._check_images(x, None)
        rows = [self.classifier.vote_alone(row[None].to(self.device)) for row in x]
        found = np.stack(rows).reshape(len(x), *self.classifier.spatial)
        return np.where(found == self.num_classes, ABSTAIN, found)

    def noisy(self, x: Tensor, count: int, *, seed: int, id: int, start: int = 0) -> Tensor:
        """The noisy copies ``start .. start + count`` of the image ``x`` that ``certify`` classifies."""
        out = torch.empty(count, *x.shape, dtype=torch.float32, device=self.device)
        base = self.prepared(x)
        self.noise.fill(out, bases=[base], ids=[id], starts=[start], counts=[count], seed=seed)
        return out

    def to_grid(self, x: Tensor) -> Tensor:
        """``x`` moved to the nearest point the certificate speaks about (clipped to the range)."""
        return self.noise.snap(x if self.bounds is None else x.clamp(*self.bounds))

    # -- what is written down ---------------------------------------------------------------

    @property
    def sigma_scale(self) -> float:
        """The factor that turns Phi^-1(p) into an l2 radius: sigma itself when it is isotropic."""
        return float(np.min(np.asarray(self.sigma)))

    def settings(self, x: Tensor, *, procedure: PixelTests, seed: Seed) -> dict[str, Any]:
        """Everything that determines the records and maps, as JSON types."""
        shape = list(x.shape[1:])
        return {
            "format_version": 1,
            "task": "segmentation",
            "model": self.identity(shape),
            "sigma": self.sigma_scale,
            "diffusion_sigma": self.sigma_scale / 2**0.5,
            "noise": self.noise.name,
            "noise_settings": self.noise.settings(),
            "grid": self.grid if self.noise.about.exact else None,
            "bounds": None if self.bounds is None else list(self.bounds),
            "scores": "votes",
            "norm": self.norm,
            "alpha": procedure.alpha,
            "mode": "fixed",
            "mode_options": procedure.settings(),
            **seed.settings(),
            "dtype": self.classifier.dtype,
            "compiled": self.classifier.compiled,
            "num_classes": self.num_classes,
            "input_shape": shape,
            "dim": int(np.prod(shape)),
            "device": self.device.type,
            AUDIT: audit_settings(),
        }

    def identity(self, shape: Sequence[int]) -> dict[str, Any]:
        """Which function is certified: its weights' digest, its class, its classes at a few fixed pixels."""
        generator = torch.Generator().manual_seed(0)
        low, high = self.bounds or (-1.0, 1.0)
        points = low + (high - low) * torch.rand(_PROBES, *shape, generator=generator)
        found = self.plain(points).reshape(_PROBES, -1)  # also fills the caches that a first call fills
        made_of = [model_contents(self.classifier.model)]
        self.classifier.logits(points[:2].to(self.device))
        made_of.append(model_contents(self.classifier.model))
        scores = torch.cat([self.classifier.logits_alone(row[None].to(self.device)) for row in points])
        made_of.append(model_contents(self.classifier.model))
        pixels = np.linspace(0, found.shape[1] - 1, _PROBED_PIXELS).astype(int)
        return named(self.model, found[:, pixels].ravel().tolist()) | described(
            made_of, scores, self.classifier.rounding
        )

    def guarantee(self, procedure: PixelTests, seed: Seed) -> str:
        """The certificate in one paragraph: what holds, where, and with which probability."""
        return of_pixels(self, procedure, seed)

    # -- helpers ----------------------------------------------------------------------------

    def _count_classes(self, x: Any) -> None:
        """Ask the model for its number of classes where nothing else has said it."""
        if self.num_classes is None:
            self._kept.refuse()
            self.num_classes = count_classes((self.classifier,), x, bounds=self.bounds, spatial=True)
            self._kept.settle()
            self._check_count()

    def _check_count(self) -> None:
        if self.num_classes is not None and self.num_classes > MOST_CLASSES:
            raise InvalidSetting(
                f"a segmenter of {self.num_classes:,} classes cannot be certified",
                why=f"the maps hold a pixel's class in 16 bits, which tell {MOST_CLASSES:,} apart",
                remedy="merge classes, or certify a segmenter of fewer",
            )

    def _check_images(self, x: Tensor, y: Tensor | None) -> None:
        if x.dim() != 4:
            raise InvalidInput(
                f"the inputs have shape {tuple(x.shape)}, which are no images",
                why="a segmentation gives a class to every pixel of (n, channels, height, width)",
                remedy="pass images with channels first, or use certify.Smoothed for a classifier",
            )
        if y is not None and y.shape[1:] != x.shape[2:]:
            raise InvalidInput(
                f"the label maps are {tuple(y.shape[1:])}, the images {tuple(x.shape[2:])}",
                why="every pixel of an image has one label",
                remedy="bring both to one size first (labels by nearest neighbour)",
            )
        if self.classifier.spatial != tuple(x.shape[2:]):
            self.classifier.spatial = tuple(x.shape[2:])
            self.probe = None

    def _sampler(self, x: Tensor, *, seed: int, purpose: str) -> Sampler:
        """The engine for images like ``x``; probes the model once per image size and way torch computes."""
        self._kept.refuse(x[0])
        if self.batch_size is None:
            self.batch_size = choose_batch_size(self.classifier, self.noise, x[0])
        # Every row is evaluated a dozen times: fewer of large images.
        large = self.num_classes * x[0, 0].numel() > _LARGE
        images = x[among(len(x), seed, 2 if large else 8)]
        rows = partial(noisy_rows, self.noisy, images, seed=seed, copies=1 if large else 4)
        before, self.probe = self.probe, probed(self.classifier, self.probe, rows, self.batch_size)
        if self.probe is not before:
            self._kept.settle()
        return Sampler(
            self.classifier,
            self.noise.for_purpose(PURPOSES[purpose]),
            seed=seed,
            shape=tuple(x.shape[1:]),
            batch_size=self.batch_size,
            tally=PixelVotes(self.num_classes, *self.classifier.spatial),
            purpose=PURPOSES[purpose],
            anchors=self.probe.anchors,
        )

    def prepared(self, x: Tensor) -> Tensor:
        """One image as the noise takes it."""
        return self.noise.prepare(x, device=self.device)
