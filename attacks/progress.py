"""How far an attack has come, for a bar, a log or a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from certify.progress import progress as shown


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` inputs are finished; of the ``correct`` ones so far ``survived`` still stand.

    ``stage`` is the attack that ran last.
    """

    stage: str
    done: int
    total: int
    correct: int
    survived: int

    @property
    def surviving(self) -> float:
        """Share of the correctly classified inputs seen so far that still stand."""
        return self.survived / self.correct if self.correct else 0.0


Report = Callable[[Progress], None]


@contextmanager
def reporter(progress: bool | Report | None, *, total: int, preset: str) -> Iterator[Report]:
    """The callback to report to: the caller's own, ``certify.progress`` on stderr (True), or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        with shown(f"attack ({preset})", total) as update:

            def show(p: Progress) -> None:
                update(done=p.done, note=f"{p.surviving:.1%} survive after {p.stage}")

            yield show
