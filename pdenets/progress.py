"""How far training is: a value for programs, a bar on stderr for people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from certify.progress import progress as shown


@dataclass(frozen=True)
class Progress:
    """After one optimiser step. ``losses`` holds the parts of the loss, averaged over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    losses: dict[str, float]
    skipped: int


@contextlib.contextmanager
def progress_bar(*, title: str = "training") -> Iterator[Callable[[Progress], None]]:
    """A callback for ``pdenets.training.train``: a bar on stderr, or lines where that is no terminal."""
    with shown(title) as update:

        def report(p: Progress) -> None:
            losses = " ".join(f"{name} {value:.4f}" for name, value in p.losses.items())
            skipped = f" skipped {p.skipped}" if p.skipped else ""
            update(
                done=(p.epoch - 1) * p.steps + p.step, total=p.epochs * p.steps,
                note=f"epoch {p.epoch} of {p.epochs}, {losses}{skipped}",
            )  # fmt: skip

        yield report
