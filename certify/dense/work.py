"""One certification under way: image after image, each stored before the next begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from certify.audits import audited
from certify.dense.maps import DIGEST, PixelMaps, arrays_digest, arrays_name, preview
from certify.dense.procedure import PixelOutcome, PixelTests
from certify.errors import CorruptRun
from certify.geometry import Geometry
from certify.inputs import naming_input
from certify.procedures.outcome import complement
from certify.records import Record, Status
from certify.sampling.engine import Sampler, drive
from certify.store import RunStore

if TYPE_CHECKING:
    from certify.dense.smoothing import SmoothedSegmentation


class Work:
    """One call of ``certify``: checked images, the plan, the engine, and who is told."""

    def __init__(
        self,
        smoothed: SmoothedSegmentation,
        x: Tensor,
        y: Tensor | None,
        ids: list[int],
        geometry: Geometry,
        procedure: PixelTests,
        sampler: Sampler,
        on_record: Callable[[Record], None] | None,
        on_samples: Callable[[int], None] | None,
    ) -> None:
        self.smoothed, self.x, self.y, self.ids = smoothed, x, y, ids
        self.geometry, self.procedure, self.sampler = geometry, procedure, sampler
        self.on_record, self.on_samples = on_record, on_samples
        self.place = {id: i for i, id in enumerate(ids)}

    def into(self, store: RunStore) -> None:
        """Certify the images that ``store`` has no record of; each is there before the next begins."""
        known = {record.index: record for record in store.run()}

        def keep(record: Record, maps: PixelMaps) -> None:
            # The maps first: a record is only there with what it vouches for.
            store.put_arrays(arrays_name(record.index), maps.arrays())
            store.add(record)

        self.records([i for i in self.ids if not store.has(i) or _lost(store, known[i])], keep)

    def records(self, ids: Sequence[int], keep: Callable[[Record, PixelMaps], None]) -> list[Record]:
        """Fresh records of these images, in the order of ``ids``."""
        found: list[Record] = []
        for id in ids:
            # One image at a time: its counts are the largest thing in memory.
            inputs = [(id, self.smoothed.prepared(self.x[self.place[id]]))]
            for _, outcome, seconds, audit in drive(
                self.sampler, self.procedure, inputs, on_samples=self.on_samples,  # type: ignore[arg-type]
                watch=self.smoothed._kept.watch,
            ):  # fmt: skip
                record, maps = self._record(id, outcome, seconds)  # type: ignore[arg-type]
                record = audited(record, audit)
                keep(record, maps)
                found.append(record)
                if self.on_record is not None:
                    self.on_record(record)
        self.smoothed._kept.refuse()
        return found

    def _record(self, id: int, outcome: PixelOutcome, seconds: float) -> tuple[Record, PixelMaps]:
        image = self.x[self.place[id]]
        target = None if self.y is None else self.y[self.place[id]].numpy()
        maps = PixelMaps(
            selected=outcome.selected,
            votes=outcome.votes,
            certified=outcome.certified,
            radius=pixel_radii(outcome, self.procedure, self.geometry),
            plain=self.smoothed.plain(image[None])[0],
            target=target,
            preview=preview(image.numpy(), self.smoothed.bounds),
        )
        # As the store will give them back: digests must not depend on the types in between.
        maps = PixelMaps.of(maps.arrays())
        return naming_input(_summary(id, maps, outcome, seconds), image, target), maps


def _lost(store: RunStore, record: Record) -> bool:
    """Whether the maps that a record vouches for are gone, so that the image must be done again.

    Raises CorruptRun where other maps are in their place.
    """
    name = arrays_name(record.index)
    if not os.path.lexists(store.path / f"{name}.npz"):
        return True
    maps = store.arrays(name)
    if maps is not None and arrays_digest(maps) != record.details[DIGEST]:
        raise CorruptRun(
            f"{store.path} is damaged",
            why=f"{name}.npz does not hold the maps that the record of image {record.index} vouches for",
            remedy=f"remove {name}.npz (the image is then done again), or restore the directory from a copy",
        )
    return maps is None


def pixel_radii(outcome: PixelOutcome, procedure: PixelTests, geometry: Geometry) -> np.ndarray:
    """The certified radius of every pixel, 0 where nothing was proved; (height, width) float64."""
    if procedure.radius is not None:
        return np.where(outcome.certified, procedure.radius, 0.0)
    found, place = np.unique(np.where(outcome.certified, outcome.p_lower, 0.0), return_inverse=True)
    return np.array([geometry.radius(float(p)) for p in found])[place].reshape(outcome.votes.shape)


def _summary(id: int, maps: PixelMaps, outcome: PixelOutcome, seconds: float) -> Record:
    """The record of an image: its own radius and bound hold for every certified pixel."""
    certified = maps.certified
    some = bool(certified.any())
    lowest = float(outcome.p_lower[certified].min()) if some else 0.0
    return Record(
        index=id,
        status=Status.CERTIFIED if some else Status.ABSTAINED,
        radius=float(maps.radius[certified].min()) if some else 0.0,
        radius_upper=float("inf"),
        p_lower=lowest,
        pb_upper=complement(lowest),
        samples=outcome.samples,
        seconds=seconds,
        details={
            "pixels": int(certified.size),
            "certified": int(certified.sum()),
            "labelled": None if maps.target is None else int(maps.known.sum()),
            "correct": None if maps.target is None else int(maps.correct.sum()),
            DIGEST: maps.digest(),
        },
    )
