"""The smoothed classifier: sample it, certify it, predict with it.

J. Cohen, E. Rosenfeld, J. Z. Kolter, "Certified Adversarial Robustness via Randomized
Smoothing", ICML 2019. The smoothed classifier returns the class the base classifier is most
likely to return under noise; a confidence bound on that probability proves a radius.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.answers import first_answer, warn_of_probabilities
from certify.arguments import (
    check_batch_size,
    check_ids,
    check_sigma,
    choose_reduction,
    count_classes,
    declared,
    refuse_other_task,
)
from certify.audits import AUDIT, audit_settings, audited
from certify.bounds import check_alpha
from certify.calls import checked, refuse_unknown
from certify.contract import check_inputs, check_model
from certify.data import gather
from certify.estimators import class_positions
from certify.geometry import GaussianBall, Geometry, make_geometry, norm_name, parse_norm
from certify.guarantees import of_classes
from certify.identity import identify, with_callers
from certify.inputs import Rows, naming_input
from certify.issued import issued
from certify.noise import Noise, make_noise
from certify.prediction import Prediction, prediction
from certify.procedures import make_procedure
from certify.procedures.outcome import Procedure, most_samples
from certify.procedures.soft_mean import soft_scores
from certify.records import Record, Run
from certify.runner_up import going_on
from certify.sampling.audit import still_the_same
from certify.sampling.classifier import Anchors, BaseClassifier, Probe
from certify.sampling.engine import Request, Sampler, audited_counts, drive, inputs_at_once
from certify.sampling.first_linear import Reduced, refuse_other_shortcut
from certify.sampling.start import among, noisy_rows, probed
from certify.sampling.tally import tally_for
from certify.sampling.tuning import Timed, pace_of
from certify.seeds import Seed, settled
from certify.sequential.boundaries import whole
from certify.store import RunStore, open_run
from certify.unchanged import Unchanged
from certify.verification.witness import PLAN, declare, plan_of
from certify.wrapping import as_model, reads_one_logit

PURPOSES = {"certify": 0, "predict": 1, "replay": 2, "population": 3}


@dataclass(frozen=True)
class _Work:
    """One call of ``certify``: checked inputs, the plan, and the engine."""

    x: Tensor
    y: Tensor | None
    ids: list[int]
    geometry: Geometry
    procedure: Procedure
    sampler: Sampler


class Smoothed:
    """A base classifier averaged over noise of standard deviation ``sigma``.

    ``model``: any nn.Module in eval mode or callable, ``(batch, *shape) -> (batch, num_classes)``, or a
    scikit-learn estimator. ``num_classes``: where nothing declares it, counted in the model's first answer.
    ``noise``: "lattice" (default; integers on the input grid, sound on real computers) or
    "gaussian" (floating point, a certificate in exact arithmetic only); further laws are listed
    in ``certify.noise``. ``grid``: the step of the input lattice (1/255 for 8-bit images).
    ``bounds``: the declared input range, None for unbounded. What is not given is read from ``data`` (a data
    set, or all that ``certify.data.as_dataset`` takes), or from the header of the model's checkpoint.
    ``batch_size`` only affects speed. ``reduce``: draw the noise behind a first linear layer
    (``certify.sampling.first_linear``; default: where possible).
    """

    @checked
    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        sigma: float | Tensor | Sequence[Any],
        *,
        data: Any = None,
        num_classes: int | None = None,
        noise: str = "lattice",
        norm: str | float = "2",
        grid: float | None = None,
        bounds: tuple[float, float] | str | None = "header",
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: str = "fp32",
        compiled: bool = False,
        reduce: bool | None = None,
    ) -> None:
        self.sigma = check_sigma(sigma)
        model = as_model(model)
        check_model(model)
        self.num_classes, self.grid, self.bounds = declared(
            model, data, num_classes=num_classes, grid=grid, bounds=bounds
        )
        self.noise: Noise = make_noise(noise, sigma=self.sigma, grid=self.grid, bounds=self.bounds)
        self.norm = norm_name(parse_norm(norm))
        self.model = model
        self.header = getattr(model, "certify_header", None)
        refuse_other_task(self.header, "classification")
        self.classifier = BaseClassifier(
            model, num_classes=self.num_classes, device=device, dtype=dtype, compiled=compiled
        )
        self.device = self.classifier.device
        self.reduced = choose_reduction(model, self.noise, reduce)
        self._view = self._seen_by(self.reduced)
        self.batch_size = check_batch_size(batch_size)
        self.probe: Probe | None = None
        self._first: Anchors | None = None
        self._lanes: int | None = None
        self._timed = Timed()
        self._probed: tuple[int, int] | None = None  # batch size and lanes of the probe
        self._kept = Unchanged(self)

    @checked
    def certify(
        self,
        x: Any,
        y: Any = None,
        *,
        ids: Sequence[int] | None = None,
        alpha: float = 1e-3,
        mode: str = "radius",
        scores: str = "votes",
        n_max: int = 100_000,
        runner_up: bool | None = None,
        seed: int | None = None,
        store: RunStore | str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        on_record: Callable[[Record], None] | None = None,
        on_samples: Callable[[int], None] | None = None,
        engine: Callable[[Sampler], AbstractContextManager[Any]] = nullcontext,
        **options: Any,
    ) -> Run:
        """Certify every input of ``x``; each certificate is wrong with probability <= alpha.

        ``x``: (n, *shape) floats, or what ``certify.data.gather`` reads; ``y``: labels, where x has none.

        ``mode`` "radius" (a real-valued radius; option ``slack``), "grid" (largest certified
        multiple of ``step``), "decide" (is the radius >= ``radius``?), "fixed" (Cohen's procedure
        with ``n0`` and ``n``). ``scores``: "votes" certifies the class most noisy copies get, "soft" the
        largest mean softmax, "distribution" the same with the radius of the whole score distribution
        (mode "fixed"). ``runner_up``: bound the other classes, too, for larger radii (``certify.runner_up``;
        default: where it is proved for more than two classes, and as in the run that goes on); False: p_B :=
        1 - p_A, as in published tables. ``ids`` name the inputs and key their noise (default 0, 1, ...).
        ``store`` is a run directory: records are written as they are proved, and inputs already
        there are not sampled again. ``seed`` keys the noise, 0 <= seed < 2**128; None draws 128 random bits,
        or goes on with the seed of the run in ``store``. ``engine`` spreads the sampling
        (``certify.sampling.ray.RayEngine``); the records are the same for every engine.
        """
        refuse_unknown(options, make_procedure, type(self).certify)
        x, y, ids = self._checked(x, y, ids)
        key = settled(seed, store)
        # Everything that can be refused is refused before a run directory exists.
        self.noise.prepare(x)
        geometry = make_geometry(self.noise, norm=self.norm, dim=x[0].numel())
        procedure = make_procedure(
            mode,
            scores=scores,
            alpha=check_alpha(alpha),
            sigma=self.sigma_scale,
            n_max=n_max,
            tv=self.noise.tv(x[0].numel()),
            needed=None if isinstance(geometry, GaussianBall) and geometry.p == 2 else geometry.needed,
            between=getattr(geometry, "between", None),
            classes=self.num_classes,
            runner_up=going_on(runner_up, store),
            **options,
        )
        described = self.settings(x, procedure=procedure, alpha=alpha, mode=mode, seed=key)
        rows = Rows.of(ids, x, y)
        described = with_callers(described, rows.described(settings))
        guarantee = self.guarantee(procedure, alpha, key)
        listeners = on_record, on_samples
        with engine(self._sampler(x, seed=key.value, purpose="certify", procedure=procedure)) as sampler:
            work = _Work(x, y, ids, geometry, procedure, sampler)
            if isinstance(store, str | os.PathLike):
                with open_run(store, described, guarantee, rows=rows) as opened:
                    self._certify(work, opened, *listeners)
                    return opened.run()
            if store is not None:
                rows.refuse_other(store.run(), store.path)
            records = self._certify(work, store, *listeners)
        if store is not None:
            return store.run()
        plan = plan_of(procedure)
        return Run(records, described, guarantee, documents={} if plan is None else {PLAN: plan})

    def _certify(
        self,
        work: _Work,
        store: RunStore | None,
        on_record: Callable[[Record], None] | None,
        on_samples: Callable[[int], None] | None,
    ) -> list[Record]:
        """Fresh records in input order; each is in the store before the next round begins."""
        if store is not None:
            declare(store, work.procedure)
        place = {id: i for i, id in enumerate(work.ids)}
        todo = [i for i, id in enumerate(work.ids) if store is None or not store.has(id)]
        prepared = ((work.ids[i], self._prepared(work.x[i])) for i in todo)
        records = []
        watch = self._kept.watch
        finished = drive(
            work.sampler, work.procedure, prepared, on_samples=on_samples, watch=watch,
            at_once=inputs_at_once(work.sampler, len(todo)),
        )  # fmt: skip
        for id, outcome, seconds, audit in finished:
            target = None if work.y is None else int(work.y[place[id]])
            record = audited(issued(id, target, outcome, work.geometry, seconds), audit)
            records.append(naming_input(record, work.x[place[id]]))
            if store is not None:
                store.add(records[-1])
            if on_record is not None:
                on_record(records[-1])
        self._kept.refuse()
        return sorted(records, key=lambda r: place[r.index])

    @checked
    def predict(
        self, x: Any, *, n: int = 1000, alpha: float = 1e-3, seed: int, ids: Sequence[int] | None = None
    ) -> list[Prediction]:
        """The smoothed class of every row of ``x`` by a two-sided binomial test at level alpha.

        Fresh noise for every (seed, id), apart from the noise of ``certify``. For lattice noise
        ``x`` must lie on the grid: see ``to_grid``.
        """
        x, _, ids = self._checked(x, None, ids)
        alpha, n = check_alpha(alpha), whole(n, "n")
        sampler = self._sampler(x, seed=seed, purpose="predict")
        bases = [self._prepared(row) for row in x]
        counts = audited_counts(sampler, [Request(i, b, 0, n) for i, b in zip(ids, bases, strict=True)])
        return [prediction(row, n, alpha) for row in counts]

    @checked
    def __call__(self, x: Any, *, n: int = 1000, alpha: float = 1e-3, seed: int | None = None) -> Tensor:
        """The smoothed class of every row of ``x``, (n,) int64, -1 where ``predict`` abstains."""
        found = self.predict(x, n=n, alpha=alpha, seed=settled(seed).value)
        return torch.tensor([-1 if p.label is None else p.label for p in found])

    @checked
    def score_histograms(
        self, x: Any, *, n: int, bins: int, seed: int, ids: Sequence[int] | None = None, bets: str = "grid"
    ) -> np.ndarray:
        """Margin scores of n noisy copies of each row of ``x``, per class: (len(x), num_classes, bins + 1).

        Bins as in the records of soft scores with these ``bets`` (``certify.procedures``), noise apart from
        that of ``certify``.
        """
        x, _, ids = self._checked(x, None, ids)
        n = whole(n, "n")
        sampler = self._sampler(x, seed=seed, purpose="predict", procedure=soft_scores(bins, bets))
        bases = [self._prepared(row) for row in x]
        return audited_counts(sampler, [Request(i, b, 0, n) for i, b in zip(ids, bases, strict=True)])

    @checked
    def noisy(self, x: Tensor, count: int, *, seed: int, id: int, start: int = 0) -> Tensor:
        """The noisy copies ``start .. start + count`` that ``certify`` classifies.

        Where the noise is drawn behind a first linear layer they are equal in law only.
        """
        base = self.noise.prepare(x, device=self.device)
        out = torch.empty(count, *x.shape, dtype=torch.float32, device=self.device)
        self.noise.fill(out, bases=[base], ids=[id], starts=[start], counts=[count], seed=seed)
        return out

    def to_grid(self, x: Tensor) -> Tensor:
        """``x`` moved to the nearest point the certificate speaks about (clipped to the range)."""
        if self.bounds is not None:
            x = x.clamp(*self.bounds)
        return self.noise.snap(x)

    # -- what is written down ---------------------------------------------------------------

    @property
    def sigma_scale(self) -> float:
        """The factor that turns Phi^-1(p) into an l2 radius: sigma itself when it is isotropic."""
        return float(np.min(np.asarray(self.sigma)))

    def settings(self, x: Tensor, *, procedure: Procedure, alpha: float, mode: str, seed: Seed) -> dict:
        """Everything that determines the records, as JSON types."""
        shape = list(x.shape[1:])
        return {
            "format_version": 1,
            "model": self.identity(shape),
            "sigma": self.sigma_scale,
            "diffusion_sigma": self.sigma_scale / 2**0.5,
            "noise": self.noise.name,
            "noise_settings": self.noise.settings(),
            "grid": self.grid if self.noise.about.exact else None,
            "bounds": None if self.bounds is None else list(self.bounds),
            "scores": procedure.name if procedure.name in ("soft", "distribution") else "votes",
            "norm": self.norm,
            "alpha": float(alpha),
            "mode": mode,
            "mode_options": procedure.settings(),
            **seed.settings(),
            "dtype": self.classifier.dtype,
            "compiled": self.classifier.compiled,
            "reduced": self.reduced is not None,
            "num_classes": self.num_classes,
            "input_shape": shape,
            "dim": int(np.prod(shape)),
            "device": self.device.type,
            AUDIT: audit_settings(),
        }

    def identity(self, shape: Sequence[int]) -> dict[str, Any]:
        """Which function is certified: its weights' digest, its class, and its labels on fixed inputs.

        The labels tell plain callables apart, and modules that differ in more than weights.
        """
        return identify(self.model, self.classifier, shape=shape, bounds=self.bounds)

    def guarantee(self, procedure: Procedure, alpha: float, seed: Seed) -> str:
        """The certificate in one paragraph: what holds, where, and with which probability."""
        return of_classes(self, procedure, alpha, seed)

    def _sampler(self, x: Tensor, *, seed: int, purpose: str, procedure: Procedure | None = None) -> Sampler:
        """The engine for the inputs ``x``; probes the model on some of them once per way torch computes."""
        examples = x[among(len(x), seed)]
        examples = examples if self.reduced is None else self.reduced.project(examples)
        pace = pace_of(self, examples, None if procedure is None else len(x) * most_samples(procedure))
        lanes = self._view.copies(pace[1]) if pace[1] > 1 else []
        rows = partial(noisy_rows, self.noisy, examples, seed=seed)
        before, known = self.probe, self.probe if pace == self._probed else None
        self.probe, self._probed = probed(self._view, known, rows, pace[0], lanes=lanes), pace
        self.classifier.usual = max(self.classifier.usual, self._view.usual)  # one function, seen in two ways
        if self.probe is not before:
            warn_of_probabilities(self._view.logits(rows()), single=reads_one_logit(self.model))
            if self.reduced is not None:
                refuse_other_shortcut(self.reduced, self._view, self.classifier, self._full_rows(x, seed))
            still_the_same(self.classifier, self._first)
            self._kept.settle()
        return Sampler(
            self._view,
            self.noise.for_purpose(PURPOSES[purpose]),
            seed=seed,
            shape=tuple(examples.shape[1:]),
            batch_size=pace[0],
            tally=None if procedure is None else tally_for(procedure, self.num_classes),
            lanes=lanes,
            purpose=PURPOSES[purpose],
            anchors=self.probe.anchors,
        )

    def _checked(self, x: Any, y: Any, ids: Sequence[int] | None) -> tuple[Tensor, Tensor | None, list[int]]:
        """Inputs and labels that a certificate may speak about, and that the model can take; their ids."""
        given = gather(x, y)
        labels = class_positions(self.model, given.y)
        first, _ = check_inputs(given.x[:1], None, bounds=self.bounds, num_classes=2)
        self._kept.refuse(first[0])
        if self.num_classes is None:
            self.num_classes = count_classes((self.classifier, self._view), given.x, bounds=self.bounds)
        x, y = check_inputs(given.x, labels, bounds=self.bounds, num_classes=self.num_classes)
        if self.probe is None:
            rows = self.noisy(x[0], 1, seed=0, id=0)
            first_answer(self.classifier.logits, rows)
            self._first = self.classifier.anchored(rows)
        return x, y, check_ids(given.ids if ids is None else ids, len(x))

    def _prepared(self, x: Tensor) -> Tensor:
        """One input as the noise takes it, in the space that is sampled."""
        point = x if self.reduced is None else self.reduced.project(x[None])[0]
        return self.noise.prepare(point, device=self.device)

    def _full_rows(self, x: Tensor, seed: int) -> Tensor:
        """Noisy copies in the space of the inputs, also where samples are drawn behind a first layer."""
        return noisy_rows(self.noisy, x[among(len(x), seed, 8)], seed=seed, copies=2)

    def _seen_by(self, reduced: Reduced | None) -> BaseClassifier:
        """What classifies the samples: the base classifier, or its part behind the first layer."""
        if reduced is None:
            return self.classifier
        of = self.classifier
        return BaseClassifier(reduced.model, num_classes=self.num_classes, device=self.device,
                              dtype=of.dtype, compiled=of.compiled)  # fmt: skip


__all__ = ["Prediction", "Smoothed"]
