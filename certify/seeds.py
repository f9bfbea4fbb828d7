"""The seed of a run's noise: 128 random bits drawn for it, or a number that somebody chose.

Every probability in a guarantee is over this seed. It is recorded with the run, together with where it came
from: a run that goes on keeps it, and a chosen seed is named as chosen.
"""

from __future__ import annotations

import operator
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from certify.errors import InvalidSetting, UnreadableFile

#: Random bits of a drawn seed: the whole key of the generator.
BITS = 128

Origin = Literal["drawn", "chosen"]


@dataclass(frozen=True)
class Seed:
    """0 <= value < 2**128, and whether it was drawn for the run or chosen by its user."""

    value: int
    origin: Origin

    def settings(self) -> dict[str, str]:
        """As JSON types: numbers beyond 2**53 do not survive every reader."""
        return {"seed": str(self.value), "seed_origin": self.origin}


def settled(seed: Any, store: Any = None) -> Seed:
    """The seed that ``certify`` uses: as given, else that of the run that goes on, else drawn.

    ``store``: a run directory or an open ``RunStore``, None for a run in memory. A seed that is given and is
    the run's own keeps the origin that is recorded there. Raises InvalidSetting for what is no seed, and
    what ``certify.store.read_run`` raises where the directory cannot be read.
    """
    given = None if seed is None else _checked(seed)
    known = _recorded(store)
    if known is not None and given in (None, known.value):
        return known
    return drawn() if given is None else Seed(given, "chosen")


def drawn() -> Seed:
    """A seed from the operating system's random bits."""
    return Seed(secrets.randbits(BITS), "drawn")


def recorded(settings: Mapping[str, Any]) -> Seed | None:
    """The seed in a run's settings; None where there is none (an imported log)."""
    text = settings.get("seed")
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 39:
        return None
    origin: Origin = "drawn" if settings.get("seed_origin") == "drawn" else "chosen"
    return Seed(int(text), origin) if int(text) < 1 << BITS else None


def _recorded(store: Any) -> Seed | None:
    if store is None:
        return None
    if not isinstance(store, str | os.PathLike):
        return recorded(store.settings)
    from certify.store import read_run

    try:
        return recorded(read_run(store).settings)
    except UnreadableFile:  # no run is there yet, or it stopped before it began
        return None


def _checked(seed: Any) -> int:
    try:
        value = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 1 << BITS:
        raise InvalidSetting(
            f"seed {seed!r} cannot key the noise",
            why="the generator takes the seed itself as its 128-bit key",
            remedy="leave it out to have one drawn, or use a whole number from 0 to 2**128 - 1",
        )
    return value
