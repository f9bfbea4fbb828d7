"""A certificate for the model as deployed, where its numerics differ from the certified ones.

bf16 instead of fp32, a GPU instead of a CPU, a compiled graph: each is another base classifier. If
it disagrees with the certified one on at most a share q of the noisy inputs around x, then its
class probability is at least p_A - q, so radius sigma Phi^-1(p_lower - q) holds for the deployed
model. The share is bounded from samples (Clopper-Pearson, level alpha); by the union bound the
transferred certificate is wrong with probability at most the run's alpha plus this one. Every other
class probability moves by q at most, too, so upper bounds become larger by q: also that on the
runner-up, where the run has one (``certify.runner_up``).

A transferred record keeps in its details what was certified before ("source"), the flips and the bound
on them: ``certify verify`` recomputes both steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from certify.bounds import binomial_upper, check_alpha
from certify.calls import checked, wrong_kind
from certify.chances import at_most
from certify.contract import check_inputs
from certify.data import gather
from certify.dense.run import refuse_segmentation
from certify.errors import InvalidInput, InvalidSetting
from certify.geometry import Geometry, make_geometry
from certify.identity import same_function
from certify.inputs import refuse_other_inputs
from certify.population.statements import refuse_population
from certify.procedures.outcome import complement
from certify.records import Record, Run, Status
from certify.runner_up import ONE_SIDED, raised, share_of
from certify.sampling.audit import Answer, Audit, few, single
from certify.sampling.tally import Votes
from certify.sequential.boundaries import whole
from certify.store import StoredRun, open_run
from certify.store.typed import need
from certify.verification.witness import PLAN

if TYPE_CHECKING:
    from certify.smoothing import Smoothed

#: Of the random words that choose which rows are audited.
_PURPOSE = 3
#: What a transferred record keeps of the certificate before it.
_SOURCE = ("label", "radius", "p_lower", "p_upper", "pb_lower", "pb_upper")


@checked
def transfer(
    run: Run | StoredRun,
    certified: Smoothed,
    deployed: Smoothed,
    x: Any,
    *,
    samples: int = 10_000,
    alpha: float = 1e-3,
    seed: int,
    store: str | os.PathLike[str] | None = None,
) -> Run:
    """The run's certificates carried over from ``certified`` to ``deployed``.

    ``run``: what ``certify`` or ``certify.store.read_run`` returned. ``x``: the inputs of its records, in
    their order (n, *shape). ``samples`` noisy copies of each are classified by both; ``alpha`` is spent on
    the flips, in addition to the run's own.
    ``store``: a run directory to write, which ``certify verify`` checks; it needs a run that was read from
    a directory, as the boundaries of its tests are copied.
    Records that no longer prove anything become abstentions. Raises InvalidSetting where the two
    classifiers do not share noise and sigma, InvalidInput where x does not match the records, and as
    ``Smoothed.predict`` where one of the models has changed or is no fixed function.
    """
    alpha, samples = check_alpha(alpha), whole(samples, "samples")
    for name, smoothed in (("certified", certified), ("deployed", deployed)):
        if not hasattr(smoothed, "noise") or not hasattr(smoothed, "identity"):
            raise wrong_kind(transfer, name, smoothed, "Smoothed")
    source, run = (None, run) if isinstance(run, Run) else (run, run.run)
    if store is not None and source is None:
        raise InvalidSetting(
            "this run cannot be stored",
            why="the boundaries of its tests are in the run directory, and this is the run without them",
            remedy="pass certify.store.read_run(DIRECTORY) in place of the run",
        )
    refuse_population(run.settings, "there is nothing to carry over")
    x, _ = check_inputs(gather(x).x, None, bounds=certified.bounds, num_classes=certified.num_classes or 2)
    _check_same(run, certified, deployed, list(x.shape[1:]))
    if len(x) != len(run):
        raise InvalidInput(
            f"{len(x)} inputs were given for {len(run)} records",
            why="flips are counted around the very inputs that were certified",
            remedy="pass the inputs of the run, in the order of its records",
        )
    refuse_other_inputs(run.records, {r.index: row for r, row in zip(run, x, strict=True)}, "the run")
    geometry = make_geometry(certified.noise, norm=certified.norm, dim=x[0].numel())
    for smoothed in (certified, deployed):
        smoothed.predict(x[:1], n=1, seed=seed)  # the checks and the probe before any sample
    records = []
    for record, row in zip(run, x, strict=True):
        if record.certified:
            flips = count_flips(certified, deployed, row, samples, seed=seed, id=record.index)
            q = binomial_upper(flips, samples, alpha) + certified.noise.tv(row.numel())
            record = _carried(record, q, geometry, flips, two_sided=share_of(run.settings) > 0)
        records.append(record)
    guarantee = (
        f"{run.guarantee} Carried over to deployed numerics ({deployed.classifier.dtype} on "
        f"{deployed.device.type}): label flips were bounded on {samples} samples per input at level "
        f"{at_most(alpha)}, so the probability of a wrong certificate is at most "
        f"{at_most(run.settings['alpha'] + alpha)}."
    )
    carried = {"alpha": alpha, "samples": samples, "seed": str(seed), "dtype": deployed.classifier.dtype}
    found = Run(records, run.settings | {"transfer": carried}, guarantee)
    return found if store is None or source is None else _stored(found, source, store)


def _stored(run: Run, source: StoredRun, place: str | os.PathLike[str]) -> Run:
    """The run in a directory of its own, beside the boundaries that its source rests on."""
    with open_run(place, run.settings, run.guarantee) as kept:
        if (plan := source.documents.get(PLAN)) is not None:
            kept.put_document(PLAN, plan)
        for record in run:
            kept.add(record)
        return kept.run()


def _check_same(run: Run, certified: Smoothed, deployed: Smoothed, shape: list[int]) -> None:
    """The run is ``certified``'s, about votes on ``shape``; ``deployed`` shares noise and classes."""
    said = run.settings
    refuse_segmentation(said, "nothing is carried over", "certify the deployed segmenter itself")
    need(said, ("scores", "noise_settings", "norm", "model", "input_shape"), "the run")
    mismatch = next(
        (
            what
            for what, fits in (
                ("the run is about votes", said.get("scores") == "votes"),
                ("the run is about inputs of their shape", list(said["input_shape"]) == shape),
                ("the run has not been transferred before", "transfer" not in said),
                ("the run was made with the certified classifier's noise",
                 said.get("noise_settings") == certified.noise.settings()),
                ("the run has the certified classifier's norm", said.get("norm") == certified.norm),
                ("the run is about the certified classifier's model",
                 same_function(said["model"], certified.identity(tuple(shape)))),
                ("both have the same noise", certified.noise.settings() == deployed.noise.settings()),
                ("both have the same classes", certified.num_classes == deployed.num_classes),
            )
            if not fits
        ),
        None,
    )  # fmt: skip
    if mismatch is not None:
        raise InvalidSetting(
            "this run cannot be carried over between these two classifiers",
            why=f"it does not hold that {mismatch}",
            remedy="pass the Smoothed the run was made with, and one that differs from it in numerics only",
        )


@checked
def count_flips(
    certified: Smoothed, deployed: Smoothed, x: Tensor, samples: int, *, seed: int, id: int, chunk: int = 256
) -> int:
    """How many of ``samples`` noisy copies of one input the two base classifiers label differently.

    Raises NondeterministicModel where one of them answers an audited copy otherwise alone than in its batch.
    """
    sides = [_Side(smoothed, seed) for smoothed in (certified, deployed)]
    chunk = min(chunk, *(smoothed.batch_size or chunk for smoothed in (certified, deployed)))
    flips, kept = 0, set(sides[0].audit.candidates(id, 0, samples))
    for start in range(0, samples, chunk):
        batch = certified.noisy(x, min(chunk, samples - start), seed=seed, id=id, start=start)
        ours, theirs = (side.labels(batch, start, kept) for side in sides)
        flips += int((ours != theirs).sum())
    for side in sides:
        side.settle(id, samples, lambda sample: certified.noisy(x, 1, seed=seed, id=id, start=sample))
    return flips


class _Side:
    """One of the two classifiers: its labels, and the audit of them."""

    def __init__(self, smoothed: Smoothed, seed: int) -> None:
        self.classifier = smoothed.classifier
        self.tally = Votes(smoothed.num_classes)
        anchors = None if smoothed.probe is None or smoothed.reduced else smoothed.probe.anchors
        self.audit = Audit(self.classifier, self.tally, seed=seed, purpose=_PURPOSE, anchors=anchors)
        self.kept: list[Answer] = []
        self.counts = np.zeros(self.tally.shape, dtype=np.int64)

    def labels(self, batch: Tensor, start: int, kept: set[int]) -> np.ndarray:
        """The labels of samples ``start ...``; the answers to those in ``kept`` are kept."""
        batch = batch.to(self.classifier.device)
        if len(batch) == 1:
            found = single(self.classifier, self.tally, batch, start)
            self.kept += [found] if start in kept else []
            labels = found.cells
        else:
            out = self.classifier.logits(batch)
            cells, doubt = self.tally.read(self.classifier, out)
            labels, alone = cells[:, 0].cpu().numpy(), doubt.cpu().numpy()
            for row in alone.nonzero()[0].tolist():
                labels[row] = self.classifier.vote_alone(batch[row : row + 1])
            rows = [row for row in range(len(batch)) if start + row in kept]
            scores = few(out[rows]).cpu().numpy()
            self.kept += [
                Answer(start + row, line, labels[row : row + 1], bool(alone[row]))
                for row, line in zip(rows, scores, strict=True)
            ]
        self.counts += np.bincount(labels, minlength=len(self.counts))
        return labels

    def settle(self, id: int, samples: int, noisy: Callable[[int], Tensor]) -> None:
        """Evaluate some of the kept rows alone. Raises NondeterministicModel."""

        def alone(sample: int) -> Answer:
            return single(self.classifier, self.tally, noisy(sample).to(self.classifier.device), sample)

        self.audit.run(id, self.kept, self.counts, samples, alone)


def _carried(record: Record, q: float, geometry: Geometry, flips: int, *, two_sided: bool) -> Record:
    p_lower, p_upper = max(0.0, record.p_lower - q), min(1.0, record.p_upper + q)
    pb_lower, pb_upper = max(0.0, record.pb_lower - q), complement(p_lower)
    source = {name: getattr(record, name) for name in _SOURCE}
    if two_sided:
        pb_upper = min(pb_upper, raised(record.pb_upper, q))
        radius, upper = geometry.between(p_lower, pb_upper), geometry.between(p_upper, pb_lower)
        sizes = geometry.details(p_lower, pb_upper)
        source[ONE_SIDED] = record.details[ONE_SIDED]
        also = {ONE_SIDED: min(source[ONE_SIDED], geometry.radius(p_lower))}
    else:
        radius, upper, sizes = geometry.radius(p_lower), geometry.radius(p_upper), geometry.details(p_lower)
        also = {}
    proved = radius > 0.0
    details = {key: value for key, value in record.details.items() if key not in sizes} | also
    return replace(
        record,
        status=Status.CERTIFIED if proved else Status.ABSTAINED,
        label=record.label if proved else None,
        radius=min(radius, record.radius),
        radius_upper=upper,
        p_lower=p_lower,
        p_upper=p_upper,
        pb_lower=pb_lower,
        pb_upper=pb_upper,
        details=details | (sizes if proved else {}) | {"flips": flips, "flip_bound": q, "source": source},
    )
