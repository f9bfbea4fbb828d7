"""The base classifier as a fixed function of one input, evaluated in batches.

What is certified is the class the model returns for an input *alone*. A batch is only a faster
way to learn it: floating-point kernels may round differently for other batch shapes, so a row
whose two best logits lie closer than the measured difference between the two is evaluated again
by itself. Votes therefore do not depend on batch size, packing or position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import check_output, coupled
from certify.contract import check_model
from certify.denoising import behind_denoiser, refuse_randomness
from certify.errors import InvalidSetting, NondeterministicModel
from certify.sampling.arithmetic import arithmetic
from certify.sampling.lanes import COPIES_BYTES, independent_copy, run_in_lanes
from certify.sampling.process import undisturbed
from certify.sampling.rounding import (
    ANOTHER,
    ERRORS_APART,
    FLOOR,
    SAFETY,
    difference,
    error_of,
    explained,
    usual_size,
)  # fmt: skip

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}

#: Rows that are evaluated by themselves twice.
ASKED_AGAIN = 4
#: Rows of the probe that are kept, to ask the model again later.
KEPT = 16


@dataclass(frozen=True, eq=False)
class Anchors:
    """Rows (n, *shape) and the scores of each by itself: what the model must go on to answer."""

    rows: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Probe:
    """What the determinism probe measured, relative to the largest logit of each row."""

    difference: float
    tolerance: float
    samples: int
    batch_sizes: tuple[int, ...]
    #: Settings of the process under which this was measured (``certify.sampling.arithmetic``).
    arithmetic: tuple[tuple[str, str], ...] = ()
    #: Some of the rows, with their scores.
    anchors: Anchors | None = field(default=None, repr=False, compare=False)

    def holds(self, device: torch.device) -> bool:
        """Whether torch still computes as it did then: autocast, TF32, precision, threads and the like."""
        return self.arithmetic == arithmetic(device)


class BaseClassifier:
    """Votes of a model that maps ``(batch, *shape)`` to ``(batch, num_classes)`` scores.

    ``model`` is an nn.Module in eval mode or any callable. A module that has to change device,
    dtype or memory layout is copied first; the caller's own is never touched. Raises
    InvalidModel (training mode, bad weights, wrong output) and InvalidSetting.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        num_classes: int,
        device: torch.device | str | None = None,
        dtype: str = "fp32",
        compiled: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise InvalidSetting(
                f"dtype {dtype!r} is unknown",
                why=f"the model runs in one of {', '.join(DTYPES)}",
                remedy="use --dtype fp32",
            )
        check_model(model)
        self.num_classes = num_classes
        self.dtype = dtype
        self.compiled = compiled
        self.device = torch.device(device) if device is not None else _device_of(model)
        self.model = _placed(model, self.device, DTYPES[dtype])
        self._forward = torch.compile(self.model) if compiled else self.model
        self.channels_last = False
        self.tolerance = FLOOR[dtype]
        #: No row's scores are taken for smaller than this: rounding errors come from the terms that cancel.
        self.usual = 0.0
        self.alone = 0
        #: Whether rows handed in may be overwritten: nobody reads them after the forward pass.
        self.rows_are_its_own = False

    def fixed(self) -> list[Any]:
        """What may not change while the classifier is in use, as JSON types."""
        return [id(self), id(self.model), self.dtype, self.compiled, str(self.device)]

    def lay_out(self, *, channels_last: bool) -> bool:
        """Evaluate batches with their channels last in memory, which suits many convolutions, or no longer.

        Batches only: the classifier remains what the model as it came says of one input alone.
        Returns whether batches are laid out that way: False for models without 2-D convolutions, large
        or compiled ones, and those that cannot be copied.
        """
        if self.compiled:
            return False
        twin = _in_channels_last(self.model) if channels_last else None
        self.channels_last = twin is not None
        self._forward = self.model if twin is None else twin
        return self.channels_last

    def logits(self, batch: Tensor) -> Tensor:
        """Raw scores of a batch on this classifier's device, float32 or wider."""
        return self._run(self._forward, batch, channels_last=self.channels_last)

    def votes(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Class of every row (``num_classes`` where a logit is not finite) and a doubt mask.

        Rows in doubt are too close to call from a batch; ask ``vote_alone`` for each.
        """
        return self.read(self.logits(batch))

    def read(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """As ``votes``, from raw scores (batch, num_classes)."""
        values = out.topk(2, dim=1).values
        size = self.scale(out)[:, 0]  # not finite where any score is not
        finite = size.isfinite()
        doubt = (values[:, 0] - values[:, 1] <= self.tolerance * size).logical_and_(finite)
        return torch.where(finite, out.argmax(dim=1), self.num_classes), doubt

    def vote_alone(self, x: Tensor) -> int:
        """The class of one input ``(1, *shape)``, which is the definition of the classifier."""
        return int(self.read(self.logits_alone(x))[0])

    def logits_alone(self, x: Tensor) -> Tensor:
        """Raw scores (1, num_classes) of one input by itself."""
        self.alone += 1
        return self._run(self.model, x)

    def one_by_one(self, rows: Tensor) -> Tensor:
        """Raw scores of rows (n, *shape), each evaluated by itself."""
        # A model may answer with a view of memory that its next answer overwrites.
        return torch.cat([self._run(self.model, row[None]).clone() for row in rows.to(self.device)])

    def anchored(self, rows: Tensor) -> Anchors:
        """The rows with what the model says of each now."""
        return Anchors(rows.clone(), self.one_by_one(rows))

    def same_function(self, rows: Tensor, scores: Tensor) -> bool:
        """Whether another process's ``scores`` of ``rows``, one by one, are these up to rounding."""
        ours = self.one_by_one(rows)
        return difference(scores.to(ours), ours, self.unit(ours)) <= self.rounding

    @property
    def rounding(self) -> float:
        """The most that rounding explains between two evaluations, relative to the largest score."""
        return explained(self.dtype)

    @property
    def apart(self) -> float:
        """How far a row's scores in a batch may be from its own, relative to the largest."""
        # Doubt begins where two scores are closer than the tolerance: it covers half of it in each.
        return max(self.rounding, self.tolerance / 2)

    def copies(self, count: int) -> list[BaseClassifier]:
        """``count`` classifiers that share nothing with this one, or [] where that cannot be had."""
        if not self.may_leave_its_thread():
            return []
        twins = []
        for _ in range(count):
            model = independent_copy(self.model)
            if model is None:
                return []
            twin = BaseClassifier(model, num_classes=self.num_classes, device=self.device, dtype=self.dtype)
            twin.rows_are_its_own = True
            twin.usual = self.usual
            if self.channels_last:
                twin.model.to(memory_format=torch.channels_last)
                twin.channels_last = True
            twins.append(twin)
        return twins

    def again(self) -> BaseClassifier:
        """Another classifier of the same model that evaluates batches the same way."""
        twin = copy.copy(self)
        twin.alone = 0
        return twin

    def probe(
        self, samples: Tensor, batch_sizes: tuple[int, ...], *, lanes: Sequence[BaseClassifier] = ()
    ) -> Probe:
        """Compare batches against single evaluations on real noisy samples; set the tolerance.

        Rows are also permuted and repeated, and evaluated by torch on one core instead of all; the
        ``lanes`` are evaluated side by side. Raises NondeterministicModel where the same batch
        gives two answers, where a denoiser in front draws random numbers, or where batch mates change a row
        by more than rounding can explain.
        """
        if (front := behind_denoiser(self.model)) is not None:
            refuse_randomness(front, samples[:2].to(DTYPES[self.dtype]))
        self._tried(partial(self.one_by_one, samples[:ASKED_AGAIN]), "the same input")
        single = undisturbed(partial(self.one_by_one, samples), self.device)
        self.usual = usual_size(self.scale_of(single))
        worst = self._worst(samples, single, batch_sizes, lanes)
        if worst > self.rounding and self._cancels(samples, single):
            worst = self._worst(samples, single, batch_sizes, lanes)
        if worst > self.rounding:
            raise coupled(worst)
        self._refuse_other_mode(samples[:2], single[:2])
        self.tolerance = max(FLOOR[self.dtype], SAFETY * worst)
        anchors = Anchors(samples[:KEPT].clone(), single[:KEPT].clone())
        return Probe(worst, self.tolerance, len(samples), batch_sizes, arithmetic(self.device), anchors)

    def _worst(
        self, samples: Tensor, single: Tensor, batch_sizes: tuple[int, ...], lanes: Sequence[BaseClassifier]
    ) -> float:
        """The largest difference of a row in a batch from the row alone, in units of its scores."""
        scale = self.unit(single)
        order = torch.arange(len(samples) - 1, -1, -1, device=samples.device)
        worst = 0.0
        for size in (size for size in batch_sizes if size > 1):  # a batch of one is the row alone
            for rows in (None, order):
                batch = samples if rows is None else samples[rows]
                expected, unit = (single, scale) if rows is None else (single[rows], scale[rows])
                found = [self._tried(partial(self._in_batches, batch, size), "the same batch")]
                if self.may_leave_its_thread():
                    found += _side_by_side(lanes or (self,), batch, size)
                worst = max(worst, *(difference(scores, expected, unit) for scores in found))
        return worst

    def _cancels(self, samples: Tensor, single: Tensor) -> bool:
        """Whether large terms cancel in the scores, so that rounding errors are large beside what is left.

        Where they do, ``usual`` rises to the size at which these errors are what rounding explains; then
        more rows are asked alone.
        """
        twin = independent_copy(self.model) if _small(self.model) and self.dtype != "fp64" else None
        error = 0.0 if twin is None else error_of(twin, samples.to(self.device), single)
        if error > ANOTHER * self.usual:
            return False  # in float64 it is another function: that measures no rounding error
        before, self.usual = self.usual, max(self.usual, ERRORS_APART * error / self.rounding)
        return self.usual > before

    def _tried(self, call: Callable[[], Tensor], what: str) -> Tensor:
        """What ``call`` returns twice; the process's generators are in other states the second time."""
        first, again = undisturbed(call, self.device), undisturbed(call, self.device)
        if not torch.equal(first.nan_to_num(), again.nan_to_num()):
            raise NondeterministicModel(
                f"the model gives two answers for {what}",
                why="a certificate needs a fixed function; something draws random numbers "
                "or keeps state between calls",
                remedy="put the model in eval mode and remove sampling from its forward pass",
            )
        return first

    def _refuse_other_mode(self, rows: Tensor, single: Tensor) -> None:
        """Raise where the model answers otherwise while gradients are recorded, as they are for attacks."""
        # A copy: memory that a model keeps may not be written to in both modes.
        twin = independent_copy(self.model) if _small(self.model) else None
        found = []
        try:
            for row in rows if twin is not None else ():
                with torch.enable_grad():
                    out = twin(row[None].to(DTYPES[self.dtype], copy=True))  # type: ignore[misc]
                found.append(out.detach().to(single.dtype))
        except Exception:  # a model may refuse to record gradients with any error
            return
        if not found:
            return
        if (worst := difference(torch.cat(found), single, self.unit(single))) > self.rounding:
            raise NondeterministicModel(
                f"the model's scores differ by {worst:.1e} (relative) where gradients are recorded",
                why="its forward pass asks for torch's mode: certificates, attacks and deployment would be "
                "about different functions",
                remedy="make the answer depend on the input alone",
            )

    def may_leave_its_thread(self) -> bool:
        """Whether batches can be evaluated in other threads: on the CPU, as the model came."""
        # Autocast holds for the thread that switched it on only.
        return self.device.type == "cpu" and not self.compiled and not torch.is_autocast_enabled("cpu")

    def check(self, out: Any, batch: int) -> None:
        """Refuse an answer of another form than (batch, num_classes)."""
        check_output(out, batch=batch, num_classes=self.num_classes)

    def scale_of(self, out: Tensor) -> Tensor:
        """The largest score of every row, shaped to divide its scores."""
        return out.abs().amax(dim=1, keepdim=True)

    def scale(self, out: Tensor) -> Tensor:
        """What differences between scores are measured against: a row's largest score, or the usual one.

        Where large terms nearly cancel in a row, its scores are small and their rounding errors are not.
        """
        return self.scale_of(out).clamp_min(self.usual)

    def unit(self, out: Tensor) -> Tensor:
        """``scale``, fit to divide by."""
        return self.scale(out).clamp_min(torch.finfo(out.dtype).tiny)

    def _in_batches(self, samples: Tensor, size: int) -> Tensor:
        """Scores of the samples in batches of ``size``: again and again where they do not fill one."""
        reps = -(-size // len(samples))
        if size >= len(samples):
            batch = samples.repeat(reps, *[1] * (samples.dim() - 1))[:size]
            return self.logits(batch).clone()
        return torch.cat([self.logits(part).clone() for part in samples.split(size)])

    def _run(
        self, forward: Callable[[Tensor], Tensor], batch: Tensor, *, channels_last: bool = False
    ) -> Tensor:
        last = channels_last and batch.dim() == 4
        with torch.inference_mode():
            # A copy: a model may write into its input, and the caller's rows are read again.
            own = batch.to(DTYPES[self.dtype], copy=not self.rows_are_its_own)
            out = forward(own.contiguous(memory_format=torch.channels_last) if last else own)
            self.check(out, len(batch))
            return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out


def _side_by_side(lanes: Sequence[BaseClassifier], batch: Tensor, size: int) -> list[Tensor]:
    """Every lane's scores of the batch. Each begins elsewhere: equal rows would hide a shared buffer."""
    rows = len(batch)
    turns = [lane * rows // len(lanes) for lane in range(len(lanes))]
    work = [partial(c._in_batches, batch.roll(-turn, 0), size) for c, turn in zip(lanes, turns, strict=True)]
    return [out[:rows].roll(turn, 0) for out, turn in zip(run_in_lanes(work), turns, strict=True)]


def _in_channels_last(model: Any) -> nn.Module | None:
    """A copy of the model whose convolutions keep channels last, or None where that is no use or no copy."""
    if not isinstance(model, nn.Module) or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return None
    if not _small(model):
        return None
    twin: Any = independent_copy(model)  # torch's own stubs miss this form of ``to``
    return None if twin is None else twin.to(memory_format=torch.channels_last)


def _small(model: Any) -> bool:
    """Whether a torch module's copies may be kept beside it."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return sum(t.numel() * t.element_size() for t in tensors) <= COPIES_BYTES


def _device_of(model: Any) -> torch.device:
    if isinstance(model, nn.Module):
        for tensor in [*model.parameters(), *model.buffers()]:
            return tensor.device
    return torch.device("cpu")


def _placed(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The model on ``device`` in ``dtype``: itself if it already is, else a copy."""
    if not isinstance(model, nn.Module):
        return model
    tensors = [*model.parameters(), *model.buffers()]
    fits = all(t.device == device and (t.dtype == dtype or not t.is_floating_point()) for t in tensors)
    return model if fits else copy.deepcopy(model).to(device=device, dtype=dtype)
