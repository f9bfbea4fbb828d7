"""How far training is: a value for programs, a bar on stderr for people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


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
    """A callback for ``pdenets.training.train`` that draws a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Bar(*columns, console=console, refresh_per_second=2, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, losses="")

        def report(p: Progress) -> None:
            text = " ".join(f"{name} {value:.4f}" for name, value in p.losses.items())
            if p.skipped:
                text += f" skipped {p.skipped}"
            done = (p.epoch - 1) * p.steps + p.step
            bar.update(task, total=p.epochs * p.steps, completed=done, losses=text)

        yield report
