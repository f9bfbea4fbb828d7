"""Radii that hold for all inputs of a run together, beside the per-input ones.

Per input a certificate is wrong with probability <= alpha; m of them hold jointly only with
probability >= 1 - m alpha. By Bonferroni, bounds at level alpha / m hold jointly at level alpha.
They need no new samples: a sequential bound at alpha / m is valid whenever sampling ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from certify.bounds import binomial_lower, check_alpha
from certify.calls import checked
from certify.dense.run import refuse_segmentation
from certify.errors import CorruptRun, InvalidSetting
from certify.geometry import Geometry
from certify.population.statements import refuse_population
from certify.procedures.nested_modes import Grid, Radius
from certify.procedures.sided import Standing, both
from certify.records import Record, Run
from certify.runner_up import OPTION, leader_lower, rival_votes, rivals_upper, share_of
from certify.store.typed import need

#: Modes whose bounds can be taken again at another level, and the options that this needs.
_NEEDED = {"radius": ("n_max", "tv"), "grid": ("radii", "p_targets", "n_max", "tv"), "fixed": ("n", "tv")}


@checked
def simultaneous(run: Run, *, inputs: int | None = None) -> list[float]:
    """Radii, in record order, that are all right with probability >= 1 - alpha together.

    ``inputs``: how many inputs the run set out to certify (default: as many as it has). Modes
    radius, grid and fixed on votes, whose counts were kept. 0 where nothing holds at that level.
    Raises InvalidSetting for a run of another kind, and where alpha / inputs is below 1e-250.
    Raises CorruptRun where a record has not the counts that its mode keeps.
    """
    settings = run.settings
    refuse_segmentation(
        settings, "there are no radii for all inputs together",
        "its pixels already hold together; for all images too, certify with alpha divided by their number",
    )  # fmt: skip
    refuse_population(settings, "there are no radii for all inputs together")
    m = len(run) if inputs is None else inputs
    if m < len(run):
        raise InvalidSetting(
            f"inputs = {m} is fewer than the run's {len(run)}",
            why="the error probability is shared by every input that was certified",
            remedy="leave inputs out, or give the number of the whole run",
        )
    mode, scores = settings["mode"], settings.get("scores", "votes")
    if mode not in _NEEDED or scores != "votes":
        raise InvalidSetting(
            f"a run in mode {mode} with {scores} has no simultaneous radii",
            why="its bounds cannot be taken again at another level",
            remedy="certify in mode radius, grid or fixed; or run decide with --alpha divided by the inputs",
        )
    if "transfer" in settings:
        raise InvalidSetting(
            "a transferred run has no simultaneous radii",
            why="the bound on label flips holds per input too, and would have to be taken again",
            remedy="take those of the run itself, or transfer with alpha divided by the inputs",
        )
    need(settings, ("noise", "noise_settings", "norm", "dim", "mode_options"), "the run")
    need(settings["mode_options"], _NEEDED[mode], "the run's procedure")
    if lost := [r.index for r in run if r.certified and not 0 <= (r.label or 0) < len(r.counts)]:
        raise CorruptRun(
            f"the record of input {lost[0]} has no votes for the class that it certifies",
            why="simultaneous radii are taken again from the votes",
            remedy="run `certify verify` on the run's directory",
        )
    geometry = geometry_of(settings)
    alpha = check_alpha(settings["alpha"], shares=max(1, m)) / max(1, m)
    if share := share_of(settings):
        check_alpha(alpha * share, name="the runner-up's part of alpha")
    options = settings["mode_options"]
    if mode == "fixed":
        return [_fixed(r, options, alpha, geometry) if r.certified else 0.0 for r in run]
    plan = _plan(options, alpha, classes=settings.get("num_classes", 2), geometry=geometry)
    return [_nested(r, plan, geometry) if plan and r.certified else 0.0 for r in run]


def geometry_of(settings: dict[str, Any]) -> Geometry:
    """The geometry a run's radii were computed in, from its settings."""
    from certify.geometry import make_geometry
    from certify.noise import make_noise

    if settings["noise"] == "internal":
        from certify.inside.internal_noise import InternalNoise, NoiseStage

        law = settings["noise_settings"]
        stages = zip(*(law.get(name, ()) for name in ("scales", "lipschitz", "sizes")), strict=False)
        inside = InternalNoise(tuple(NoiseStage(*stage) for stage in stages))
        return make_geometry(inside, norm=settings["norm"], dim=settings["dim"])
    sigma = settings["noise_settings"].get("sigma", settings["sigma"])
    noise = make_noise(
        settings["noise"], sigma=np.asarray(sigma) if isinstance(sigma, list) else sigma,
        grid=settings.get("grid"), bounds=settings.get("bounds"),
    )  # fmt: skip
    return make_geometry(noise, norm=settings["norm"], dim=settings["dim"])


def _fixed(record: Record, options: dict[str, Any], alpha: float, geometry: Geometry) -> float:
    share, label = options.get(OPTION, 0.0), record.label or 0
    if share:
        n, how = int(options["n"]), {"alpha": alpha, "share": share, "tv": options["tv"]}
        rivals = rival_votes(np.array(record.counts), n, label)
        bounds = leader_lower(record.counts[label], n, **how), rivals_upper(rivals, n, **how)
        return min(record.radius, geometry.between(*bounds))
    p = binomial_lower(record.counts[record.label or 0], int(options["n"]), alpha) - options["tv"]
    return min(record.radius, geometry.radius(p))


def _nested(record: Record, plan: Grid | Radius, geometry: Geometry) -> float:
    # The last look alone: a smaller set of events than "some look", so the bound stays valid. Which look it
    # was is the plan's to say, not the record's.
    looks = plan.tests.looks.tolist()
    if record.samples not in looks:
        return 0.0
    last = looks.index(record.samples)
    label = record.label or 0
    second = max((k for c, k in enumerate(record.counts) if c != label), default=0)
    best = plan.tests.reached(last, record.counts[label], second)
    if plan.runner_up:
        now = Standing.of(np.array(record.counts), record.samples, label)
        bounds = both(plan, last, now, best)
        if isinstance(plan, Radius):
            return min(record.radius, geometry.between(*bounds))
        proved = plan.by_both(bounds, best)
        return min(record.radius, plan.radii[proved - 1]) if proved else 0.0
    if best == 0:
        return 0.0
    p_lower, radius = plan.proved(best)
    return min(record.radius, geometry.radius(p_lower) if radius is None else radius)


def _plan(options: dict[str, Any], alpha: float, *, classes: int, geometry: Geometry) -> Grid | Radius | None:
    """The run's plan at another level; None where n_max unanimous votes prove nothing at it."""
    names = {"radii", "p_targets", "n_max", "slack", "first", "growth", "gamma", "tv", OPTION}
    known: dict[str, Any] = {k: _tuple(v) for k, v in options.items() if k in names}
    known["classes"] = classes
    try:
        if "radii" not in known:
            return Radius(**known, alpha=alpha)
        return Grid(**known, alpha=alpha, between=geometry.between if known.get(OPTION) else None)
    except InvalidSetting:
        return None  # the same options made the run: only the level is out of reach


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def joint_level(alpha: float, m: int) -> float:
    """With at least this probability m independent per-input certificates are all right: (1 - alpha)^m."""
    return math.exp(m * math.log1p(-alpha))
