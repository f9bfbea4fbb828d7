"""How far a long call is: a bar where stderr is a terminal, a line now and then where it is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

#: Seconds between two lines of a log: a job that says nothing for longer looks hung.
EVERY = 30.0


class Update(Protocol):
    """Tell how far it is: ``advance`` more, or ``done`` in all, of ``total``; ``note`` stands beside it."""

    def __call__(
        self, advance: float = 0, *, done: float | None = None, total: float | None = None,
        note: str | None = None,
    ) -> None: ...  # fmt: skip


@contextmanager
def progress(title: str, total: float | None = None, *, every: float = EVERY) -> Iterator[Update]:
    """A bar on stderr with time left; without a terminal, a line every ``every`` seconds.

    The lines come from a thread of their own, so that one long evaluation does not silence them.
    """
    from rich.console import Console

    console = Console(stderr=True)
    with _bar(title, total, console) if console.is_terminal else _lines(title, total, every) as update:
        yield update


@contextmanager
def _bar(title: str, total: float | None, console: Any) -> Iterator[Update]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(
            advance: float = 0, *, done: float | None = None, total: float | None = None,
            note: str | None = None,
        ) -> None:  # fmt: skip
            fields: dict[str, Any] = {} if note is None else {"note": note}
            bar.update(task, advance=advance or None, completed=done, total=total, **fields)

        yield update


@contextmanager
def _lines(title: str, total: float | None, every: float) -> Iterator[Update]:
    lines = _Lines(title, total)
    teller = threading.Thread(target=lines.tell, args=(every,), name="certify-progress", daemon=True)
    teller.start()
    try:
        yield lines
    finally:
        lines.ended.set()
        teller.join()


class _Lines:
    """How far it is, and a line about it every so many seconds until ``ended``."""

    def __init__(self, title: str, total: float | None) -> None:
        self.title, self.done, self.total, self.note = title, 0.0, total, ""
        self.ended = threading.Event()
        self._began = time.monotonic()

    def __call__(
        self, advance: float = 0, *, done: float | None = None, total: float | None = None,
        note: str | None = None,
    ) -> None:  # fmt: skip
        self.done = self.done + advance if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note

    def tell(self, every: float) -> None:
        while not self.ended.wait(every):
            of = f" of {self.total:g}" if self.total else ""
            after = timedelta(seconds=round(time.monotonic() - self._began))
            note = f", {self.note}" if self.note else ""
            print(f"{self.title}: {self.done:g}{of} after {after}{note}", file=sys.stderr, flush=True)
