"""Pick the batch size, the memory layout and the number of lanes that cost least per sample here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from certify.sampling.engine import Request, Sampler
from certify.sampling.lanes import keeps_to_itself, lanes_worth_trying

if TYPE_CHECKING:
    from certify.noise import Noise
    from certify.sampling.classifier import BaseClassifier

CPU_SIZES = (64, 128, 256, 512, 2048)
CUDA_SIZES = (256, 512, 1024, 2048, 4096)
#: Batches of each size that are timed.
TRIES = 3
#: A race may cost this share of the samples that a call can want at most.
SHARE = 0.1
#: Batches that a race of layouts and lanes evaluates: rounds, runners, batches of each.
_RACE = 3 * 4 * 4
#: A call of so many batches is too short for that race and long enough to guess who would win it.
_GUESS = 8
#: Stop trying larger batches once a single one takes this long: tuning must not cost the run.
PATIENCE_S = 2.0
#: ... or once so much time is spent on one of the two choices.
BUDGET_S = 3.0


@dataclass
class Timed:
    """What one smoothed classifier's calls have found out so far about the speed of their settings."""

    #: Seconds per sample of the batch sizes that were timed.
    costs: dict[int, float] = field(default_factory=dict)
    #: By batch size: lanes that can be had, and whether channels last suit.
    guesses: dict[int, tuple[int, bool]] = field(default_factory=dict)


def pace_of(smoothed: Any, examples: Tensor, samples: int | None) -> tuple[int, int]:
    """Batch size and lanes of a smoothed classifier for a call of so many samples at most.

    Only what costs little of ``samples`` is raced (None: nobody knows how many there will be). What was
    raced, or fixed by the user, is kept for the calls that follow.
    """
    view, noise, size, lanes = smoothed._view, smoothed.noise, smoothed.batch_size, smoothed._lanes
    if size is None:
        size, raced = choose_batch_size(view, noise, examples, samples=samples, known=smoothed._timed.costs)
        smoothed.batch_size = size if raced else None
    if lanes is None and (samples is None or _RACE * size <= SHARE * samples):
        lanes = smoothed._lanes = choose_lanes(view, noise, examples[0], size)
    elif lanes is None and samples is not None and _GUESS * size <= samples:
        return size, guess_lanes(view, noise, examples[0], size, smoothed._timed)
    return size, lanes or 1


def choose_batch_size(
    classifier: BaseClassifier,
    noise: Noise,
    examples: Tensor,
    *,
    samples: int | None = None,
    known: dict[int, float] | None = None,
) -> tuple[int, bool]:
    """The fastest of a few batch sizes, timed on the real model and real noise, and whether all were tried.

    Only speed depends on the answer: votes are the same for every batch size. On CUDA a size
    that does not fit in memory ends the search. ``known``: seconds per sample of the sizes that earlier
    calls have timed, which are not timed again; what is timed now is added.
    """
    known = {} if known is None else known
    sizes = CUDA_SIZES if classifier.device.type == "cuda" else CPU_SIZES
    base = noise.prepare(examples[0], device=classifier.device)
    best, best_cost, begun = sizes[0], float("inf"), time.perf_counter()
    for size in sizes:
        if samples is not None and TRIES * size > SHARE * samples:
            return best, False
        try:
            if size not in known:
                known[size] = _seconds_per_sample(classifier, noise, base, examples.shape[1:], size)
            cost = known[size]
        except torch.cuda.OutOfMemoryError:
            break
        if cost < best_cost:
            best, best_cost = size, cost
        if cost * size > PATIENCE_S or time.perf_counter() - begun > BUDGET_S:
            break
    return best, True


def choose_lanes(classifier: BaseClassifier, noise: Noise, example: Tensor, batch_size: int) -> int:
    """The fastest number of lanes, 1 or as many as torch has threads.

    Leaves ``classifier`` evaluating batches with channels last in memory if that is faster still. Votes
    depend on neither. Memory layout and lanes are timed together: what suits one thread may not suit two.
    """
    base = noise.prepare(example, device=classifier.device)
    lanes, layouts = _possible(classifier, noise, base, example.shape, batch_size)
    if lanes == 1 and len(layouts) == 1:
        return 1
    race = {}
    for last in layouts:
        classifier.lay_out(channels_last=last)
        for number in {1, lanes}:
            copies = classifier.copies(number) if number > 1 else [classifier.again()]
            if copies:
                race[last, number] = Sampler(
                    classifier, noise, seed=0, shape=example.shape, batch_size=batch_size, lanes=copies
                )
    last, number = _fastest(race, [Request(0, base, 0, 2 * lanes * batch_size)])
    classifier.lay_out(channels_last=last)
    return number


def guess_lanes(
    classifier: BaseClassifier, noise: Noise, example: Tensor, batch_size: int, known: Timed
) -> int:
    """As ``choose_lanes``, without a race: as many lanes as can be had, channels last where they suit.

    What usually wins for networks small enough to be copied, and what never changes a vote. The model is
    watched on a whole batch, since what it does may depend on the number of rows; ``known`` keeps the answer.
    """
    if batch_size not in known.guesses:
        base = noise.prepare(example, device=classifier.device)
        lanes, layouts = _possible(classifier, noise, base, example.shape, batch_size)
        known.guesses[batch_size] = lanes if lanes > 1 and classifier.copies(1) else 1, layouts[-1]
    lanes, last = known.guesses[batch_size]
    classifier.lay_out(channels_last=last)
    return lanes


def _possible(
    classifier: BaseClassifier, noise: Noise, base: Any, shape: torch.Size, count: int
) -> tuple[int, tuple[bool, ...]]:
    """The most lanes, and the layouts (plain first), that leave the model the function it is."""
    rows = torch.empty(count, *shape, device=classifier.device)
    noise.fill(rows, bases=[base], ids=[0], starts=[0], counts=[count], seed=0)
    lanes = lanes_worth_trying(classifier.model) if classifier.may_leave_its_thread() else 1
    if lanes > 1 and not keeps_to_itself(classifier.logits, rows.clone()):
        lanes = 1
    return lanes, (False, True) if _suits_channels_last(classifier, rows) else (False,)


def _fastest(race: dict[tuple[bool, int], Sampler], request: list[Request]) -> tuple[bool, int]:
    """Who counts the request in the least time, in up to three rounds."""
    times: dict[tuple[bool, int], list[float]] = {runner: [] for runner in race}
    start = time.perf_counter()
    while len(times[False, 1]) < 3 and (not times[False, 1] or time.perf_counter() - start < BUDGET_S):
        for runner, taken in times.items():
            began = time.perf_counter()
            race[runner].counts(request)
            taken.append(time.perf_counter() - began)
            if taken[-1] > PATIENCE_S:  # so slow a model keeps all cores busy by itself
                return False, 1
    return min(times, key=lambda runner: min(times[runner]))


def _suits_channels_last(classifier: BaseClassifier, rows: Tensor) -> bool:
    """Whether the model is the same function, up to rounding, with channels last in memory."""
    if rows.dim() != 4 or not classifier.lay_out(channels_last=True):
        return False
    try:
        return classifier.same_function(rows[:8], classifier.logits(rows)[:8])
    except Exception:  # a view that is missing, a model that insists: any error rules the layout out
        return False
    finally:
        classifier.lay_out(channels_last=False)


def _seconds_per_sample(classifier, noise, base, shape, size: int) -> float:
    buffer = torch.empty(size, *shape, device=classifier.device)
    times = []
    for attempt in range(TRIES):
        began = time.perf_counter()
        noise.fill(buffer, bases=[base], ids=[0], starts=[0], counts=[size], seed=attempt)
        classifier.votes(buffer)[1].any().item()
        times.append(time.perf_counter() - began)
    return min(times[1:]) / size
