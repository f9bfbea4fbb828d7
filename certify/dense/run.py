"""A certified segmentation run: records, maps, and what they say about a data set. No torch needed."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from certify.dense.correction import most_wrong_pixels
from certify.dense.maps import ABSTAIN, PixelMaps, arrays_name
from certify.errors import InvalidSetting
from certify.records import Estimate, Record, Run, robust_low

if TYPE_CHECKING:
    from certify.store import StoredRun

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """One image: its record and its maps. Indexing a run gives these."""

    record: Record
    maps: PixelMaps


@dataclass(frozen=True)
class PixelContradiction:
    """A certified pixel that a perturbation within its radius was confirmed to give another class."""

    index: int
    row: int
    column: int
    certified: int
    found: int
    radius: float
    distance: float
    attempt: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in field order."""
        return asdict(self)


@dataclass(frozen=True)
class SegmentationScore:
    """A run against its labels. Shares are of labelled pixels, apart from ``abstained`` (of all).

    ``accuracy`` and ``mean_iou`` are those of the certified map: an abstaining pixel is wrong, and
    counts in its class's union. ``plain_*`` are the base model's on the images without noise.
    """

    images: int
    pixels: int
    labelled: int
    abstained: float
    accuracy: float
    mean_iou: float
    plain_accuracy: float
    plain_mean_iou: float
    class_iou: tuple[float | None, ...]
    plain_class_iou: tuple[float | None, ...]


class SegmentationRun(Sequence[SegmentedImage]):
    """The images of one certification, in record order; maps are read when they are asked for.

    ``run`` holds the records, settings and guarantee. An image whose computation failed has no maps.
    """

    def __init__(self, run: Run, load: Callable[[int], PixelMaps | None]) -> None:
        self.run = run
        self.settings = run.settings
        self.guarantee = run.guarantee
        self._load = load
        self._done = tuple(r for r in run if r.status != "failed")

    @classmethod
    def of(cls, stored: StoredRun) -> SegmentationRun:
        """From ``certify.store.read_run``. Raises InvalidSetting for a run of another task."""
        if not is_segmentation(stored.settings):
            raise InvalidSetting(
                f"{stored.path} is no segmentation run",
                why=f"its task is {stored.settings.get('task', 'classification')}",
                remedy="read it with certify.store.read_run",
            )

        def load(index: int) -> PixelMaps | None:
            name = arrays_name(index)
            found = stored.arrays(name)
            return PixelMaps.of(found or {}, f"{stored.path} ({name}.npz)")

        return cls(stored.run, load)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SegmentationRun:
        """The segmentation run in a run directory."""
        from certify.store import read_run

        return cls.of(read_run(path))

    def __len__(self) -> int:
        return len(self._done)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        record = self._done[key]
        maps = self._load(record.index)
        if maps is None:
            raise LookupError(f"image {record.index} has no maps")
        return SegmentedImage(record, maps)

    def __iter__(self) -> Iterator[SegmentedImage]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        certified = sum(int(r.details["certified"]) for r in self._done)
        pixels = sum(int(r.details["pixels"]) for r in self._done)
        return f"<SegmentationRun of {len(self)} images: {certified} of {pixels} pixels certified>"

    @property
    def labelled(self) -> bool:
        """Whether every image has a label map."""
        return len(self) > 0 and all(r.details["labelled"] is not None for r in self._done)

    def score(self) -> SegmentationScore:
        """Pixel accuracy and mean intersection over union, certified and plain.

        Raises InvalidSetting without labels.
        """
        self._need_labels("the score")
        classes = int(self.settings["num_classes"])
        smoothed, plain = np.zeros((2, classes, classes + 1), dtype=np.int64)
        pixels = certified = 0
        for image in self:
            maps, known = image.maps, image.maps.known
            assert maps.target is not None
            truth = maps.target[known]
            for table, found in ((smoothed, maps.classes), (plain, maps.plain)):
                # The last column is for pixels without a class.
                given = np.where(found[known] == ABSTAIN, classes, found[known])
                np.add.at(table, (truth, given), 1)
            pixels += maps.certified.size
            certified += int(maps.certified.sum())
        rows = [class_iou(table) for table in (smoothed, plain)]
        total = max(1, int(smoothed.sum()))
        return SegmentationScore(
            images=len(self),
            pixels=pixels,
            labelled=int(smoothed.sum()),
            abstained=1 - certified / max(1, pixels),
            accuracy=float(np.trace(smoothed)) / total,
            mean_iou=mean_known(rows[0]),
            plain_accuracy=float(np.trace(plain)) / total,
            plain_mean_iou=mean_known(rows[1]),
            class_iou=rows[0],
            plain_class_iou=rows[1],
        )

    def certified_correct(self, at: Sequence[float] = (0.0,), *, level: float = LEVEL) -> list[Estimate]:
        """Share of labelled pixels that are certified with their true class at each radius.

        The interval is Student's over images (pixels of one image are not independent), of a ratio
        estimator; it describes the images' population and is an approximation, and is (0, 1) for a single
        image. ``robust_low`` is its lower end less alpha, and less the share that may be wrong: a bound, as
        approximate, on the share of pixels that keep their true class everywhere within the radius, whether
        or not all certificates hold.
        """
        self._need_labels("certified accuracy")
        radii = np.asarray([_radius(r) for r in at])
        hits = np.empty((len(self), len(radii)))
        known = np.empty(len(self))
        for i, image in enumerate(self):
            reached = np.sort(image.maps.radius[image.maps.correct])
            hits[i] = len(reached) - np.searchsorted(reached, radii)
            known[i] = image.maps.known.sum()
        found = zip(radii, hits.T, strict=True)
        rows = [ratio_over_images(column, known, float(r), level) for r, column in found]
        wrong = sum(map(self._tolerated, self)) / max(1.0, known.sum())
        return [replace(row, robust_low=robust_low(row.low - wrong, self.settings)) for row in rows]

    def certified_share(self, at: Sequence[float] = (0.0,)) -> list[float]:
        """Share of all pixels that are certified at each radius, whatever their class."""
        radii = np.asarray([_radius(r) for r in at])
        hits, pixels = np.zeros(len(radii)), 0
        for image in self:
            reached = np.sort(image.maps.radius[image.maps.certified])
            hits += len(reached) - np.searchsorted(reached, radii)
            pixels += image.maps.certified.size
        return (hits / max(1, pixels)).tolist()

    def contradictions(self, attacks: Any) -> list[PixelContradiction]:
        """Certified pixels that were confirmed to change their class within their radius; must be empty.

        Where the run allows for some wrong pixels, an image counts when more of its pixels changed.

        ``attacks`` iterates outcomes of ``attacks.dense`` (``attack_segmentation`` or
        ``challenge_segmentation``); only those against the smoothed segmentation count, and of them
        the pixels whose certified class was the one to be changed, at distances in the run's norm.
        Raises InvalidSetting where none of them is about an image of this run (other ids).
        """
        outcomes = [o for o in attacks if o.smoothed]
        known = {image.record.index: image for image in self} if outcomes else {}
        if outcomes and not any(o.index in known for o in outcomes):
            raise InvalidSetting(
                "the attacks are about other images than the run",
                why=f"the run has ids like {next(iter(known), None)}, the attacks like {outcomes[0].index}",
                remedy="pass the same ids to certify and to attack",
            )
        norm = str(self.settings.get("norm", "2"))
        hits = [hit for o in outcomes if o.index in known for hit in _hits(o, known[o.index].maps, norm)]
        changed = Counter(i for i, _, _ in {(hit.index, hit.row, hit.column) for hit in hits})
        return [hit for hit in hits if changed[hit.index] > self._tolerated(known[hit.index])]

    def _tolerated(self, image: SegmentedImage) -> int:
        """How many pixels of an image may be certified wrongly."""
        options = self.settings.get("mode_options") or {}
        return most_wrong_pixels(options.get("tolerate", 0.0), image.maps.certified.size)

    def _need_labels(self, what: str) -> None:
        if not self.labelled:
            raise InvalidSetting(
                f"{what} of the segmentation cannot be computed",
                why="the run has no images, or some have no label map",
                remedy="pass y to SmoothedSegmentation.certify, or certify a data set with labels",
            )


def _hits(outcome: Any, maps: PixelMaps, norm: str) -> Iterator[PixelContradiction]:
    distance = outcome.nearest(norm)
    claimed = maps.certified & (outcome.label == maps.selected) & (outcome.found >= 0)
    for row, column in np.argwhere(claimed & (outcome.found != maps.selected) & (distance <= maps.radius)):
        yield PixelContradiction(
            index=outcome.index, row=int(row), column=int(column),
            certified=int(maps.selected[row, column]), found=int(outcome.found[row, column]),
            radius=float(maps.radius[row, column]), distance=float(distance[row, column]),
            attempt=outcome.attempts[int(outcome.by[row, column])].name,
        )  # fmt: skip


def is_segmentation(settings: Any) -> bool:
    """Whether these are the settings of a run that certified pixels."""
    return settings.get("task") == "segmentation"


def refuse_segmentation(settings: Any, what: str, remedy: str) -> None:
    """Raise InvalidSetting if the run certified pixels: ``what`` exists for classifiers only."""
    if is_segmentation(settings):
        raise InvalidSetting(
            f"{what} for a segmentation run",
            why="it certified a class for every pixel, not one class and radius per input",
            remedy=remedy,
        )


def class_iou(table: np.ndarray) -> tuple[float | None, ...]:
    """Intersection over union per class from counts (true class, given class); None without a pixel.

    ``table``: (classes, classes or more); further columns are answers that name no class.
    """
    classes = len(table)
    hit = np.diag(table[:, :classes])
    union = table.sum(axis=1) + table[:, :classes].sum(axis=0) - hit
    return tuple(float(h / u) if u else None for h, u in zip(hit, union, strict=True))


def mean_known(values: Sequence[float | None]) -> float:
    """The mean of the values that are not None, 0 without any."""
    found = [v for v in values if v is not None]
    return math.fsum(found) / max(1, len(found))


def ratio_over_images(hits: np.ndarray, known: np.ndarray, at: float, level: float) -> Estimate:
    """Share ``hits.sum() / known.sum()`` of pixels with Student's interval over images (a ratio estimator).

    ``hits`` and ``known``: (images,) counts of pixels. (0, 1) for a single image.
    """
    n, total = len(known), float(known.sum())
    value = float(hits.sum()) / max(total, 1.0)
    low, high = 0.0, 1.0
    if n > 1 and total > 0:
        from scipy import stats  # takes as long to import as half of torch

        spread = math.sqrt(float(((hits - value * known) ** 2).sum()) / (n * (n - 1))) / (total / n)
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * spread
        low, high = max(0.0, value - half), min(1.0, value + half)
    return Estimate(value, low, high, level, "student over images", at=at)


def _radius(value: float) -> float:
    if math.isfinite(value) and value >= 0:
        return float(value)
    raise InvalidSetting(
        f"radius {value!r} is not a radius", why="it must be finite and >= 0", remedy="give 0, 0.25, 0.5"
    )
