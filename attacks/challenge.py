"""Attack inside every certified ball: a certificate that is right cannot lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from attacks.budget import Budget
from attacks.outcomes import AttackOutcome, AttackRun, AttackStatus
from attacks.progress import Report
from attacks.suite import attack_each
from attacks.threat import Threat
from certify.calls import checked
from certify.data import gather
from certify.errors import InvalidInput
from certify.records import Record, Run

#: What the outcomes of a challenge give as their preset.
NAME = "challenge"


@checked
def challenge(
    g: Any,
    run: Run,
    x: Any,
    *,
    ids: Sequence[int] | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    progress: bool | Report | None = None,
    known: Mapping[int, AttackOutcome] | None = None,
    on_outcome: Callable[[AttackOutcome], None] | None = None,
) -> AttackRun:
    """Try to make the smoothed classifier ``g`` leave the certified class inside each certified ball.

    ``x`` (n, *shape) are the inputs that ``run`` certified, ``ids`` (default 0, 1, ...) their ids.
    Every certified record with a positive radius is attacked: label = the certified class, eps =
    its radius, norm = the run's. The outcomes' ``target`` is the certified class, their ``preset``
    "challenge". A hit is
    confirmed with fresh noise, and each is wrong with probability at most ``budget.alpha``;
    ``run.contradictions(...)`` of the result must be empty. Raises InvalidInput when an input of
    the run is missing, or nothing was certified.
    """
    notify = None if on_outcome is None else (lambda o: on_outcome(_told(o)))
    given = gather(x)
    x, ids = given.x, given.ids if ids is None else ids
    names = list(range(len(x))) if ids is None else [int(i) for i in ids]
    place = {name: k for k, name in enumerate(names)}
    claims = [r for r in run if r.certified and r.radius > 0]
    _check(claims, place)
    rows = [place[r.index] for r in claims]
    threat = Threat(str(run.settings.get("norm", "2")), eps=max(r.radius for r in claims), bounds=g.bounds)
    outcomes = attack_each(
        g, torch.as_tensor(x)[rows], torch.tensor([r.label for r in claims]),
        eps=[r.radius for r in claims], threat=threat, preset="smoothed", seed=seed, budget=budget,
        progress=progress, ids=[r.index for r in claims], known=known, on_outcome=notify,
    )  # fmt: skip
    return AttackRun([_told(o) for o in outcomes], threat, NAME)


def _told(outcome: AttackOutcome) -> AttackOutcome:
    """The outcome under the challenge's own name.

    A certified class that the prediction test contradicts at the input is a hit at distance 0.
    """
    outcome = dataclasses.replace(outcome, preset=NAME)
    label = outcome.details.get("label")
    if outcome.status is not AttackStatus.CLEAN_ERROR or label is None:
        return outcome
    return dataclasses.replace(
        outcome, status=AttackStatus.BROKEN, distance=0.0, distance_l2=0.0, distance_linf=0.0,
        prediction=label, by_attack="the input itself", in_ball=True, in_box=True,
    )  # fmt: skip


def _check(claims: list[Record], place: Mapping[int, int]) -> None:
    missing = [r.index for r in claims if r.index not in place]
    if missing:
        raise InvalidInput(
            f"input {missing[0]} of the run is not among the inputs given",
            why=f"{len(missing)} certified records have no input to attack",
            remedy="pass the inputs that the run certified, and their ids",
        )
    if not claims:
        raise InvalidInput(
            "there is nothing to challenge",
            why="the run holds no certified record with a positive radius",
            remedy="certify inputs first",
        )
