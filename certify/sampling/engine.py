"""The sampling engine: votes for many inputs at once, packed into full device batches.

A *procedure* says how many samples each input needs until its next look; the engine packs the
requests of many inputs into batches of one fixed size, keeps class counts on the device, and
synchronises once per round. Noise is keyed by (run seed, input id, sample index), so the counts
are the same for every batch size, packing, shard and resume. Of every input some rows are audited
(``certify.sampling.audit``) before its result is handed out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from certify.noise import Noise
from certify.procedures.outcome import Outcome, Procedure, Progress, begun
from certify.records import Status
from certify.sampling.audit import Answer, Audit, few, single
from certify.sampling.classifier import Anchors, BaseClassifier
from certify.sampling.lanes import run_in_lanes
from certify.sampling.tally import Tally, Votes

#: The pieces of one batch: (position of the request, its first sample, how many).
Batch = list[tuple[int, int, int]]
#: Inputs are admitted until a round asks for this many batches, so that few rows are padding.
BATCHES_PER_ROUND = 8
#: On the CPU, where a round costs nothing, of all inputs one in so many is under way at a time (and at least
#: ``LEAST_AT_ONCE``): results come early and steadily, so that one sees them and can tell what is left.
SHARE_AT_ONCE, LEAST_AT_ONCE = 12, 8


@dataclass(frozen=True)
class Request:
    """Draw samples ``start .. start + count`` of the input ``id`` whose prepared image is ``base``.

    ``kept``: those of them whose answers are to be handed back for the audit.
    """

    id: int
    base: Tensor
    start: int
    count: int
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came of requests: ``counts`` (requests, *tally.shape) int64, and the answers kept of each."""

    counts: np.ndarray
    kept: list[list[Answer]]


class Sampler:
    """Counts for requests, with one model, one noise law, one run seed, and one thing to count.

    ``lanes``: copies of the classifier that evaluate batches side by side on the CPU (see
    ``certify.sampling.lanes``); without them one batch follows the other. ``purpose`` (of the noise)
    and ``anchors`` are for the audit; without them there is none, as where only speed is measured.
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
        purpose: int | None = None,
        anchors: Anchors | None = None,
    ) -> None:
        self.classifier = classifier
        self.noise = noise
        self.seed = seed
        self.tally = Votes(classifier.num_classes) if tally is None else tally
        self.batch_size = batch_size
        self.shape = tuple(shape)
        # A batch of one is the model as it came, in the caller's thread: copies have no part in it.
        self._lanes = [_Lane(self, c) for c in (lanes if lanes and batch_size > 1 else (classifier,))]
        self.audit: Audit | None = None
        if purpose is not None:
            self.audit = Audit(classifier, self.tally, seed=seed, purpose=purpose, anchors=anchors)

    def counts(self, requests: Sequence[Request]) -> np.ndarray:
        """Counts per request, int64 ``(len(requests), *tally.shape)``.

        Votes: ``(len(requests), num_classes + 1)``, the last column for samples on which the model
        returned a non-finite score.
        """
        return self.draw(requests).counts

    def draw(self, requests: Sequence[Request]) -> Drawn:
        """As ``counts``, with the answers that the requests ask to keep. One host synchronisation."""
        batches = deque(enumerate(_packed(requests, self._size_of(sum(r.count for r in requests)))))
        work = [partial(lane.count, batches, requests) for lane in self._lanes[: max(1, len(batches))]]
        parts = [work[0]()] if len(work) == 1 else run_in_lanes(work, abandon=batches.clear)
        counts = torch.stack([part.total for part in parts]).sum(0).cpu().numpy()
        kept: list[dict[int, Answer]] = [{} for _ in requests]
        for position, answer in (found for part in parts for found in part.answers()):
            kept[position][answer.sample] = answer
        doubts = sorted((d for part in parts for d in part.doubts), key=lambda d: d[0])
        flagged: list[int] = torch.cat([d for _, d in doubts]).nonzero().flatten().tolist() if doubts else []
        for position, sample in _located(requests, flagged):
            answer = self.alone(requests[position], sample)
            counts[position, answer.cells] += 1
            if sample in kept[position]:
                kept[position][sample] = replace(kept[position][sample], cells=answer.cells, alone=True)
        return Drawn(counts.reshape(len(requests), *self.tally.shape), [list(k.values()) for k in kept])

    def _size_of(self, rows: int) -> int:
        """Rows of a batch: fewer than fit where one lane would otherwise have nothing to do."""
        each = -(-rows // len(self._lanes))
        return min(self.batch_size, -(-each // 32) * 32) if len(self._lanes) > 1 else self.batch_size

    def alone(self, request: Request, sample: int) -> Answer:
        """The answer to one sample of a request, evaluated by itself: the classifier's definition."""
        one = self._lanes[0].buffer[:1]
        self.fill(one, [(0, sample, 1)], [request])
        return single(self.classifier, self.tally, one, sample)

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


@dataclass(eq=False)
class _Part:
    """What one lane has counted: flat counts, rows in doubt by batch, and kept rows."""

    total: Tensor
    doubts: list[tuple[int, Tensor]] = field(default_factory=list)
    #: Of each batch: (position, sample) of the kept rows, their scores and cells, and whether it was one row.
    kept: list[tuple[list[tuple[int, int]], Tensor, Tensor, bool]] = field(default_factory=list)

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """The kept answers, with the positions of their requests."""
        for places, scores, cells, alone in self.kept:
            rows = zip(places, scores.cpu().numpy(), cells.cpu().numpy(), strict=True)
            yield from ((position, Answer(sample, s, c, alone)) for (position, sample), s, c in rows)


class _Lane:
    """One classifier and one buffer, evaluating one batch after the other."""

    def __init__(self, sampler: Sampler, classifier: BaseClassifier) -> None:
        self.sampler = sampler
        self.classifier = classifier
        self.buffer = torch.zeros(
            sampler.batch_size, *sampler.shape, dtype=torch.float32, device=classifier.device
        )

    def count(self, batches: deque[tuple[int, Batch]], requests: Sequence[Request]) -> _Part:
        """Take batches until none is left."""
        sampler = self.sampler
        # The tolerance is measured once, on the classifier whose single evaluations decide.
        self.classifier.tolerance, self.classifier.usual = (
            sampler.classifier.tolerance,
            sampler.classifier.usual,
        )
        size = int(np.prod(sampler.tally.shape))
        part = _Part(torch.zeros(len(requests) * size, dtype=torch.int64, device=self.buffer.device))
        try:
            for number, batch in iter(partial(_next, batches), None):
                rows = sum(n for _, _, n in batch)
                sampler.fill(self.buffer[:rows], batch, requests)
                slots = np.repeat([p for p, _, _ in batch], [n for _, _, n in batch])
                out, alone = self._evaluated(rows)
                cells, doubt = sampler.tally.read(self.classifier, out)
                if alone:  # a row by itself is the definition: nothing to ask again
                    doubt = torch.zeros_like(doubt)
                flat = torch.from_numpy(slots).to(part.total.device)[:, None] * size + cells[:rows]
                sure = (~doubt[:rows]).long()[:, None].expand_as(flat)
                part.total.scatter_add_(0, flat.flatten(), sure.flatten())
                part.doubts.append((number, doubt[:rows]))
                if places := dict(_kept_rows(batch, requests)):
                    index = torch.tensor(list(places), device=out.device)
                    part.kept.append((list(places.values()), few(out[index]), cells[index], alone))
        except BaseException:
            batches.clear()  # the other lanes need not go on
            raise
        part.total = part.total.view(len(requests), size)
        return part

    def _evaluated(self, rows: int) -> tuple[Tensor, bool]:
        """Raw scores of the filled rows, and whether they come from a single evaluation."""
        batch = self._padded(rows)
        if len(batch) == 1:
            return self.classifier.logits_alone(batch), True
        return self.classifier.logits(batch), False

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
    watch: Callable[[], None] = lambda: None,
    at_once: int | None = None,
) -> Iterator[tuple[int, Outcome, float, dict[str, int]]]:
    """Run ``procedure`` on every (id, prepared input); yield (id, outcome, seconds, audit) as they finish.

    Seconds are the wall time of the rounds an input took part in, shared out by samples. ``audit`` says
    how many rows were evaluated again; a disagreement raises NondeterministicModel in place of the result.
    ``on_samples`` is told how many samples a round drew; its method ``under_way``, where it has one, how many
    every unfinished input has. ``at_once``: at most so many inputs are under way (None: as many as fill a
    round's batches). ``watch`` is called after every round and before every result: it raises where the model
    has changed.
    """
    on_begun = getattr(on_samples, "under_way", None)
    waiting = iter(inputs)
    active: list[_Active] = []
    exhausted = False
    while True:
        while (
            not exhausted
            and sum(a.missing for a in active) < BATCHES_PER_ROUND * sampler.batch_size
            and (at_once is None or len(active) < at_once)
        ):
            item = next(waiting, None)
            if item is None:
                exhausted = True
            else:
                progress = begun(procedure, seed=sampler.seed, id=item[0])
                active.append(_Active(item[0], item[1], progress, sampler))
        if not active:
            return
        began = time.perf_counter()
        drawn = sampler.draw([a.request() for a in active])
        elapsed = time.perf_counter() - began
        total = sum(a.missing for a in active)
        if on_samples is not None:
            on_samples(total)
        for a, row, kept in zip(active, drawn.counts, drawn.kept, strict=True):
            a.seconds += elapsed * a.missing / total
            a.advance(row, kept)
        watch()
        for a in active:
            if a.missing == 0:
                audited = a.audited()
                watch()
                yield a.id, a.outcome(), a.seconds, audited
        active = [a for a in active if a.missing]
        if on_begun is not None:
            on_begun([a.drawn for a in active])


def inputs_at_once(sampler: Sampler, inputs: int) -> int | None:
    """How many of so many inputs are best under way at a time; None for as many as fill the batches.

    Where batches run here on the CPU that is a small share of them. A GPU, and workers, need full rounds.
    """
    if not isinstance(sampler, Sampler) or sampler.classifier.device.type != "cpu":
        return None
    return share_at_once(inputs)


def share_at_once(inputs: int) -> int:
    """The share of so many inputs that are under way at a time."""
    return max(LEAST_AT_ONCE, -(-inputs // SHARE_AT_ONCE))


def audited_counts(sampler: Sampler, requests: Sequence[Request]) -> np.ndarray:
    """``sampler.counts`` of whole requests (from sample 0), each audited. Raises NondeterministicModel."""
    audit = sampler.audit
    if audit is None:
        return sampler.counts(requests)
    requests = [replace(r, kept=audit.candidates(r.id, 0, r.count)) for r in requests]
    drawn = sampler.draw(requests)
    for r, kept, row in zip(requests, drawn.kept, drawn.counts, strict=True):
        audit.run(r.id, kept, row, r.count, partial(sampler.alone, r))
    return drawn.counts


class _Active:
    """One input between its first and its last look."""

    def __init__(self, id: int, base: Tensor, progress: Progress, sampler: Sampler) -> None:
        self.id = id
        self.base = base
        self.progress = progress
        self.sampler = sampler
        self.drawn = 0
        self.seconds = 0.0
        self.counts = np.zeros(sampler.tally.shape, dtype=np.int64)
        self.missing = progress.wanted() or 0
        self.lost = False
        self.kept: list[Answer] = []

    def request(self) -> Request:
        """What is missing until the next look."""
        audit = self.sampler.audit
        kept = () if audit is None else audit.candidates(self.id, self.drawn, self.missing)
        return Request(self.id, self.base, self.drawn, self.missing, kept)

    def advance(self, fresh: np.ndarray, kept: list[Answer]) -> None:
        if (fresh < 0).any():  # its workers died on every attempt: no result, which is no abstention
            self.lost, self.missing = True, 0
            return
        self.counts += fresh
        self.drawn += self.missing
        self.kept += kept
        self.progress.look(self.sampler.tally.statistic(self.counts).copy())
        wanted = self.progress.wanted()
        self.missing = 0 if wanted is None else wanted - self.drawn

    def audited(self) -> dict[str, int]:
        """How many rows were evaluated alone; raises where one was counted otherwise."""
        audit = self.sampler.audit
        if audit is None or self.lost:
            return {}
        began = time.perf_counter()
        request = Request(self.id, self.base, 0, self.drawn)
        found = audit.run(self.id, self.kept, self.counts, self.drawn, partial(self.sampler.alone, request))
        self.seconds += time.perf_counter() - began
        return found

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


def _kept_rows(batch: Batch, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[int, int]]]:
    """(row of the batch, (position of the request, sample)) of the rows whose answers are kept."""
    first = 0
    for position, start, count in batch:
        for sample in requests[position].kept:
            if start <= sample < start + count:
                yield first + sample - start, (position, sample)
        first += count


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
