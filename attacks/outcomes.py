"""What an attack leaves behind: one frozen outcome per input, and the run.

Nothing here says "robust": an input *survived* a named preset, no more.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from attacks.threat import Threat
from certify.errors import InvalidSetting
from certify.records import Estimate, median_distance

if TYPE_CHECKING:
    import pandas


class AttackStatus(enum.StrEnum):
    """How the attack on one input ended.

    CLEAN_ERROR: the class was wrong (or abstained) before any attack. BROKEN: the judge
    confirmed an adversarial input. SURVIVED: nothing was found. UNCONFIRMED: a
    candidate was found that the judge refused. ERROR: the model gave no finite scores.
    """

    CLEAN_ERROR = "clean_error"
    BROKEN = "broken"
    SURVIVED = "survived"
    UNCONFIRMED = "unconfirmed"
    ERROR = "error"


@dataclass(frozen=True)
class AttackOutcome:
    """The attack on one input.

    ``distance`` (in the threat's norm), ``distance_l2`` and ``distance_linf`` belong to
    the confirmed adversarial input and are None when there is none. ``margin32`` and
    ``margin64`` are the true class's score minus the best other score at that input, in
    single precision (batch of one) and double precision; for a smoothed classifier they are None and
    ``details`` holds the confirmation's counts. ``forwards`` and ``backwards`` count evaluations of the
    base model on this input. ``adversarial`` is an array of the input's shape, left out of JSON.
    """

    index: int
    target: int
    smoothed: bool
    norm: str
    eps: float | None
    preset: str
    clean_correct: bool
    status: AttackStatus
    distance: float | None = None
    distance_l2: float | None = None
    distance_linf: float | None = None
    prediction: int | None = None
    by_attack: str | None = None
    margin32: float | None = None
    margin64: float | None = None
    in_ball: bool | None = None
    in_box: bool | None = None
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    seed: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    adversarial: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def broken(self) -> bool:
        """Whether the judge confirmed an adversarial input."""
        return self.status is AttackStatus.BROKEN

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types in field order, without the adversarial array."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "adversarial"}
        row["status"] = str(self.status)
        row["details"] = dict(self.details)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any], adversarial: np.ndarray | None = None) -> AttackOutcome:
        """The outcome that ``to_json`` wrote; the array is given apart."""
        known = {f.name for f in fields(cls)} - {"adversarial"}
        values = {k: v for k, v in row.items() if k in known}
        values["status"] = AttackStatus(values["status"])
        return cls(**values, adversarial=adversarial)


class AttackRun(Sequence[AttackOutcome]):
    """The outcomes of one preset under one threat, in input order."""

    def __init__(
        self,
        outcomes: Sequence[AttackOutcome],
        threat: Threat,
        preset: str,
        *,
        flags: Mapping[str, Any] | None = None,
    ) -> None:
        self.outcomes = tuple(outcomes)
        self.threat = threat
        self.preset = preset
        self.flags = dict(flags or {})

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, key):  # Sequence's overloads add nothing for a reader
        return self.outcomes[key]

    def __iter__(self) -> Iterator[AttackOutcome]:
        return iter(self.outcomes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {s}" for s, n in self.counts().items() if n)
        flat = self.flags.get("plateau", 0)
        warning = f", {flat} of them on a plateau: nothing to follow, so no evidence" if flat else ""
        return f"<AttackRun of {len(self)} inputs, preset {self.preset}: {counts or 'empty'}{warning}>"

    def counts(self) -> dict[str, int]:
        """Number of inputs per status."""
        seen = Counter(o.status for o in self.outcomes)
        return {str(s): seen.get(s, 0) for s in AttackStatus}

    def robust_accuracy(self, *, level: float = 0.95) -> Estimate:
        """Share of the inputs that are correct and survived this preset.

        An upper bound of the accuracy under the threat model: a stronger attack can only
        lower it. Clopper-Pearson interval over the inputs. Inputs whose break was not
        confirmed, and errors, do not count as survivors. Raises InvalidSetting when empty.
        """
        from certify.bounds import binomial_interval

        if not self.outcomes:
            raise InvalidSetting(
                "the attacked accuracy cannot be computed",
                why="the attack run holds no inputs",
                remedy="attack at least one input",
            )
        k, n = self.counts()["survived"], len(self.outcomes)
        low, high = binomial_interval(k, n, 1 - level)
        return Estimate(k / n, low, high, level, "clopper-pearson", at=self.threat.eps)

    def median_distance(self) -> float | None:
        """Median distance of the confirmed adversarial inputs, in the threat's norm; None without any."""
        return median_distance((str(o.status), o.distance) for o in self.outcomes)

    def clean_accuracy(self) -> float:
        """Share of the inputs that were classified correctly before the attack."""
        return sum(o.clean_correct for o in self.outcomes) / max(len(self.outcomes), 1)

    @property
    def adversarials(self) -> dict[str, np.ndarray]:
        """Arrays ``index`` (b,) and ``x_adv`` (b, *shape) of the broken inputs."""
        found = [(o.index, o.adversarial) for o in self.outcomes if o.broken and o.adversarial is not None]
        index = np.array([i for i, _ in found], dtype=np.int64)
        return {
            "index": index,
            "x_adv": np.stack([a for _, a in found]) if found else np.zeros((0,)),
        }

    def frame(self) -> pandas.DataFrame:
        """One row per input as a pandas DataFrame (details and arrays left out)."""
        import pandas as pd

        rows = [{k: v for k, v in o.to_json().items() if k != "details"} for o in self.outcomes]
        return pd.DataFrame(rows, columns=[f.name for f in fields(AttackOutcome)][:-2])
