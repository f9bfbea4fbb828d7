"""What verification says: each check holds, fails, or was not made; and so does the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOLDS, FAILS, NOT_CHECKED = "holds", "fails", "not checked"
#: What the command returns for each.
EXIT_CODES = {HOLDS: 0, FAILS: 1, NOT_CHECKED: 3}


@dataclass(frozen=True)
class Check:
    """One thing that was asked; ``detail`` says what was seen, what is wrong, or why nothing was seen.

    ``ok`` is True where it holds, False where it fails, and None where it could not be looked at: that
    says nothing about the run, for or against it.
    """

    name: str
    ok: bool | None
    detail: str

    @property
    def outcome(self) -> str:
        """ "holds", "fails" or "not checked"."""
        return NOT_CHECKED if self.ok is None else HOLDS if self.ok else FAILS


@dataclass(frozen=True)
class Verification:
    """The outcome of all checks up to ``level``."""

    level: int
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> str:
        """ "fails" if any check fails, else "not checked" if any could not be made, else "holds"."""
        found = {check.outcome for check in self.checks}
        return next(word for word in (FAILS, NOT_CHECKED, HOLDS) if word in found or word == HOLDS)

    @property
    def ok(self) -> bool:
        """Whether every check was made and holds."""
        return self.outcome == HOLDS

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that fail."""
        return tuple(check for check in self.checks if check.ok is False)

    @property
    def unchecked(self) -> tuple[Check, ...]:
        """The checks that could not be made; each says what would let them be."""
        return tuple(check for check in self.checks if check.ok is None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        rows = [{"name": c.name, "ok": c.ok, "outcome": c.outcome, "detail": c.detail} for c in self.checks]
        return {"ok": self.ok, "outcome": self.outcome, "level": self.level, "checks": rows}
