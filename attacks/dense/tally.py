"""From the verdicts on one image's candidates to its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attacks.dense.judge import Verdict
from attacks.dense.outcomes import Attempt, PixelAttack
from attacks.outcomes import AttackStatus
from certify.dense.attacked import AttackedPixels
from certify.dense.maps import ABSTAIN


@dataclass
class ImageTally(AttackedPixels):
    """One image: what is at stake, and what each candidate was confirmed to change."""

    index: int
    label: np.ndarray
    clean: np.ndarray
    believed: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    strongest: int = -1
    asked: int = 0
    seconds: float = 0.0
    image: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.by = np.full(self.label.shape, -1, dtype=np.int16)
        self.found = np.full(self.label.shape, ABSTAIN, dtype=np.int64)
        self.attacked = self.clean.copy()

    def settle(self, verdict: Verdict, image: np.ndarray) -> None:
        """Keep a pixel's nearest confirmed change, and the candidate that broke most right pixels at once."""
        number = len(self.attempts)
        self.attempts.append(verdict.attempt)
        self.asked += verdict.evaluations
        # A believed pixel that nothing confirmed makes the image "unconfirmed".
        self.believed |= bool((self.right & (verdict.classes != self.label)).any())
        sizes = np.array([a.distance for a in self.attempts] + [np.inf])
        nearer = self.right & verdict.confirmed & (verdict.attempt.distance < sizes[self.by])
        self.by[nearer], self.found[nearer] = number, verdict.classes[nearer]
        broken = self.right & verdict.confirmed
        if broken.sum() > self.broken.sum():
            self.strongest, self.image = number, image
            self.attacked = np.where(verdict.confirmed, verdict.classes, self.clean)

    def status(self) -> AttackStatus:
        if (self.by >= 0).any():
            return AttackStatus.BROKEN
        if not self.right.any():
            return AttackStatus.CLEAN_ERROR
        return AttackStatus.UNCONFIRMED if self.believed else AttackStatus.SURVIVED

    def outcome(self, **facts: Any) -> PixelAttack:
        return PixelAttack(
            index=self.index, status=self.status(), attempts=tuple(self.attempts), strongest=self.strongest,
            label=self.label, clean=self.clean, by=self.by, found=self.found, attacked=self.attacked,
            seconds=self.seconds, adversarial=self.image, **facts,
        )  # fmt: skip
