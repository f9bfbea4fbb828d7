"""Radii that hold for all inputs of a run together, beside the per-input ones.

Per input a certificate is wrong with probability <= alpha; m of them hold jointly only with
probability >= 1 - m alpha. By Bonferroni, bounds at level alpha / m hold jointly at level alpha.
They need no new samples: a sequential bound at alpha / m is valid whenever sampling ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from certify.bounds import binomial_lower
from certify.dense.run import refuse_segmentation
from certify.errors import InvalidSetting
from certify.geometry import Geometry
from certify.procedures.nested_modes import Grid, Radius
from certify.records import Record, Run


def simultaneous(run: Run, *, inputs: int | None = None) -> list[float]:
    """Radii, in record order, that are all right with probability >= 1 - alpha together.

    ``inputs``: how many inputs the run set out to certify (default: as many as it has). Modes
    radius, grid and fixed on votes, whose counts were kept. 0 where nothing holds at that level.
    Raises InvalidSetting for a run of another kind.
    """
    settings = run.settings
    refuse_segmentation(
        settings, "there are no radii for all inputs together",
        "its pixels already hold together; for all images too, certify with alpha divided by their number",
    )  # fmt: skip
    m = len(run) if inputs is None else inputs
    if m < len(run):
        raise InvalidSetting(
            f"inputs = {m} is fewer than the run's {len(run)}",
            why="the error probability is shared by every input that was certified",
            remedy="leave inputs out, or give the number of the whole run",
        )
    if settings["mode"] not in ("radius", "grid", "fixed") or settings["scores"] != "votes":
        raise InvalidSetting(
            f"a run in mode {settings['mode']} with {settings['scores']} has no simultaneous radii",
            why="its bounds cannot be taken again at another level",
            remedy="certify in mode radius, grid or fixed; or run decide with --alpha divided by the inputs",
        )
    if "transfer" in settings:
        raise InvalidSetting(
            "a transferred run has no simultaneous radii",
            why="the bound on label flips holds per input too, and would have to be taken again",
            remedy="take those of the run itself, or transfer with alpha divided by the inputs",
        )
    geometry = geometry_of(settings)
    alpha = settings["alpha"] / max(1, m)
    options = settings["mode_options"]
    if settings["mode"] == "fixed":
        return [_fixed(r, options, alpha, geometry) if r.certified else 0.0 for r in run]
    plan = _plan(options, alpha)
    return [_nested(r, plan, geometry) if plan and r.certified else 0.0 for r in run]


def geometry_of(settings: dict[str, Any]) -> Geometry:
    """The geometry a run's radii were computed in, from its settings."""
    import numpy as np

    from certify.geometry import make_geometry
    from certify.noise import make_noise

    sigma = settings["noise_settings"].get("sigma", settings["sigma"])
    noise = make_noise(
        settings["noise"], sigma=np.asarray(sigma) if isinstance(sigma, list) else sigma,
        grid=settings["grid"], bounds=settings["bounds"],
    )  # fmt: skip
    return make_geometry(noise, norm=settings["norm"], dim=settings["dim"])


def _fixed(record: Record, options: dict[str, Any], alpha: float, geometry: Geometry) -> float:
    p = binomial_lower(record.counts[record.label or 0], int(options["n"]), alpha) - options["tv"]
    return min(record.radius, geometry.radius(p))


def _nested(record: Record, plan: Grid | Radius, geometry: Geometry) -> float:
    looks = plan.tests.looks
    # The last look alone: a smaller set of events than "some look", so the bound stays valid.
    last = int(record.details["look"])
    if int(looks[last]) != record.samples:
        return 0.0
    label = record.label or 0
    second = max((k for c, k in enumerate(record.counts) if c != label), default=0)
    best = plan.tests.reached(last, record.counts[label], second)
    if best == 0:
        return 0.0
    p_lower, radius = plan.proved(best)
    return min(record.radius, geometry.radius(p_lower) if radius is None else radius)


def _plan(options: dict[str, Any], alpha: float) -> Grid | Radius | None:
    """The run's plan at another level; None where n_max unanimous votes prove nothing at it."""
    names = {"radii", "p_targets", "n_max", "slack", "first", "growth", "gamma", "tv"}
    known = {k: _tuple(v) for k, v in options.items() if k in names}
    try:
        return Grid(**known, alpha=alpha) if "radii" in known else Radius(**known, alpha=alpha)
    except InvalidSetting:
        return None  # the same options made the run: only the level is out of reach


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def joint_level(alpha: float, m: int) -> float:
    """Probability with which m independent per-input certificates are all right: (1 - alpha)^m."""
    return math.exp(m * math.log1p(-alpha))
