"""The audit: is the class that a batch gave a noisy copy the one the model gives it alone?

What is certified is the model's answer to one input by itself; batches only save time. The probe
(``BaseClassifier.probe``) compares the two before sampling. A model may still answer otherwise later: for
other inputs, other batch mates, after so many calls. So of every input, after its votes are in, some
noisy copies are drawn again and evaluated one at a time:

- which ones is decided by random words of the run's seed (a purpose of their own) and by the counts
  themselves, stratified over the sample index: a model cannot know them when it sees a batch;
- one row of the probe is evaluated again with them: the model is still the one the run began with.

Each must have the class it was counted with and, up to rounding, the scores it had in its batch. One that
has not ends the run (NondeterministicModel); nothing of that input is kept. Not seen: a model that keeps
what it said of a row and repeats it. What of a model changes when it is called is named in the run.

A row whose two best scores were too close to call in its batch was counted from a single evaluation. Only
there a difference is allowed: where the single evaluation is too close to call as well (another number of
threads, a kernel that adds in any order), it is a tie and no disagreement.

What this proves: if a share q of an input's copies has another class in a batch than alone, its p_lower is
too large by at most q, and m audited copies find none with probability (1 - q)^m. So m audited copies
without a disagreement exclude, at level delta, shares above 1 - delta^(1/m) (``flip_bound``).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from certify.audits import ROWS, SAMPLES_PER_ROW
from certify.errors import NondeterministicModel
from certify.noise.philox import SEED_LIMIT, WordStream
from certify.sampling.classifier import Anchors, BaseClassifier, difference

if TYPE_CHECKING:
    from certify.sampling.tally import Tally

#: One more row is kept for every so many samples: enough to choose from.
_SPACING = 2048
#: Scores of one row that are compared: all of a classifier, evenly spaced ones of a large image.
_MOST_SCORES = 1 << 16
#: Added to the purpose of the noise: the audit's own random words.
_PURPOSE = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model said to sample ``sample``: its scores (some of many), the cells that they count in.

    ``alone``: the cells come from a single evaluation. ``close``: they are too close to call.
    ``scale``: the largest score of the row, which rounding errors are measured against.
    """

    sample: int
    scores: np.ndarray
    cells: np.ndarray
    alone: bool = False
    close: bool = False
    scale: float = 1.0


def few(scores: Tensor) -> Tensor:
    """The scores (rows, ...) that are kept of each row: (rows, at most 65,536)."""
    flat = scores.flatten(1)
    return flat[:, :: -(-flat.shape[1] // _MOST_SCORES)]


def single(classifier: BaseClassifier, tally: Tally, row: Tensor, sample: int = -1) -> Answer:
    """The model's answer to one row (1, *shape) by itself."""
    out = classifier.logits_alone(row)
    strict = classifier.again()
    strict.usual = (
        0.0  # a tie is judged by the row's own scores, or a model of small ones could change unseen
    )
    cells, close = tally.read(strict, out)
    return Answer(
        sample, few(out)[0].cpu().numpy(), cells[0].cpu().numpy(), True, bool(close[0]),
        float(classifier.scale(out).max()),
    )  # fmt: skip


def disagreement(counted: Answer, again: Answer, rounding: float) -> str | None:
    """How the same row's two answers differ, by more than a tie or rounding; None where they do not.

    ``again`` is a single evaluation.
    """
    finite = np.isfinite(again.scores)
    if not np.array_equal(np.isfinite(counted.scores), finite):
        return "its scores are finite in one of the two only"
    ours = again.scores[finite].astype(np.float64)
    apart = np.abs(counted.scores[finite].astype(np.float64) - ours).max(initial=0.0)
    scale = again.scale if np.isfinite(again.scale) else np.abs(ours).max(initial=0.0)
    worst = float(apart) / max(float(scale), 1e-300)
    if worst > rounding:
        return f"its scores differ by {worst:.1e} (relative), rounding explains {rounding:.1e}"
    if np.array_equal(counted.cells, again.cells) or (counted.alone and again.close):
        return None
    if counted.cells.size == 1:
        return f"it counted for class {int(counted.cells[0])} and alone it is of class {int(again.cells[0])}"
    return f"{int((counted.cells != again.cells).sum())} of its {counted.cells.size} entries are others alone"


class Audit:
    """The audits of one call: chooses rows, evaluates them alone, compares. One per sampler.

    ``purpose`` is that of the noise. ``anchors``: rows and single scores to which the model must stay true.
    """

    def __init__(
        self, classifier: BaseClassifier, tally: Tally, *, seed: int, purpose: int, anchors: Anchors | None
    ) -> None:
        self.classifier = classifier
        self.tally = tally
        self.seed = seed
        self.purpose = purpose + _PURPOSE
        self.anchors = anchors

    def candidates(self, id: int, start: int, count: int) -> tuple[int, ...]:
        """Samples of a request whose answers are to be kept, one from each of as many equal parts."""
        parts = min(count, ROWS + count // _SPACING)
        edges = [start + i * count // parts for i in range(parts + 1)]
        words = WordStream(self.seed, self.purpose).draw(id, start, parts, 1)[:, 0]
        places = zip(itertools.pairwise(edges), words, strict=True)
        return tuple(low + int(word) % (high - low) for (low, high), word in places)

    def chosen(self, id: int, kept: Sequence[Answer], counts: np.ndarray, samples: int) -> list[Answer]:
        """The rows to evaluate now that the ``counts`` of all ``samples`` are in, one from each stratum."""
        rows = min(samples, ROWS + samples // SAMPLES_PER_ROW)
        key = int.from_bytes(hashlib.sha256(counts.tobytes()).digest()[:16], "little")
        words = WordStream((self.seed ^ key) % SEED_LIMIT, self.purpose).draw(id, 0, len(kept), 1)[:, 0]
        order = [a for _, a in sorted(zip(words, kept, strict=True), key=lambda pair: int(pair[0]))]
        strata: dict[int, Answer] = {}
        for answer in order:
            strata.setdefault(answer.sample * rows // samples, answer)
        first = {answer.sample for answer in strata.values()}
        return [*strata.values(), *(a for a in order if a.sample not in first)][:rows]

    def run(
        self,
        id: int,
        kept: Sequence[Answer],
        counts: np.ndarray,
        samples: int,
        alone: Callable[[int], Answer],
        *,
        least: int | None = None,
    ) -> dict[str, int]:
        """Audit one input; how many rows were evaluated again, and how many disagreed (none).

        ``kept``: the answers kept of its candidates. ``alone`` evaluates a sample by itself. ``least``: audit
        so many rows of this input and no anchor, where not every input is to be certified by itself.
        Raises NondeterministicModel.
        """
        rows = self.chosen(id, kept, counts, samples)[:least]
        for counted in rows:
            found = disagreement(counted, alone(counted.sample), self.classifier.apart)
            if found is not None:
                raise NondeterministicModel(
                    f"the model is no fixed function on input {id}",
                    why=f"noisy copy {counted.sample} of {samples} was evaluated in a batch and alone: "
                    f"{found}",
                    remedy="an answer must not depend on batch mates, on the place in the batch, on earlier "
                    "calls or on the time; batch_size=1 evaluates a model that only couples its batch. "
                    "Nothing of this input was kept; what was proved before stays",
                )
        if least is None:
            still_the_same(self.classifier, self.anchors, int(counts.sum()) + id)
        return {"rows": len(rows), "disagreements": 0}


def still_the_same(classifier: BaseClassifier, anchors: Anchors | None, place: int | None = None) -> None:
    """Raise NondeterministicModel where the model answers an anchor otherwise than it did when this began.

    ``place``: which one; by default the first. Scores may differ by what rounding explains.
    """
    if anchors is None:
        return
    i = (place or 0) % len(anchors.rows)
    now, then = classifier.logits_alone(anchors.rows[i][None]), anchors.scores[i][None]
    worst = difference(now, then, classifier.unit(then))
    if worst > classifier.apart:
        raise NondeterministicModel(
            "the model is no longer the function that it was when this began",
            why="one of the first rows was evaluated again: its scores differ by "
            f"{worst:.1e} (relative), rounding explains {classifier.apart:.1e}",
            remedy="an answer must not depend on earlier calls or on the time; if the model was changed, "
            "make a new smoothed classifier. What was proved before stays",
        )


def flip_bound(rows: int, level: float) -> float:
    """The largest share of flipped rows that ``rows`` audited ones without any do not exclude."""
    return 1.0 if rows < 1 else 1.0 - level ** (1.0 / rows)


__all__ = ["Answer", "Audit", "disagreement", "few", "flip_bound", "single", "still_the_same"]
