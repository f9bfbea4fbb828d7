"""Level 2 and 3 for segmentation: every pixel's claim again, from the stored votes.

The maps are read as arrays and judged by ``certify.verification.independent``: binomial tails summed
term by term, the normal law of the standard library. Holm's step-down procedure and Bonferroni's
bounds are written out a second time.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from certify.errors import CertifyError
from certify.records import Record, Status
from certify.store.read import StoredRun
from certify.verification.ball import reach_of
from certify.verification.independent import lower_bound, tail_at_least, tail_at_most, upper_bound
from certify.verification.replay import FALSE_ALARM

#: Agreement asked of two ways to compute the same number.
CLOSE = 1e-9
#: Value of a pixel without a true class, in the map of true classes.
_NONE = -100
_KINDS = {"selected": "<u2", "votes": "<u4", "certified": "|u1", "radius": "<f8", "plain": "<i4"}

#: What a guarantee says of the pixels that may be wrong.
_BUT = re.compile(r"all of them together but at most ([0-9.]{1,30}) % of the image's pixels")

Found = tuple[str, bool, str]


def dense_checks(stored: StoredRun) -> Iterator[Found]:
    """(check, ok, detail) for the terms, maps, claims and summaries of a segmentation run."""
    yield _first("terms", _terms_faults(stored.settings, stored.guarantee))
    faults: dict[str, list[str]] = {"maps": [], "pixels": [], "summaries": []}
    pixels = 0
    for record in stored.run:
        for name, fault in _record_faults(stored, record):
            faults[name].append(f"image {record.index}: {fault}")
        pixels += int(record.details.get("pixels", 0)) if record.status is not Status.FAILED else 0
    yield _first("maps", faults["maps"], "every record vouches for the maps that are there")
    yield _first("pixels", faults["pixels"], f"{pixels} pixels, their claims follow from their votes")
    yield _first("summaries", faults["summaries"], "every record says what its maps say")


def dense_consistent(stored: StoredRun, records: Sequence[Record], fresh: Mapping[int, Any]) -> str | None:
    """The first disagreement between stored and fresh votes of certified pixels, or None.

    ``fresh``: per image (votes (classes, height, width), samples). Every certified pixel of every
    image is tested, at a level shared by all pixels, as any of them might have been certified: an
    honest run fails with probability at most ``FALSE_ALARM`` in all.
    """
    n = int(stored.settings["mode_options"]["n"])
    for record in records:
        if record.index not in fresh:
            return f"image {record.index} was not sampled again"
        maps = stored.arrays(f"pixels-{record.index}") or {}
        counts, total = fresh[record.index]
        mask = maps["certified"].astype(bool)
        chosen = np.take_along_axis(np.asarray(counts), maps["selected"].astype(np.int64)[None], 0)[0]
        share = FALSE_ALARM / len(records) / 4 / mask.size
        pairs = np.unique(np.stack([maps["votes"][mask], chosen[mask]], axis=1), axis=0)
        stored_votes = np.unique(pairs[:, 0]).astype(int).tolist()
        ends = {k: (lower_bound(k, n, share), upper_bound(k, n, share)) for k in stored_votes}
        for k, m in pairs.astype(int).tolist():
            low, high = ends[k]
            if tail_at_most(m, total, low) < share or tail_at_least(m, total, high) < share:
                row, column = (int(i[0]) for i in np.nonzero(mask & (maps["votes"] == k) & (chosen == m)))
                return (
                    f"image {record.index}, pixel ({row}, {column}): its class had {k} of {n} votes, with "
                    f"fresh noise {m} of {total}; an honest run shows such a difference with probability "
                    f"below {FALSE_ALARM:.1g}"
                )
    return None


def _terms_faults(settings: Mapping[str, Any], guarantee: str) -> Iterator[str]:
    """What no segmentation run can have been made with, or its guarantee does not say."""
    options, shape = settings["mode_options"], settings["input_shape"]
    if settings.get("mode") != "fixed" or settings.get("scores", "votes") != "votes":
        yield f"mode {settings.get('mode')!r} with {settings.get('scores')!r} scores certifies no pixels"
    if len(shape) != 3:
        yield f"inputs of shape {list(shape)} have no pixels"
    if int(options["n0"]) < 1 or int(options["n"]) < 1:
        yield f"{options['n0']} and {options['n']} samples test nothing"
    tolerate = float(options.get("tolerate", 0.0))
    if not 0.0 <= tolerate <= 0.5:
        yield f"a share of {tolerate} wrong pixels is none that a run can allow for"
    said = [Decimal(share) / 100 for share in _BUT.findall(guarantee)]
    if said != ([Decimal(repr(tolerate))] if tolerate else []):
        allowed = ", ".join(map(str, said)) or "none"
        yield f"the guarantee allows for a share of {allowed} wrong pixels, the tests for {tolerate}"
    reach = reach_of(settings)
    if reach is None:
        yield f"no theorem is known for {settings.get('noise')!r} noise in norm {settings.get('norm')!r}"
    elif options.get("correction") == "holm":
        radius, threshold = float(options["radius"]), float(options["threshold"])
        if not (0.5 < threshold < 1.0 and 0.0 <= radius <= reach(threshold) * (1 + 1e-11) + 1e-11):
            yield f"class probability {threshold:.9g} does not prove radius {radius:.9g}"
    elif options.get("correction") != "bonferroni":
        yield f"there is no correction {options.get('correction')!r}"


def _record_faults(stored: StoredRun, record: Record) -> Iterator[tuple[str, str]]:
    if record.status is Status.FAILED:
        if record.radius or record.p_lower or record.label is not None:
            yield "summaries", "it failed, and yet it claims something"
        return
    try:
        maps = stored.arrays(f"pixels-{record.index}")
    except CertifyError as error:
        yield "maps", error.why
        return
    fault = _maps_fault(maps, record, stored.settings)
    if maps is None or fault:
        yield "maps", fault or "it has none"
        return
    lower, certified = _proved(maps["votes"], stored.settings)
    if (found := _claims_fault(maps, certified, lower, stored.settings)) is not None:
        yield "pixels", found
    if (found := _summary_fault(maps, lower, record, stored.settings)) is not None:
        yield "summaries", found


def _maps_fault(
    maps: Mapping[str, np.ndarray] | None, record: Record, settings: Mapping[str, Any]
) -> str | None:
    if maps is None:
        return "it has none"
    sha = hashlib.sha256()
    for name in sorted(maps):
        value = np.ascontiguousarray(maps[name])
        sha.update(f"{name} {value.dtype.str} {value.shape}\n".encode() + value.tobytes())
    if sha.hexdigest() != record.details.get("maps"):
        return "its maps are not the ones that its record vouches for"
    size = tuple(settings["input_shape"][1:])
    kinds = _KINDS | ({"target": "<i4"} if "target" in maps else {})
    for name, kind in kinds.items():
        if name not in maps or maps[name].dtype.str != kind or maps[name].shape != size:
            return f"its map {name} is missing or of another shape or type"
    classes = int(settings["num_classes"])
    if int(maps["selected"].max()) >= classes:
        return f"class {int(maps['selected'].max())} is not among the {classes} classes"
    if int(maps["votes"].max()) > int(settings["mode_options"]["n"]):
        return f"{int(maps['votes'].max())} votes are more than the samples that were drawn"
    if not set(np.unique(maps["certified"]).tolist()) <= {0, 1}:
        return "its map of certified pixels holds other values than 0 and 1"
    if "target" in maps:
        known = maps["target"][maps["target"] != _NONE]
        if known.size and (int(known.min()) < 0 or int(known.max()) >= classes):
            return "its map of true classes holds classes that do not exist"
    return None


def _proved(votes: np.ndarray, settings: Mapping[str, Any]) -> tuple[dict[int, float], dict[int, bool]]:
    """By number of votes: the class probability that is proved, and whether the pixel is certified.

    A number whose test is a tie to nine digits is left out of the second: either claim is right.
    """
    options = settings["mode_options"]
    n, alpha, tv = int(options["n"]), float(options["alpha"]), float(options["tv"])
    found, pixels = np.unique(votes, return_counts=True)
    counts = dict(zip(found.astype(int).tolist(), pixels.tolist(), strict=True))
    may = 1 + int(Decimal(repr(float(options.get("tolerate", 0.0)))) * votes.size)
    if options["correction"] == "bonferroni":
        level = may * alpha / votes.size
        # Half of the votes or fewer prove nothing.
        lower = {k: max(0.0, _lower(k, n, level) - tv) if 2 * k > n else 0.0 for k in counts}
        return lower, {k: p > 0.5 for k, p in lower.items() if abs(p - 0.5) > CLOSE}
    threshold, before, going = float(options["threshold"]), 0, True
    certified: dict[int, bool] = {}
    for k in sorted(counts, reverse=True):
        level = alpha * may / (votes.size + may - max(before + 1, may))
        p = tail_at_least(k, n, threshold + tv) if going else 1.0
        passes = p <= level
        if not going or abs(p - level) > CLOSE * level:
            certified[k] = going and passes
        going, before = going and passes, before + counts[k]
    return {k: threshold if certified.get(k, True) else 0.0 for k in counts}, certified


def _claims_fault(
    maps: Mapping[str, np.ndarray], certified: Mapping[int, bool], lower: Mapping[int, float],
    settings: Mapping[str, Any],
) -> str | None:  # fmt: skip
    """Whether every pixel claims exactly what its votes prove."""
    reach, options = reach_of(settings), settings["mode_options"]
    if reach is None:
        return "no radius can be worked out for this noise and norm"
    for k in np.unique(maps["votes"]).astype(int).tolist():
        here = maps["votes"] == k
        claims, radii = maps["certified"][here], maps["radius"][here]
        if k in certified and (claims != certified[k]).any():
            wrong = int((claims != certified[k]).sum())
            return f"{wrong} pixels with {k} votes claim otherwise than these prove"
        fixed = options["correction"] == "holm"
        right = np.where(claims > 0, float(options["radius"]) if fixed else reach(lower[k]), 0.0)
        slack = 0.0 if fixed else CLOSE * np.maximum(1.0, right)
        if not (np.isfinite(radii) & (np.abs(right - radii) <= slack)).all():
            return f"pixels with {k} votes claim radius {radii.max():.9g}, these prove {right.max():.9g}"
    return None


def _summary_fault(
    maps: Mapping[str, np.ndarray], lower: Mapping[int, float], record: Record, settings: Mapping[str, Any]
) -> str | None:
    options, mask = settings["mode_options"], maps["certified"].astype(bool)
    says = {k: record.details.get(k) for k in ("pixels", "certified", "labelled", "correct")}
    labelled = correct = None
    if "target" in maps:
        known = maps["target"] != _NONE
        labelled, correct = int(known.sum()), int((known & mask & (maps["selected"] == maps["target"])).sum())
    is_so = {"pixels": mask.size, "certified": int(mask.sum()), "labelled": labelled, "correct": correct}
    if says != is_so:
        return f"it counts {says}, its maps {is_so}"
    if record.samples != int(options["n0"]) + int(options["n"]):
        return f"{record.samples} samples were paid for, not {options['n0']} + {options['n']}"
    if (record.status is Status.CERTIFIED) != bool(mask.any()):
        return f"{record.status}, with {int(mask.sum())} certified pixels"
    if record.label is not None or record.target is not None or record.counts:
        return "it names one class for a whole image"
    radius = float(maps["radius"][mask].min()) if mask.any() else 0.0
    proved = min((lower[int(k)] for k in np.unique(maps["votes"][mask])), default=0.0)
    if record.radius != radius or not record.p_lower <= proved + CLOSE:
        return (
            f"it claims {record.radius:.9g} and {record.p_lower:.9g} for all certified pixels, "
            f"which have {radius:.9g} and {proved:.9g}"
        )
    if abs(record.pb_upper - (1.0 - record.p_lower)) > CLOSE or not 0.0 <= record.p_lower <= 1.0:
        return f"pb_upper is {record.pb_upper:.9g}, p_lower leaves {1 - record.p_lower:.9g}"
    if not math.isinf(record.radius_upper) or record.p_upper != 1.0 or record.pb_lower != 0.0:
        return "it holds upper ends that no procedure computed"
    return None


@lru_cache(maxsize=1 << 16)
def _lower(k: int, n: int, level: float) -> float:
    return lower_bound(k, n, level)


def _first(name: str, faults: Any, fine: str = "can be those of a segmentation run") -> Found:
    found = list(faults)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return name, not found, found[0] + more if found else fine
