"""Attack outcomes gathered by what was attacked, how far and with which preset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: The preset that a challenge of a run's certificates gives its outcomes (``attacks.challenge``).
CHALLENGE = "challenge"


@dataclass(frozen=True)
class AttackGroup:
    """The outcomes of one attack: one target (base or smoothed), norm, budget and preset.

    ``inside`` marks the challenge of a run: every input attacked within its own certified ball.
    """

    smoothed: bool
    norm: str
    eps: float | None
    preset: str
    outcomes: tuple[Mapping[str, Any], ...]
    inside: bool = False

    def number(self, status: str) -> int:
        return sum(o["status"] == status for o in self.outcomes)

    @property
    def name(self) -> str:
        if self.inside:
            return f"{norm_name(self.norm)}, inside each certified ball"
        threat = norm_name(self.norm)
        size = "smallest distance" if self.eps is None else f"≤ {self.eps:g}"
        return f"{threat}, {size}"

    @property
    def target(self) -> str:
        return "smoothed classifier" if self.smoothed else "base model"


def grouped(attacks: Iterable[Mapping[str, Any]], norm: str) -> tuple[AttackGroup, ...]:
    """The groups, smoothed classifier first; ``norm`` is that of the run.

    The outcomes of a challenge, each within the certified ball of its own input, form one group,
    ``inside``.
    """
    found: dict[tuple[bool, str, float | None, str], list[Mapping[str, Any]]] = {}
    inside: list[Mapping[str, Any]] = []
    for o in attacks:
        if o.get("preset") == CHALLENGE:
            inside.append(o)
            continue
        key = (bool(o["smoothed"]), str(o["norm"]), o.get("eps"), str(o.get("preset", "")))
        found.setdefault(key, []).append(o)
    order = sorted(found, key=lambda k: (not k[0], k[1], -1.0 if k[2] is None else k[2], k[3]))
    groups = [AttackGroup(*key, tuple(found[key])) for key in order]
    if inside:
        groups.append(AttackGroup(True, norm, None, CHALLENGE, tuple(inside), inside=True))
    return tuple(groups)


def established(outcome: Mapping[str, Any]) -> int | None:
    """The class that the prediction test found before any attack; None where it abstained."""
    told = outcome.get("prediction")
    return (outcome.get("details") or {}).get("label") if told is None else told


def norm_name(norm: str) -> str:
    """How the norm of a threat or a certificate is written."""
    return {"2": "ℓ₂", "inf": "ℓ∞", "1": "ℓ₁"}.get(norm, f"ℓ{norm}")
