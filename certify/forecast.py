"""How long a run may still take whose inputs want different numbers of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

#: Seconds for which a forecast is not made again.
LASTS = 0.2


class Forecast:
    """Seconds left of ``total`` inputs, a few of which are under way at a time. Made for ``on_samples``.

    ``shown`` is called whenever samples were drawn.

    Inputs that are done first were easy; those under way have drawn much, and want more the more they have
    drawn. Their part is forecast from the inputs that were not done either at as many samples; where there
    are none, they are taken to want as much again. Inputs that have not begun want what those before them do.
    """

    def __init__(self, total: int, *, shown: Callable[[], None] = lambda: None) -> None:
        self.total, self.drawn, self.shown = total, 0, shown
        #: Samples of the inputs that are done, and of those that are under way so far.
        self.done: list[int] = []
        self.begun: Sequence[int] = ()
        self._began = time.perf_counter()
        self._made: tuple[float, float | None] = (-LASTS, None)

    def __call__(self, count: int) -> None:
        self.drawn += count
        self.shown()

    def under_way(self, begun: Sequence[int]) -> None:
        """What the engine tells after every round: the samples that each unfinished input has."""
        self.begun = begun

    def left(self) -> float | None:
        """Seconds from now; None while nothing is done."""
        elapsed = time.perf_counter() - self._began
        if elapsed - self._made[0] >= LASTS:
            samples = self.samples_left()
            rate = self.drawn / elapsed if elapsed > 0 else 0.0
            self._made = elapsed, samples / rate if samples is not None and rate else None
        made, left = self._made
        return None if left is None else max(0.0, left - (elapsed - made))

    def samples_left(self) -> float | None:
        """Samples that are still to be drawn; None while nothing is done."""
        if not self.done:
            return None
        rest = max(0, self.total - len(self.done))
        if not rest:
            return 0.0
        done = np.sort(np.asarray(self.done, dtype=np.float64))
        begun = np.asarray(self.begun[:rest], dtype=np.float64)
        # Of the inputs that are done, the mean of those that took longer than each under way has so far.
        after = np.searchsorted(done, begun, side="right")
        sums = np.append(np.cumsum(done[::-1])[::-1], 0.0)
        longer = len(done) - after
        wanted = np.where(longer > 0, sums[after] / np.maximum(longer, 1), 2 * begun)
        usual = (float(done.sum()) + float(wanted.sum())) / (len(done) + len(begun))
        return float((wanted - begun).sum()) + (rest - len(begun)) * usual


__all__ = ["Forecast"]
