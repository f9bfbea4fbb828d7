"""Do a run's settings and its guarantee speak of one and the same certificate?

Level 2 trusts no number because it is written down: sigma, the dimension, alpha and the noise's own
error are each stored more than once, or follow from each other, and must agree. From the guarantee
its probability, sigma and norm are read; the rest of that paragraph is prose that nothing checks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from statistics import NormalDist
from typing import Any

from certify.records import Record, Status
from certify.verification.ball import effective
from certify.verification.rivals import share_faults

#: Agreement asked of two ways to write the same number.
CLOSE = 1e-9

#: Below this no certificate is made: the bounds could not be computed at their level.
_SMALLEST_ALPHA = 1e-250

_CHANCE = re.compile(r"with probability at least (1 - \S+?|\S+?)[,.;:]?(?=\s|$)", re.IGNORECASE)
_WRONG = re.compile(r"wrong certificate is at most (\S+?)[,.;:]?(?=\s|$)", re.IGNORECASE)
_SIGMA = re.compile(r"\(sigma = ([^,)\s]+)")
_NORM = re.compile(r"within the certified l(\S+) distance")
_GAUSSIAN = ("lattice", "gaussian", "internal")


def settings_faults(settings: Mapping[str, Any], guarantee: str) -> Iterator[str]:
    """What contradicts itself, or no run can have been made with. May raise where types are wrong."""
    options, alpha = settings["mode_options"], settings["alpha"]
    if options["alpha"] != alpha:
        yield f"the procedure ran at alpha = {options['alpha']}, the run says {alpha}"
    if not _SMALLEST_ALPHA <= float(alpha) < 0.5:
        yield f"alpha is {alpha}, which is not between {_SMALLEST_ALPHA:g} and 1/2"
    if not int(settings["num_classes"]) >= 2:
        yield f"{settings['num_classes']} classes cannot be told apart"
    shape = [int(size) for size in settings["input_shape"]]
    if settings["dim"] != math.prod(shape) or min(shape, default=0) < 1:
        yield f"dim is {settings['dim']}, inputs of shape {shape} have {math.prod(shape)} coordinates"
    if fault := share_faults(settings):
        yield fault
    yield from _noise_faults(settings)
    tv, least = float(options.get("tv", 0.0)), _least_tv(settings)
    if not least <= tv < 0.5:
        yield f"the noise's own error is given as {tv:g}; for this noise it is {least:.4g} or more, below 1/2"
    if settings.get("scores") == "distribution":
        if _name(settings) not in _GAUSSIAN or float(settings.get("norm", "2")) != 2:
            yield "the score-distribution radius exists for Gaussian noise in the l2 norm only"
        if options["sigma"] != settings["sigma"]:
            yield f"the procedure ran with sigma = {options['sigma']}, the run says {settings['sigma']}"
    yield from _guarantee_faults(settings, guarantee)


def record_fault(record: Record, settings: Mapping[str, Any]) -> str | None:
    """What no record may hold, whatever its procedure; None where there is nothing of the kind."""
    chances = (record.p_lower, record.p_upper, record.pb_lower, record.pb_upper)
    if not all(0.0 <= p <= 1.0 for p in chances):
        return f"{chances} are not probabilities"
    if not (math.isfinite(record.radius) and record.radius >= 0 and record.radius_upper >= 0):
        return f"{record.radius} and {record.radius_upper} are not radii"
    if any(k < 0 for k in record.counts):
        return "a count is negative"
    if not record.certified:
        idle = record.label is None and record.radius == 0.0
        idle = idle and (record.status is not Status.FAILED or record.p_lower == 0.0)
        return None if idle else f"{record.status}, and yet it claims {record.label}, {record.radius:.9g}"
    if record.label is None or not 0 <= record.label < int(settings["num_classes"]):
        return f"the certified class {record.label} is not among the {settings['num_classes']} classes"
    return None


def trials(record: Record, settings: Mapping[str, Any]) -> int:
    """Samples behind the record's counts (votes for no class included)."""
    return int(settings["mode_options"]["n"]) if settings["mode"] == "fixed" else record.samples


def _name(settings: Mapping[str, Any]) -> Any:
    noise = settings.get("noise")
    return noise.get("name") if isinstance(noise, Mapping) else noise


def _noise_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    """Name, sigma, grid and the law's own scale, against the settings that the noise was drawn with."""
    name, law, sigma = _name(settings), settings["noise_settings"], float(settings["sigma"])
    if not (math.isfinite(sigma) and sigma > 0):
        yield f"sigma is {sigma}"
        return
    drawn = effective(law) if name == "internal" else _smallest(law["sigma"])
    if not abs(drawn - sigma) <= CLOSE * sigma:
        yield f"sigma is {sigma:.9g}, the noise was drawn with {drawn:.9g}"
    if name != "internal" and law.get("name") != name:
        yield f"the noise is called {name!r}, and {law.get('name')!r} in its own settings"
    for key, scale in (("half_width", math.sqrt(3) * sigma), ("scale", sigma / math.sqrt(2))):
        if key in law and not abs(law[key] - scale) <= CLOSE * scale:
            yield f"the noise's {key} is {law[key]:.9g}, sigma = {sigma:.9g} gives {scale:.9g}"
    if name == "lattice":
        step = float(Fraction(law["step"]))
        if not (step > 0 and abs(float(settings["grid"]) - step) <= 1e-6 * step):
            yield f"the grid's step is {settings['grid']}, the noise was drawn in steps of {law['step']}"


def _smallest(sigma: Any) -> float:
    """The smallest entry of a number or of nested lists; nan where one of them is no positive number."""
    values, parts = [], [sigma]
    while parts:
        part = parts.pop()
        if isinstance(part, list | tuple):
            parts += part
        else:
            values.append(float(part))
    return min(values) if values and all(0 < v < math.inf for v in values) else math.nan


def _least_tv(settings: Mapping[str, Any]) -> float:
    """A floor under the noise's total variation error: 0, and for lattice noise most of its bound.

    Integer noise compares 64 random bits with two thresholds for every half step within reach of
    2**-65 tails. Each may be off by 2**-65, in every coordinate. The outermost pair is left out,
    and so is the chance (below 2**-52) that a sample's spare words run out.
    """
    if _name(settings) != "lattice":
        return 0.0
    steps = float(settings["sigma"]) / float(Fraction(settings["noise_settings"]["step"]))
    pairs = math.ceil(-NormalDist().inv_cdf(2.0**-65) * steps - 0.5)
    return int(settings["dim"]) * 2 * max(pairs - 1, 0) * 2.0**-65


def _guarantee_faults(settings: Mapping[str, Any], guarantee: str) -> Iterator[str]:
    """Numbers are printed to six digits: equal as printed, or claiming less, is right."""
    alpha = float(settings["alpha"])
    promised = _CHANCE.findall(guarantee)
    if not promised:
        yield "the guarantee does not say with probability at least what it holds"
    for said in promised:
        if not _allows_for(said, alpha):
            yield f"the guarantee promises probability {said}, alpha = {alpha:g} gives {1 - alpha:g}"
    if "transfer" in settings:
        total = alpha + float(settings["transfer"]["alpha"])
        stated = _WRONG.findall(guarantee)
        if not stated or any(s != f"{total:g}" and not total <= _number(s) <= 1.0 for s in stated):
            yield f"the guarantee must allow for errors of {total:g} in all, it says {stated or 'nothing'}"
    for said in _SIGMA.findall(guarantee):
        if said != f"{float(settings['sigma']):g}":
            yield f"the guarantee speaks of sigma = {said}, the run of {settings['sigma']}"
    for said in _NORM.findall(guarantee):
        if said != str(settings.get("norm", "2")):
            yield f"the guarantee speaks of l{said} distance, the run of norm {settings.get('norm', '2')}"


def _allows_for(said: str, alpha: float) -> bool:
    """Whether "0.999", or "1 - 1e-25", promises no more than 1 - alpha."""
    left, _, missing = said.partition(" - ")
    if missing:
        return left == "1" and alpha <= _number(missing) <= 1.0
    return said == f"{1 - alpha:g}" != "1" or 0.0 <= _number(said) <= 1 - alpha


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
