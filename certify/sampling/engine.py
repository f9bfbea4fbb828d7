"""The sampling engine: votes for many inputs at once, packed into full device batches.

A *procedure* says how many samples each input needs until its next look; the engine packs the
requests of many inputs into batches of one fixed size, keeps class counts on the device, and
synchronises once per round. Noise is keyed by (run seed, input id, sample index), so the counts
are the same for every batch size, packing, shard and resume.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from certify.noise import Noise
from certify.procedures.outcome import Outcome, Procedure, Progress
from certify.records import Status
from certify.sampling.classifier import BaseClassifier
from certify.sampling.lanes import run_in_lanes
from certify.sampling.tally import Tally, Votes

#: The pieces of one batch: (position of the request, its first sample, how many).
Batch = list[tuple[int, int, int]]
#: Inputs are admitted until a round asks for this many batches, so that few rows are padding.
BATCHES_PER_ROUND = 8


@dataclass(frozen=True)
class Request:
    """Draw samples ``start .. start + count`` of the input ``id`` whose prepared image is ``base``."""

    id: int
    base: Tensor
    start: int
    count: int


class Sampler:
    """Counts for requests, with one model, one noise law, one run seed, and one thing to count.

    ``lanes``: copies of the classifier that evaluate batches side by side on the CPU (see
    ``certify.sampling.lanes``); without them one batch follows the other.
    """

    def __init__(
        self,
        classifier: BaseClassifier,
        noise: Noise,
        *,
        seed: int,
        shape: Sequence[int],
        batch_size: int,
        tally: Tally | None = None,
        lanes: Sequence[BaseClassifier] = (),
    ) -> None:
        self.classifier = classifier
        self.noise = noise
        self.seed = seed
        self.tally = Votes(classifier.num_classes) if tally is None else tally
        self.batch_size = batch_size
        self.shape = tuple(shape)
        self._lanes = [_Lane(self, c) for c in (lanes or (classifier,))]

    def counts(self, requests: Sequence[Request]) -> np.ndarray:
        """Counts per request, int64 ``(len(requests), *tally.shape)``.

        Votes: ``(len(requests), num_classes + 1)``, the last column for samples on which the model
        returned a non-finite score. One host synchronisation for the whole call.
        """
        batches = deque(enumerate(_packed(requests, self.batch_size)))
        work = [partial(lane.count, batches, requests) for lane in self._lanes[: max(1, len(batches))]]
        parts = [work[0]()] if len(work) == 1 else run_in_lanes(work)
        counts = torch.stack([total for total, _ in parts]).sum(0).cpu().numpy()
        doubts = [doubt for _, doubt in sorted((d for _, found in parts for d in found), key=lambda d: d[0])]
        flagged: list[int] = torch.cat(doubts).nonzero().flatten().tolist() if doubts else []
        one = self._lanes[0].buffer[:1]
        for position, sample in _located(requests, flagged):
            self.fill(one, [(position, sample, 1)], requests)
            counts[position, self.tally.alone(self.classifier, one)] += 1
        return counts.reshape(len(requests), *self.tally.shape)

    def fill(self, out: Tensor, batch: Batch, requests: Sequence[Request]) -> None:
        """Write the samples of ``batch`` into the rows of ``out``."""
        self.noise.fill(
            out,
            bases=[requests[p].base for p, _, _ in batch],
            ids=[requests[p].id for p, _, _ in batch],
            starts=[s for _, s, _ in batch],
            counts=[n for _, _, n in batch],
            seed=self.seed,
        )


class _Lane:
    """One classifier and one buffer, evaluating one batch after the other."""

    def __init__(self, sampler: Sampler, classifier: BaseClassifier) -> None:
        self.sampler = sampler
        self.classifier = classifier
        self.buffer = torch.zeros(
            sampler.batch_size, *sampler.shape, dtype=torch.float32, device=classifier.device
        )

    def count(
        self, batches: deque[tuple[int, Batch]], requests: Sequence[Request]
    ) -> tuple[Tensor, list[tuple[int, Tensor]]]:
        """Take batches until none is left: flat counts, and the rows in doubt of each batch taken."""
        sampler = self.sampler
        # The tolerance is measured once, on the classifier whose single evaluations decide.
        self.classifier.tolerance = sampler.classifier.tolerance
        size = int(np.prod(sampler.tally.shape))
        total = torch.zeros(len(requests) * size, dtype=torch.int64, device=self.buffer.device)
        doubts = []
        try:
            for number, batch in iter(partial(_next, batches), None):
                rows = sum(n for _, _, n in batch)
                sampler.fill(self.buffer[:rows], batch, requests)
                slots = np.repeat([p for p, _, _ in batch], [n for _, _, n in batch])
                cells, doubt = sampler.tally.read(self.classifier, self._padded(rows))
                flat = torch.from_numpy(slots).to(total.device)[:, None] * size + cells[:rows]
                sure = (~doubt[:rows]).long()[:, None].expand_as(flat)
                total.scatter_add_(0, flat.flatten(), sure.flatten())
                doubts.append((number, doubt[:rows]))
        except BaseException:
            batches.clear()  # the other lanes need not go on
            raise
        return total.view(len(requests), size), doubts

    def _padded(self, rows: int) -> Tensor:
        """The filled rows plus stale ones, so that the model sees few different batch shapes."""
        if self.classifier.device.type != "cpu" or self.classifier.compiled:
            return self.buffer
        return self.buffer[: min(len(self.buffer), -(-rows // 32) * 32)]


def drive(
    sampler: Sampler,
    procedure: Procedure,
    inputs: Iterable[tuple[int, Tensor]],
    *,
    on_samples: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Outcome, float]]:
    """Run ``procedure`` on every (id, prepared input); yield (id, outcome, seconds) as they finish.

    Seconds are the wall time of the rounds an input took part in, shared out by samples.
    """
    waiting = iter(inputs)
    active: list[_Active] = []
    exhausted = False
    while True:
        while not exhausted and sum(a.missing for a in active) < BATCHES_PER_ROUND * sampler.batch_size:
            item = next(waiting, None)
            if item is None:
                exhausted = True
            else:
                active.append(_Active(item[0], item[1], procedure.start(), sampler.tally))
        if not active:
            return
        began = time.perf_counter()
        counts = sampler.counts([Request(a.id, a.base, a.drawn, a.missing) for a in active])
        elapsed = time.perf_counter() - began
        drawn = sum(a.missing for a in active)
        if on_samples is not None:
            on_samples(drawn)
        for a, row in zip(active, counts, strict=True):
            a.seconds += elapsed * a.missing / drawn
            a.advance(row)
        for a in active:
            if a.missing == 0:
                yield a.id, a.outcome(), a.seconds
        active = [a for a in active if a.missing]


class _Active:
    """One input between its first and its last look."""

    def __init__(self, id: int, base: Tensor, progress: Progress, tally: Tally) -> None:
        self.id = id
        self.base = base
        self.progress = progress
        self.drawn = 0
        self.seconds = 0.0
        self.tally = tally
        self.counts = np.zeros(tally.shape, dtype=np.int64)
        self.missing = progress.wanted() or 0
        self.lost = False

    def advance(self, fresh: np.ndarray) -> None:
        if (fresh < 0).any():  # its workers died on every attempt: no result, which is no abstention
            self.lost, self.missing = True, 0
            return
        self.counts += fresh
        self.drawn += self.missing
        self.progress.look(self.tally.statistic(self.counts).copy())
        wanted = self.progress.wanted()
        self.missing = 0 if wanted is None else wanted - self.drawn

    def outcome(self) -> Outcome:
        if not self.lost:
            return self.progress.outcome()
        reason = "the workers that sampled it died on every attempt"
        return Outcome(Status.FAILED, None, 0.0, 1.0, 0.0, 1.0, (), self.drawn, {"reason": reason})


def _packed(requests: Sequence[Request], size: int) -> Iterator[Batch]:
    """Batches of (request position, first sample, count), each of ``size`` rows but the last."""
    batch: Batch = []
    room = size
    for position, request in enumerate(requests):
        start, left = request.start, request.count
        while left:
            take = min(left, room)
            batch.append((position, start, take))
            start, left, room = start + take, left - take, room - take
            if room == 0:
                yield batch
                batch, room = [], size
    if batch:
        yield batch


def _next(batches: deque[tuple[int, Batch]]) -> tuple[int, Batch] | None:
    try:
        return batches.popleft()
    except IndexError:  # another lane took the last one
        return None


def _located(requests: Sequence[Request], rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Which (request position, sample index) each flat row of a round belongs to."""
    ends = np.cumsum([r.count for r in requests])
    for row in rows:
        position = int(np.searchsorted(ends, row, side="right"))
        first = int(ends[position]) - requests[position].count
        yield position, requests[position].start + int(row) - first
