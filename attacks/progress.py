"""How far an attack has come, for a bar, a log or a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
    """The callback to report to: the caller's own, a bar on stderr (True), or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[surviving]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"attack ({preset})", total=total, surviving="")

            def show(p: Progress) -> None:
                bar.update(task, completed=p.done, surviving=f"{p.surviving:.1%} survive after {p.stage}")

            yield show
