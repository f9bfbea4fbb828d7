"""What an attack on a segmentation leaves behind: one frozen outcome per image, and the run.

Nothing here says "robust": a pixel *survived* a named preset, no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from attacks.outcomes import AttackStatus
from attacks.threat import Threat
from certify.dense.attacked import AttackedPixels
from certify.dense.run import class_iou, mean_known, ratio_over_images
from certify.errors import InvalidSetting
from certify.records import Estimate

#: The maps of an outcome and the types in which they are stored.
MAPS = {"label": np.int32, "clean": np.int32, "attacked": np.int32, "found": np.int32, "by": np.int16}


@dataclass(frozen=True)
class Attempt:
    """One perturbation of the image that was judged: how far it is, and at how many pixels at stake another
    class than the label's was ``confirmed``. ``inside``: it is in ball and box.
    """

    name: str
    distance: float
    distance_l2: float
    distance_linf: float
    confirmed: int
    inside: bool = True

    def reach(self, norm: str, threat: str) -> float:
        """Its size in ``norm``; infinite where that was not measured."""
        known = {threat: self.distance, "2": self.distance_l2, "inf": self.distance_linf}
        return known.get(norm, float("inf"))


@dataclass(frozen=True, eq=False)
class PixelAttack(AttackedPixels):
    """The attack on one image; all maps are (height, width).

    ``label``: the class each pixel was to lose (``IGNORE``: not at stake). ``clean``: its class
    before the attack (-1: none; in a challenge the certified one). ``by``: the number of the nearest
    attempt that was confirmed to change it, -1 where none was. ``found``: the class it has there, else -1.
    ``strongest``: the attempt that broke most pixels at once (-1: none), ``attacked`` the classes under
    it where confirmed and those before the attack elsewhere; ``adversarial`` that image. ``forwards``
    and ``backwards`` count evaluations of the base model.
    """

    index: int
    smoothed: bool
    norm: str
    eps: float
    preset: str
    seed: int
    status: AttackStatus
    attempts: tuple[Attempt, ...]
    strongest: int
    label: np.ndarray
    clean: np.ndarray
    by: np.ndarray
    found: np.ndarray
    attacked: np.ndarray
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    adversarial: np.ndarray | None = field(default=None, repr=False)

    def nearest(self, norm: str | None = None) -> np.ndarray:
        """The size of the smallest perturbation confirmed to change each pixel, inf where none was."""
        sizes = [a.reach(norm or self.norm, self.norm) for a in self.attempts] + [float("inf")]
        return np.asarray(sizes, dtype=np.float64)[self.by]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: everything but the maps and the image, which ``arrays`` holds."""
        smallest = float(self.nearest().min(initial=float("inf")))
        return {
            "index": self.index, "task": "segmentation", "smoothed": self.smoothed, "norm": self.norm,
            "eps": self.eps, "preset": self.preset, "seed": self.seed, "status": str(self.status),
            "distance": None if smallest == float("inf") else smallest,
            "pixels": int(self.stake.sum()), "right": int(self.right.sum()),
            "broken": int(self.broken.sum()), "reached": int(self.reached.sum()),
            "strongest": self.strongest, "attempts": [asdict(a) for a in self.attempts],
            "forwards": self.forwards, "backwards": self.backwards, "seconds": self.seconds,
            "details": dict(self.details), "arrays": self.arrays_name,
        }  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        """The maps by name, and the strongest perturbation's image as ``x_adv`` where there is one."""
        found = {name: getattr(self, name).astype(kind) for name, kind in MAPS.items()}
        return found if self.adversarial is None else found | {"x_adv": self.adversarial}

    @property
    def arrays_name(self) -> str:
        """Under which name a run directory keeps the arrays."""
        return self.stored_name({k: getattr(self, k) for k in ("index", "smoothed", "norm", "eps")})

    @staticmethod
    def stored_name(row: Mapping[str, Any]) -> str:
        """The same from what ``to_json`` wrote."""
        kind = "smoothed" if row["smoothed"] else "base"
        return f"attacked-{row['index']}-{kind}-l{row['norm']}-{row['eps']:.12g}"

    @classmethod
    def of(cls, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> PixelAttack:
        """The outcome that ``to_json`` and ``arrays`` wrote."""
        same = ("index", "smoothed", "norm", "eps", "preset", "seed", "strongest", "forwards", "backwards",
                "seconds", "details")  # fmt: skip
        values: dict[str, Any] = {k: row[k] for k in same} | {k: np.asarray(arrays[k]) for k in MAPS}
        return cls(
            **values,
            status=AttackStatus(row["status"]),
            attempts=tuple(Attempt(**a) for a in row["attempts"]),
            adversarial=arrays.get("x_adv"),
        )


class SegmentationAttackRun(Sequence[PixelAttack]):
    """The outcomes of one preset under one threat, in the order of the images.

    Scores are of the pixels at stake, over all images; a pixel counts as lost only where that was
    confirmed, so every accuracy is an upper bound of what an unlimited attacker would leave.
    """

    def __init__(
        self, outcomes: Sequence[PixelAttack], threat: Threat, preset: str, *, num_classes: int
    ) -> None:
        self.outcomes = tuple(outcomes)
        self.threat, self.preset, self.num_classes = threat, preset, num_classes

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, key):  # Sequence's overloads add nothing for a reader
        return self.outcomes[key]

    def __iter__(self) -> Iterator[PixelAttack]:
        return iter(self.outcomes)

    def __repr__(self) -> str:
        broken, pixels = (sum(int(m.sum()) for m in maps) for maps in zip(
            *((o.broken, o.stake) for o in self.outcomes), strict=True
        )) if self.outcomes else (0, 0)  # fmt: skip
        return (
            f"<SegmentationAttackRun of {len(self)} images, preset {self.preset}: "
            f"{broken} of {pixels} pixels broken>"
        )

    def counts(self) -> dict[str, int]:
        """Number of images per status: one with a broken pixel is broken."""
        seen = Counter(o.status for o in self.outcomes)
        return {str(s): seen.get(s, 0) for s in AttackStatus}

    def pixels(self) -> dict[str, int]:
        """How many pixels were at stake, right before the attack, broken at once, reached at all."""
        maps = ("stake", "right", "broken", "reached")
        return {name: sum(int(getattr(o, name).sum()) for o in self.outcomes) for name in maps}

    def clean_accuracy(self) -> float:
        """Share of the pixels at stake that were right before the attack."""
        found = self.pixels()
        return found["right"] / max(1, found["stake"])

    def accuracy(self, *, level: float = 0.95) -> Estimate:
        """Share of the pixels at stake that are right under the strongest perturbation of their image.

        Student's interval over images, as in ``SegmentationRun.certified_correct``.
        """
        return self._share([o.right & ~o.broken for o in self.outcomes], level)

    def survived(self, *, level: float = 0.95) -> Estimate:
        """Share of the pixels at stake that were right and that *no* perturbation tried could change.

        The counterpart of a certified share: a pixel that is certified within eps must be among them.
        """
        return self._share([o.right & ~o.reached for o in self.outcomes], level)

    def mean_iou(self) -> float:
        """Mean intersection over union under the strongest perturbations."""
        return mean_known(class_iou(self._confusion("attacked")))

    def clean_mean_iou(self) -> float:
        """The same before the attack."""
        return mean_known(class_iou(self._confusion("clean")))

    def _share(self, maps: Sequence[np.ndarray], level: float) -> Estimate:
        if not self.outcomes:
            raise InvalidSetting(
                "the attacked accuracy cannot be computed",
                why="the attack run holds no images",
                remedy="attack at least one image",
            )
        hits = np.array([m.sum() for m in maps], dtype=np.float64)
        known = np.array([o.stake.sum() for o in self.outcomes], dtype=np.float64)
        return ratio_over_images(hits, known, self.threat.eps or 0.0, level)

    def _confusion(self, name: str) -> np.ndarray:
        """Counts (true class, given class); the last column is for pixels without a class."""
        table = np.zeros((self.num_classes, self.num_classes + 1), dtype=np.int64)
        for o in self.outcomes:
            given = getattr(o, name)[o.stake]
            np.add.at(table, (o.label[o.stake], np.where(given < 0, self.num_classes, given)), 1)
        return table
