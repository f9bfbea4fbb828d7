"""How far a long call is: a bar where stderr is a terminal, a line now and then where it is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

#: Seconds between two lines of a log: a job that says nothing for longer looks hung.
EVERY = 30.0


class Update(Protocol):
    """Tell how far it is: ``advance`` more, or ``done`` in all, of ``total``; ``note`` stands beside it.

    ``left``: seconds that are left, where the caller knows better than what the rate so far says.
    """

    def __call__(
        self, advance: float = 0, *, done: float | None = None, total: float | None = None,
        note: str | None = None, left: float | None = None,
    ) -> None: ...  # fmt: skip


def in_words(seconds: float) -> str:
    """A time that is left, as precisely as anybody knows it."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


@contextmanager
def progress(
    title: str, total: float | None = None, *, done: float = 0, every: float = EVERY
) -> Iterator[Update]:
    """A bar on stderr with time left; without a terminal, a line every ``every`` seconds.

    ``done``: what an earlier call has done of ``total``. The lines come from a thread of their own, so that
    one long evaluation does not silence them.
    """
    from rich.console import Console

    console = Console(stderr=True)
    state = _State(title, total, done)
    with _bar(state, console) if console.is_terminal else _lines(state, every):
        yield state


class _State:
    """How far it is, and how long it may still take."""

    def __init__(self, title: str, total: float | None, done: float) -> None:
        self.title, self.done, self.total, self.note = title, done, total, ""
        self.shown: Callable[[], None] = lambda: None
        self._first = done
        self._left: float | None = None
        self._began = self._told = time.monotonic()

    def __call__(
        self, advance: float = 0, *, done: float | None = None, total: float | None = None,
        note: str | None = None, left: float | None = None,
    ) -> None:  # fmt: skip
        self.done = self.done + advance if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        self._left, self._told = left, time.monotonic()
        self.shown()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    @property
    def left(self) -> str:
        """In words; "" while nobody knows, or nothing is left."""
        if not self.total or self.done >= self.total:
            return ""
        if self._left is not None:
            return in_words(max(0.0, self._left - (time.monotonic() - self._told)))
        fresh = self.done - self._first
        return in_words(self.elapsed * (self.total - self.done) / fresh) if fresh > 0 else ""


@contextmanager
def _bar(state: _State, console: Any) -> Iterator[None]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Times(ProgressColumn):
        """Drawn anew several times a second, also while the caller is silent."""

        def render(self, task: Any) -> Text:
            after = str(timedelta(seconds=round(state.elapsed)))
            parts = ", ".join(part for part in (after, state.left, state.note) if part)
            return Text(parts, no_wrap=True, overflow="ellipsis")

    with Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=12), MofNCompleteColumn(), Times(),
        console=console, refresh_per_second=4,
    ) as bar:  # fmt: skip
        task = bar.add_task(state.title, total=state.total, completed=state.done)  # type: ignore[arg-type]
        state.shown = lambda: bar.update(task, completed=state.done, total=state.total)
        yield


@contextmanager
def _lines(state: _State, every: float) -> Iterator[None]:
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(state, ended, every), name="certify-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _tell(state: _State, ended: threading.Event, every: float) -> None:
    while not ended.wait(every):
        of = f" of {state.total:g}" if state.total else ""
        after = timedelta(seconds=round(state.elapsed))
        rest = "".join(f", {part}" for part in (state.left, state.note) if part)
        print(f"{state.title}: {state.done:g}{of} after {after}{rest}", file=sys.stderr, flush=True)
