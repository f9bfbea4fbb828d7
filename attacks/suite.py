"""``attack``: run a preset on a model, or on its smoothed version, and judge what it finds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attacks.aimed import ALL, aimed, attack_all, read_target
from attacks.base import attack_base
from attacks.budget import Budget
from attacks.foreign import Foreign, foreign
from attacks.foreign_suite import attack_foreign
from attacks.guard import untouched
from attacks.job import Job
from attacks.judge import Judge
from attacks.oracle import Oracle
from attacks.outcomes import AttackOutcome, AttackRun, AttackStatus
from attacks.presets import BLACK_BOX, check_preset, preset_named
from attacks.problem import Problem
from attacks.progress import Progress, Report, reporter
from attacks.reduced import FramedOracle, frame_of, gridded, refuse_restrictions
from attacks.smoothed_suite import attack_smoothed
from attacks.threat import Threat
from attacks.under_attack import UnderAttack, placed
from certify.answers import warn_of_probabilities
from certify.calls import checked
from certify.contract import check_inputs
from certify.data import gather
from certify.errors import InvalidInput, InvalidSetting
from certify.estimators import class_positions
from certify.wrapping import as_model, reads_one_logit


@checked
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
    with_: Any = None,
    target: Any = None,
) -> AttackRun:
    """Attack every input of ``x`` and judge the result.

    ``x``: (n, *shape), or a loader, data set, list or table as ``certify.data.gather`` reads them.
    ``model``: an nn.Module, callable ``(batch, *shape) -> (batch, classes)`` or scikit-learn estimator, or a
    ``certify.Smoothed`` (preset "smoothed"): then the smoothed classifier is attacked and only a
    flip of *its* class counts. ``y`` (n,): true labels; None takes the classes the model itself
    gives. ``preset``: see ``attacks.PRESETS`` ("autoattack" is "standard", "pgd" is "quick"). ``ids``
    (default 0, 1, ...) name the inputs and key their randomness. ``known`` outcomes (by id) are kept and
    not attacked again; ``on_outcome`` sees each new one once its batch is done, so that an interrupted
    attack can resume.

    ``with_``: an attack of another library in place of the preset, judged like one (see ``attacks.foreign``):
    an object of torchattacks or foolbox, a function ``(model, x, y) -> x_adv`` (adversarial-library; its
    first parameter must be called ``model``) or ``(x, y) -> x_adv``. It gets a batch of correctly classified
    inputs and their labels; outcomes and run name it (``torchattacks.CW``). A base classifier only.

    ``target``: the class that inputs must become (its position), or one for each (n,); only that breaks an
    input, and ``details.wanted`` keeps it. Default: any other class. Preset "all-targets" attacks towards
    every other class; ``details.targets`` maps them to their distances, the outcome is the nearest's.

    Scores of any floating-point precision are followed, weights of any are left as they are: inputs and
    balls are float32 (float64 for float64 weights), the cast to float16 or bfloat16 weights is part of what
    is attacked. The result's ``flags`` count what makes survival worth less: ``square_improved`` (only a
    search without gradients broke them) and ``plateau`` (their scores never moved, as where labels are all
    that a model gives).

    The model is used in eval mode and given back untouched (train flags, gradients, global random
    state), after an exception too. Raises InvalidInput, InvalidSetting, InvalidModel,
    NondeterministicModel.
    """
    preset = preset_named(preset)
    model, given = as_model(model), gather(x, y)
    y = class_positions(model.model if is_smoothed(model) else model, given.y)
    return attack_each(
        model, given.x, y, eps=None, threat=threat, preset=preset, seed=seed, budget=budget,
        progress=progress, ids=given.ids if ids is None else ids, device=device, known=known,
        on_outcome=on_outcome, with_=with_, target=target,
    )  # fmt: skip


def attack_each(
    model: Any, x: Any, y: Any, *, eps: Sequence[float] | None, threat: Threat, preset: str, seed: int,
    budget: Budget | None = None, progress: bool | Report | None = None, ids: Sequence[int] | None = None,
    device: torch.device | str | None = None, known: Mapping[int, AttackOutcome] | None = None,
    on_outcome: Callable[[AttackOutcome], None] | None = None, with_: Any = None, target: Any = None,
) -> AttackRun:  # fmt: skip
    """``attack`` with one size per input: ``eps`` are certified radii and ``y`` the certified classes."""
    smoothed = is_smoothed(model)
    given = gather(x, y)
    x, y, ids = given.x, given.y, given.ids if ids is None else ids
    if with_ is None:
        check_preset(preset, threat, smoothed=smoothed)
    refuse_restrictions(threat, smoothed=smoothed)
    limits = None if threat.ranged else threat.bounds
    budget = budget or Budget()
    device = model.device if smoothed else device
    network = placed(_base_of(model) if smoothed else model, device)
    tool = None if with_ is None else _tool(with_, network, threat, smoothed=smoothed)
    preset = preset if tool is None else tool.name
    with untouched(network), untouched(network if tool is None or tool.holds is None else tool.holds):
        base = UnderAttack(network, device=device)
        inputs, _ = check_inputs(x, None, bounds=limits, num_classes=2)
        first = base.place(inputs[:8])
        classes = base.check(first, classes=model.num_classes if smoothed else None)
        inputs, labels = check_inputs(inputs, y, bounds=limits, num_classes=classes)
        names = _names(ids, len(inputs))
        wanted = _wanted(target, preset, len(inputs), classes, smoothed=smoothed)
        if not smoothed:
            scores = base.check_function(first)
            warn_of_probabilities(scores, single=reads_one_logit(network), stacklevel=4)
        if preset != "black-box" and tool is None:
            base.check_gradients(first[:1], remedy=_no_gradients(smoothed=smoothed))
        found_by_id = {i: o for i, o in (known or {}).items() if i in set(names)}
        todo = [k for k, name in enumerate(names) if name not in found_by_id]
        judge = Judge(base, p=threat.p, box=threat.box, mask=threat.mask, grid=threat.grid,
                      targeted=wanted is not None or preset == ALL)  # fmt: skip
        with reporter(progress, total=len(names), preset=preset) as report:
            for part in _parts(todo, budget.batch_size):
                rows, part_ids = base.place(inputs[part]), [names[k] for k in part]
                rows = model.to_grid(rows) if smoothed else gridded(threat, rows)
                frame = frame_of(threat, rows)
                if tool is not None:  # other libraries search whole inputs; the judge knows the mask
                    frame = None
                truth = (
                    labels[part].to(rows.device) if labels is not None else _own(model, base, rows, part_ids)
                )
                own = [(threat.eps or 0.0) if eps is None else eps[k] for k in part]
                sizes = torch.tensor(own, dtype=torch.float64)
                how = {"seed": seed, "ids": part_ids, "classes": classes, "rows": budget.rows}
                if frame is None:
                    oracle = Oracle(base, len(part))
                    problem = Problem.of(oracle, rows, truth, eps=sizes, p=threat.p, box=threat.box, **how)
                else:
                    problem = Problem.of(
                        FramedOracle(base, frame), frame.movable(rows), truth, eps=sizes, p=threat.p,
                        box=frame.box(threat.box), frame=frame, **how,
                    )  # fmt: skip
                if wanted is not None:
                    problem = aimed(problem, wanted[part].to(rows.device))
                notify = _notifier(report, found_by_id, len(names))
                job = Job(threat, preset, seed, budget, notify, certified=eps is not None)
                if tool is not None:
                    found = attack_foreign(judge, problem, job, tool)
                elif smoothed:
                    found = attack_smoothed(model, problem, job)
                else:
                    found = (attack_all if preset == ALL else attack_base)(judge, problem, job)
                for outcome in found:
                    found_by_id[outcome.index] = outcome
                    if on_outcome is not None:
                        on_outcome(outcome)
    outcomes = [found_by_id[i] for i in names]
    return AttackRun(outcomes, threat, preset, flags=_flags(outcomes, preset))


def is_smoothed(model: Any) -> bool:
    """Whether ``model`` is a smoothed classifier (``certify.Smoothed`` or anything with its interface)."""
    return all(hasattr(model, name) for name in ("predict", "to_grid", "sigma", "num_classes"))


def _tool(with_: Any, network: Any, threat: Threat, *, smoothed: bool) -> Foreign:
    if smoothed:
        raise InvalidSetting(
            "with_ cannot attack a smoothed classifier",
            why="other libraries search one network; what they find there says nothing about its votes",
            remedy='attack the base model with it, or use preset="smoothed"',
        )
    return foreign(with_, network, threat)


def _wanted(target: Any, preset: str, inputs: int, classes: int, *, smoothed: bool) -> Tensor | None:
    if target is not None and (smoothed or preset == ALL):
        raise InvalidSetting(
            f"target cannot be given with preset {preset!r}",
            why="a smoothed classifier is attacked towards any class, all-targets towards every one",
            remedy="leave target out, or attack the base model with another preset",
        )
    return read_target(target, inputs=inputs, classes=classes)


def _flags(outcomes: Sequence[AttackOutcome], preset: str) -> dict[str, int]:
    """Signs that surviving means little.

    ``square_improved``: inputs that a black-box attack broke after all others had failed, as gradients that
    mislead let it. ``plateau``: inputs that survived a search by scores which never saw them change.
    """
    after_others = preset != "black-box"
    return {
        "square_improved": sum(after_others and o.broken and o.by_attack in BLACK_BOX for o in outcomes),
        "plateau": sum(bool(o.details.get("plateau")) for o in outcomes),
    }


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


def _own(model: Any, base: UnderAttack, rows: Tensor, ids: list[int]) -> Tensor:
    """The classes the model itself gives to these inputs; the most voted one for a smoothed classifier."""
    if is_smoothed(model):
        votes = model.predict(rows, n=1000, seed=0, ids=ids)
        return torch.tensor(
            [max(range(len(v.counts)), key=v.counts.__getitem__) for v in votes], device=rows.device
        )
    with torch.no_grad():
        return base.own(rows).argmax(1)


def _base_of(g: Any) -> Any:
    """The network behind a smoothed classifier, on the device it samples on, in full precision.

    One with noise inside is followed without it: what was found is confirmed with all of its noise.
    """
    quiet = getattr(g, "without_noise", None)
    if quiet is not None:
        return quiet
    inner = getattr(g, "classifier", None)
    return inner.model if inner is not None and inner.dtype == "fp32" else g.model


def _no_gradients(*, smoothed: bool) -> str:
    return (
        "convert it to torch (ONNX: onnx2torch.convert)"
        + (", or attack its base model with --base" * smoothed)
        + ', or use preset="black-box", which only asks for scores (--preset black-box --eps 0.5)'
    )


def _names(ids: Sequence[int] | None, n: int) -> list[int]:
    try:
        names = list(range(n)) if ids is None else [operator.index(i) for i in ids]
    except TypeError:
        names = []
    if len(names) != n or len(set(names)) != n or any(i < 0 for i in names):
        raise InvalidInput(
            "the input ids cannot be used",
            why=f"each of the {n} inputs needs its own id >= 0: the id keys its randomness",
            remedy="pass one distinct non-negative integer per input, such as its index in the data set",
        )
    return names
