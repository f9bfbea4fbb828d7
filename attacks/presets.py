"""Named sets of attacks: what exactly an input survived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from attacks.apgd import apgd_ce, apgd_margin, apgd_targeted
from attacks.close_calls import close_calls
from attacks.fab import fab_targeted
from attacks.labels import by_labels
from attacks.losses import cross_entropy
from attacks.minimal import deepened, minimal
from attacks.pgd import pgd
from attacks.problem import Problem
from attacks.square import coordinate, square
from attacks.threat import Threat
from certify.errors import InvalidSetting

#: What each preset does, in one line; also the names ``attack`` accepts.
PRESETS = {
    "quick": "PGD-20 and APGD-CE-20: a smoke test, not evidence",
    "standard": "AutoAttack's four at official strength (APGD-CE-100, APGD-T-100, FAB-T-100, Square-5000), "
    "with more starts where the margin nearly vanished (l1, linf), a search for the nearest point (l1, l2)",
    "thorough": "standard, then five restarts of APGD, the margin loss and the minimal attack at full length",
    "minimal": "the smallest perturbation: DDN, FAB-T, a walk along the boundary, bisection",
    "black-box": "Square (random coordinates for inputs other than images), 5000 queries: needs no gradient; "
    "where scores never moved, 10000 labels: rays (linf), or a walk along the boundary (l1, l2)",
    "all-targets": "minimal (with eps: standard) towards every other class, the distance to each kept",
    "smoothed": "PGD on the mean softmax, confirmed with fresh noise: for smoothed classifiers",
}

#: Names that people use for a preset.
ALIASES = {"autoattack": "standard", "aa": "standard", "pgd": "quick", "square": "black-box"}

#: Attacks that use no gradient, run after those that do: what they break first hints at masked gradients.
BLACK_BOX = ("square-5000", "coordinate-5000")


@dataclass(frozen=True)
class Stage:
    """One attack of a preset: rows in, candidates of the same shape out."""

    name: str
    run: Callable[[Problem], Tensor]


def stages(preset: str, problem: Problem) -> tuple[Stage, ...]:
    """The attacks of a preset with a fixed eps, in the order in which they run."""
    if preset == "quick":
        return (
            Stage("pgd-20", lambda q: pgd(q, loss=cross_entropy, steps=20)),
            Stage("apgd-ce-20", lambda q: apgd_ce(q, steps=20)),
        )
    search = Stage("square-5000", square) if problem.image else Stage("coordinate-5000", coordinate)
    if preset == "black-box":
        return search, Stage("labels-10000", by_labels)
    official = (
        # In l1 the official attack restarts five times and aims at five classes.
        Stage("apgd-ce-100", lambda q: apgd_ce(q, steps=100, restarts=5 if q.p == 1 else 1)),
        Stage("apgd-t-100", lambda q: apgd_targeted(q, steps=100, targets=5 if q.p == 1 else 9)),
        Stage("fab-t-100", lambda q: fab_targeted(q, steps=100)),
    )
    if preset == "standard":
        return (*official, *_second_look(problem.p, search))
    return (
        *official,
        Stage("apgd-ce-100x5", lambda q: apgd_ce(q, restarts=5, purpose="apgd-ce-again")),
        Stage("apgd-margin-100x5", lambda q: apgd_margin(q, restarts=5)),
        Stage("apgd-t-100x5", lambda q: apgd_targeted(q, restarts=5, purpose="apgd-t-again")),
        search,
        Stage("close-calls", close_calls),
        Stage("minimal", lambda q: minimal(q)[0]),
    )


def _second_look(p: float, search: Stage) -> tuple[Stage, ...]:
    """Square, and what finds most of the inputs that a second run of the official four would find.

    A few inputs per hundred break for some random starts only. In linf many short climbs on inputs
    that came close to breaking catch them, in l2 a search for the nearest point, in l1 the two.
    Square goes first, before more random points are tried: what it breaks hints at masked gradients.
    """
    nearest = Stage("nearest", lambda q: deepened(q, minimal(q, starts=2, targets=3)[0]))
    climbs = Stage("close-calls", close_calls)
    return search, *{1.0: (nearest, climbs), 2.0: (nearest,)}.get(p, (climbs,))


def preset_named(name: str) -> str:
    """The preset that ``name`` means: its own name, or one of ``ALIASES``, in any case."""
    return ALIASES.get(name.strip().lower().replace("_", "-"), name)


def check_preset(preset: str, threat: Threat, *, smoothed: bool) -> None:
    """Raise InvalidSetting unless preset, threat and kind of model go together."""
    if preset not in PRESETS:
        raise InvalidSetting(
            f"preset {preset!r} is unknown",
            why=f"the presets are {', '.join(PRESETS)}",
            remedy='use preset="standard", or preset="smoothed" for a smoothed classifier',
        )
    if smoothed != (preset == "smoothed"):
        what = "a smoothed classifier" if smoothed else "a base classifier"
        raise InvalidSetting(
            f"preset {preset!r} does not attack {what}",
            why="a flip of the base classifier says nothing about its smoothed version, and the reverse",
            remedy='use preset="smoothed" with certify.Smoothed, any other preset with the model itself',
        )
    if threat.eps is None and preset not in ("minimal", "all-targets", "smoothed"):
        raise InvalidSetting(
            f"preset {preset!r} needs a perturbation size",
            why="it searches inside a ball; only minimal, all-targets and smoothed look for the smallest",
            remedy='give Threat(norm, eps=...), or use preset="minimal"',
        )
    if threat.eps is not None and preset == "minimal":
        raise InvalidSetting(
            "preset 'minimal' takes no perturbation size",
            why="it looks for the smallest perturbation that changes the class",
            remedy='leave eps out, or use preset="standard" for a fixed eps',
        )


def minimal_stages(problem: Problem) -> tuple[Tensor, list[str]]:
    """The preset without a fixed eps: nearest points found, and the attack each came from."""
    return minimal(problem)
