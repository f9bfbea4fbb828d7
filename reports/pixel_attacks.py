"""What attacks found in a segmentation run, read from the run: rows for the report, and contradictions.

The maps of every stored outcome are read again; a share is never taken from the summary beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certify.dense.attacked import AttackedPixels
from certify.dense.run import PixelContradiction, SegmentationRun, class_iou, mean_known
from reports.attack_groups import CHALLENGE, norm_name

if TYPE_CHECKING:
    from certify.store import StoredRun


@dataclass(frozen=True, eq=False)
class StoredPixelAttack(AttackedPixels):
    """One stored outcome: what its JSON says and its maps hold (``attacks.dense.PixelAttack`` in the run)."""

    row: Mapping[str, Any]
    label: np.ndarray
    clean: np.ndarray
    attacked: np.ndarray
    found: np.ndarray
    by: np.ndarray

    @property
    def index(self) -> int:
        return int(self.row["index"])

    @property
    def smoothed(self) -> bool:
        return bool(self.row["smoothed"])

    @property
    def attempts(self) -> tuple[Any, ...]:
        return tuple(_Attempt(str(a["name"])) for a in self.row["attempts"])

    def nearest(self, norm: str) -> np.ndarray:
        """The size in ``norm`` of the smallest perturbation confirmed to change each pixel, else inf."""
        sizes = [
            {str(self.row["norm"]): a["distance"], "2": a["distance_l2"], "inf": a["distance_linf"]}.get(
                norm, float("inf")
            )
            for a in self.row["attempts"]
        ]
        return np.asarray([*sizes, float("inf")], dtype=np.float64)[self.by]


@dataclass(frozen=True)
class _Attempt:
    name: str


@dataclass(frozen=True)
class PixelAttackRow:
    """One attack in the report. Shares are of the labelled pixels of the attacked images.

    ``once``: right under the strongest perturbation of each image. ``survived``: right, and changed by no
    perturbation tried. ``certified``: certified with the true class at this size, on the same images;
    None for the base model and where the run's norm is another.
    """

    smoothed: bool
    norm: str
    eps: float
    preset: str
    images: int
    before: float
    once: float
    survived: float
    certified: float | None
    iou_before: float
    iou_once: float

    @property
    def target(self) -> str:
        return "smoothed" if self.smoothed else "base model"

    @property
    def name(self) -> str:
        return f"{norm_name(self.norm)} ≤ {self.eps:g}"


@dataclass(frozen=True, eq=False)
class PixelAttacks:
    """All attacks of a run: a row per attack, the challenge's pixels and images, contradictions.

    ``shown``: per image the outcome to be drawn, of the attack on the smoothed segmentation with the
    largest size, else of that on the base model.
    """

    rows: tuple[PixelAttackRow, ...]
    challenged: tuple[int, int]
    contradictions: tuple[PixelContradiction, ...]
    shown: Mapping[int, StoredPixelAttack]


def pixel_attacks(stored: StoredRun, run: SegmentationRun) -> PixelAttacks:
    """Everything the report says about attacks; empty where none is stored."""
    found = list(_outcomes(stored))
    groups: dict[tuple[bool, str, float, str], list[StoredPixelAttack]] = {}
    for o in found:
        if o.row["preset"] != CHALLENGE:
            key = (o.smoothed, str(o.row["norm"]), float(o.row["eps"]), str(o.row["preset"]))
            groups.setdefault(key, []).append(o)
    order = sorted(groups, key=lambda k: (not k[0], k[1], k[2], k[3]))
    inside = [o for o in found if o.row["preset"] == CHALLENGE]
    hits = run.contradictions(found) if any(o.smoothed for o in found) else []
    drawn = sorted(groups, key=lambda k: (k[0], k[2]))
    return PixelAttacks(
        rows=tuple(_row(key, groups[key], run) for key in order),
        challenged=(sum(int(o.stake.sum()) for o in inside), len(inside)),
        contradictions=tuple(hits),
        shown={o.index: o for key in drawn for o in groups[key]},
    )


def _outcomes(stored: StoredRun) -> Iterable[StoredPixelAttack]:
    for row in stored.attacks:
        arrays = stored.arrays(str(row["arrays"])) if row.get("arrays") else None
        if arrays is not None:  # a process that was killed between the two left the row alone
            yield StoredPixelAttack(row, *(arrays[k] for k in ("label", "clean", "attacked", "found", "by")))


def _row(
    key: tuple[bool, str, float, str], outcomes: Sequence[StoredPixelAttack], run: SegmentationRun
) -> PixelAttackRow:
    smoothed, norm, eps, preset = key
    stake = max(1, sum(int(o.stake.sum()) for o in outcomes))

    def share(maps: Iterable[np.ndarray]) -> float:
        return sum(int(m.sum()) for m in maps) / stake

    return PixelAttackRow(
        smoothed=smoothed, norm=norm, eps=eps, preset=preset, images=len(outcomes),
        before=share(o.right for o in outcomes),
        once=share(o.right & ~o.broken for o in outcomes),
        survived=share(o.right & ~o.reached for o in outcomes),
        certified=_certified(outcomes, run, norm, eps) if smoothed else None,
        iou_before=_mean_iou([(o, o.clean) for o in outcomes], run),
        iou_once=_mean_iou([(o, o.attacked) for o in outcomes], run),
    )  # fmt: skip


def _certified(
    outcomes: Sequence[StoredPixelAttack], run: SegmentationRun, norm: str, eps: float
) -> float | None:
    if norm != str(run.settings.get("norm", "2")) or not run.labelled:
        return None
    wanted = {o.index for o in outcomes}
    images = [image.maps for image in run if image.record.index in wanted]
    known = sum(int(m.known.sum()) for m in images)
    return sum(int((m.correct & (m.radius >= eps)).sum()) for m in images) / max(1, known)


def _mean_iou(pairs: Sequence[tuple[StoredPixelAttack, np.ndarray]], run: SegmentationRun) -> float:
    classes = int(run.settings["num_classes"])
    table = np.zeros((classes, classes + 1), dtype=np.int64)
    for o, given in pairs:
        answers = np.where(given < 0, classes, given)[o.stake]
        np.add.at(table, (o.label[o.stake], answers), 1)
    return mean_known(class_iou(table))
