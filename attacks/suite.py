"""``attack``: run a preset on a model, or on its smoothed version, and judge what it finds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import attack_base
from attacks.budget import Budget
from attacks.guard import untouched
from attacks.job import Job
from attacks.judge import Judge
from attacks.oracle import Oracle
from attacks.outcomes import AttackOutcome, AttackRun, AttackStatus
from attacks.presets import BLACK_BOX, check_preset
from attacks.problem import Problem
from attacks.progress import Progress, Report, reporter
from attacks.smoothed_suite import attack_smoothed
from attacks.threat import Threat
from certify.contract import check_inputs
from certify.errors import InvalidInput, InvalidModel, NondeterministicModel


def attack(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    threat: Threat,
    preset: str = "standard",
    seed: int = 0,
    budget: Budget | None = None,
    progress: bool | Report | None = None,
    ids: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    known: Mapping[int, AttackOutcome] | None = None,
    on_outcome: Callable[[AttackOutcome], None] | None = None,
) -> AttackRun:
    """Attack every row of ``x`` (n, *shape) and judge the result.

    ``model``: an nn.Module or callable ``(batch, *shape) -> (batch, classes)``, or a
    ``certify.Smoothed`` (preset "smoothed"): then the smoothed classifier is attacked and only a
    flip of *its* class counts. ``y`` (n,): true labels; None takes the classes the model itself
    gives. ``preset``: see ``attacks.PRESETS``. ``ids`` (default 0, 1, ...) name the inputs and key
    their randomness. ``known`` outcomes (by id) are kept and not attacked again; ``on_outcome``
    sees each new one once its batch is done, so that an interrupted attack can resume.

    The model is used in eval mode and given back untouched (train flags, gradients, global random
    state), after an exception too. Raises InvalidInput, InvalidSetting, InvalidModel,
    NondeterministicModel.
    """
    return attack_each(
        model, x, y, eps=None, threat=threat, preset=preset, seed=seed, budget=budget, progress=progress,
        ids=ids, device=device, known=known, on_outcome=on_outcome,
    )  # fmt: skip


def attack_each(
    model: Any, x: Any, y: Any, *, eps: Sequence[float] | None, threat: Threat, preset: str, seed: int,
    budget: Budget | None = None, progress: bool | Report | None = None, ids: Sequence[int] | None = None,
    device: torch.device | str | None = None, known: Mapping[int, AttackOutcome] | None = None,
    on_outcome: Callable[[AttackOutcome], None] | None = None,
) -> AttackRun:  # fmt: skip
    """``attack`` with one size per input: ``eps`` are certified radii and ``y`` the certified classes."""
    smoothed = is_smoothed(model)
    check_preset(preset, threat, smoothed=smoothed)
    budget = budget or Budget()
    base = _placed(_base_of(model) if smoothed else model, model.device if smoothed else device)
    with untouched(base):
        like = _like(base)
        classes = model.num_classes if smoothed else _classes(base, x, like)
        inputs, labels = check_inputs(x, y, bounds=threat.bounds, num_classes=classes)
        names = _names(ids, len(inputs))
        if not smoothed:
            _check_deterministic(base, inputs[:8].to(like))
        if preset != "black-box":
            _check_differentiable(base, inputs[:1].to(like), smoothed=smoothed)
        found_by_id = {i: o for i, o in (known or {}).items() if i in set(names)}
        todo = [k for k, name in enumerate(names) if name not in found_by_id]
        judge = Judge(base, p=threat.p, box=threat.box)
        with reporter(progress, total=len(names), preset=preset) as report:
            for part in _parts(todo, budget.batch_size):
                rows, part_ids = inputs[part].to(like), [names[k] for k in part]
                rows = model.to_grid(rows) if smoothed else rows
                truth = (
                    labels[part].to(rows.device) if labels is not None else _own(model, base, rows, part_ids)
                )
                own = [(threat.eps or 0.0) if eps is None else eps[k] for k in part]
                sizes = torch.tensor(own, dtype=torch.float64)
                problem = Problem.of(
                    Oracle(base, len(part)), rows, truth, eps=sizes, p=threat.p, box=threat.box,
                    seed=seed, ids=part_ids, classes=classes, rows=budget.rows,
                )  # fmt: skip
                notify = _notifier(report, found_by_id, len(names))
                job = Job(threat, preset, seed, budget, notify, certified=eps is not None)
                found = attack_smoothed(model, problem, job) if smoothed else attack_base(judge, problem, job)
                for outcome in found:
                    found_by_id[outcome.index] = outcome
                    if on_outcome is not None:
                        on_outcome(outcome)
    outcomes = [found_by_id[i] for i in names]
    return AttackRun(outcomes, threat, preset, flags=_flags(outcomes, preset))


def is_smoothed(model: Any) -> bool:
    """Whether ``model`` is a smoothed classifier (``certify.Smoothed`` or anything with its interface)."""
    return all(hasattr(model, name) for name in ("predict", "to_grid", "sigma", "num_classes"))


def _flags(outcomes: Sequence[AttackOutcome], preset: str) -> dict[str, int]:
    """Signs that the gradients mislead: inputs that a black-box attack broke after all others had failed."""
    after_others = preset != "black-box"
    return {"square_improved": sum(after_others and o.broken and o.by_attack in BLACK_BOX for o in outcomes)}


def _notifier(
    report: Report, before: Mapping[int, AttackOutcome], total: int
) -> Callable[[str, int, int], None]:
    done = len(before)
    correct = sum(o.clean_correct for o in before.values())
    held = sum(o.status in (AttackStatus.SURVIVED, AttackStatus.UNCONFIRMED) for o in before.values())

    def notify(stage: str, more_correct: int, more_held: int, finished: int = 0) -> None:
        report(Progress(stage, done + finished, total, correct + more_correct, held + more_held))

    return notify


def _parts(todo: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(todo), size):
        yield todo[first : first + size]


def _own(model: Any, base: Callable, rows: Tensor, ids: list[int]) -> Tensor:
    """The classes the model itself gives to these inputs; the most voted one for a smoothed classifier."""
    if is_smoothed(model):
        votes = model.predict(rows, n=1000, seed=0, ids=ids)
        return torch.tensor(
            [max(range(len(v.counts)), key=v.counts.__getitem__) for v in votes], device=rows.device
        )
    with torch.no_grad():
        return base(rows).argmax(1)


def _base_of(g: Any) -> Any:
    """The network behind a smoothed classifier, on the device it samples on, in full precision."""
    inner = getattr(g, "classifier", None)
    return inner.model if inner is not None and inner.dtype == "fp32" else g.model


def _placed(model: Any, device: torch.device | str | None) -> Any:
    """``model`` on ``device``: itself if it is there already, else a copy, so that the caller's stays put."""
    if not callable(model):
        raise InvalidModel(
            f"a {type(model).__name__} cannot be attacked",
            why="a model maps inputs (batch, *shape) to scores (batch, classes)",
            remedy="pass an nn.Module, a callable, or a certify.Smoothed",
        )
    if device is None or not isinstance(model, nn.Module):
        return model
    device = torch.device(device)
    first = next(iter(model.parameters()), None)
    if first is None or first.device.type == device.type:
        return model
    return copy.deepcopy(model).to(device)


def _like(model: Any) -> Tensor:
    """An empty tensor with the device and precision the model computes in."""
    first = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    if first is None:
        return torch.empty(0)
    return torch.empty(
        0, device=first.device, dtype=torch.float64 if first.dtype == torch.float64 else torch.float32
    )


@torch.no_grad()
def _classes(model: Callable[[Tensor], Tensor], x: Any, like: Tensor) -> int:
    """The number of classes the model answers with."""
    probe, _ = check_inputs(x[:1], None, bounds=None, num_classes=2)
    scores = model(probe.to(like))
    if not isinstance(scores, Tensor) or scores.dim() != 2 or len(scores) != 1 or scores.shape[1] < 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidModel(
            f"the model answers {shape} to one input",
            why="an attack needs scores of shape (batch, classes) with at least two classes",
            remedy="return one score per class (two columns for a binary classifier)",
        )
    return scores.shape[1]


@torch.no_grad()
def _check_deterministic(model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    first, second = model(x), model(x)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise NondeterministicModel(
            "the model gives two answers to the same inputs",
            why="it draws random numbers, so an adversarial input found once may not be one again",
            remedy="make it deterministic in eval mode, or attack its smoothed version instead",
        )


def _check_differentiable(model: Callable[[Tensor], Tensor], x: Tensor, *, smoothed: bool) -> None:
    with torch.enable_grad():
        scores = model(x.detach().requires_grad_())
    if not scores.requires_grad:
        raise InvalidModel(
            "the model gives no gradients",
            why="its scores come from outside torch (onnxruntime, numpy) or were computed under no_grad, "
            "and this preset follows gradients",
            remedy="convert it to torch (ONNX: onnx2torch.convert)"
            + (", or attack its base model with --base" * smoothed)
            + ', or use preset="black-box", which only asks for scores (--preset black-box --eps 0.5)',
        )


def _names(ids: Sequence[int] | None, n: int) -> list[int]:
    names = list(range(n)) if ids is None else [int(i) for i in ids]
    if len(names) != n or len(set(names)) != n or any(i < 0 for i in names):
        raise InvalidInput(
            "the input ids cannot be used",
            why=f"each of the {n} inputs needs its own id >= 0: the id keys its randomness",
            remedy="pass one distinct non-negative integer per input, such as its index in the data set",
        )
    return names
