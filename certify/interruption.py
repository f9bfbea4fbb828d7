"""Ctrl-C that says what is kept and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the midst of work; ``kept`` says in a sentence what is there and how to go on."""

    def __init__(self, kept: str) -> None:
        super().__init__(kept)
        self.kept = kept


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Give a KeyboardInterrupt from inside the sentence that ``kept`` makes at that moment.

    The innermost sentence stands.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stopped:
        raise Interrupted(kept()) from stopped
