"""Read a published log of certificates as a run, so that it can be plotted and compared.

The format is the tab-separated one of ``certify.py`` in Cohen, Rosenfeld and Kolter (2019), in
which the literature publishes its results: ``idx label predict radius correct time``. A log holds
neither counts nor weights, so nothing in it can be recomputed. What can be refuted is refused:
a radius that no n samples prove at that alpha and sigma, a "correct" that contradicts its line.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from scipy import special

from certify.bounds import binomial_lower
from certify.errors import InvalidInput, InvalidSetting, UnreadableFile
from certify.files import sha256_file
from certify.radii import radius_down
from certify.records import Record, Status
from certify.store import StoredRun, open_run, read_run

COLUMNS = ["idx", "label", "predict", "radius", "correct", "time"]

_TIME = re.compile(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d*)?)")

#: Half a unit of the third significant digit: what printing may have added to a radius.
_PRINTED = 0.5e-2


def import_locuslab(
    log_path: str | os.PathLike[str], *, sigma: float, alpha: float, n: int, out: str | os.PathLike[str]
) -> StoredRun:
    """The log as a run directory ``out``, marked imported and unverifiable beyond its own numbers.

    ``sigma``, ``alpha`` and ``n`` (the samples of the estimate) are those of the published run: the
    log does not state them. Importing the same log again changes nothing. The class probability
    is the one that the radius stands for, Phi(radius / sigma); counts stay empty.

    Raises UnreadableFile for a file that is not such a log, InvalidInput for lines that contradict
    themselves or the settings, InvalidSetting for impossible settings, RunConflict when
    ``out`` holds another run.
    """
    sigma, n = _check(sigma, n)
    best = radius_down(binomial_lower(n, n, alpha), sigma)
    path = Path(log_path)
    rows = _parse(path)
    for row in rows:
        # Printed numbers are rounded to nearest, so a radius may exceed the bound by half a digit.
        if row.predict >= 0 and row.radius > best * (1 + _PRINTED):
            raise InvalidInput(
                f"line {row.line} of {path.name} claims radius {row.radius:g}",
                why=f"{n} samples at alpha = {alpha:g} and sigma = {sigma:g} prove at most {best:.6g}",
                remedy="give the sigma, alpha and n of the published run; if they are right, the log is not",
            )
    settings = {
        "format_version": 1,
        "imported": {"format": "locuslab", "file": path.name, "sha256": sha256_file(path)},
        "sigma": sigma,
        "diffusion_sigma": sigma / math.sqrt(2),
        "noise": "gaussian",
        "grid": None,
        "bounds": None,
        "scores": "votes",
        "norm": "2",
        "alpha": float(alpha),
        "mode": "imported",
        "mode_options": {"n": n},
        "seed": None,
    }
    guarantee = (
        f"Imported from {path.name}: these are that log's claims (sigma = {sigma:g}, alpha = {alpha:g}, "
        f"{n} samples per input, radii printed to three digits). Nothing in a log can be recomputed; this "
        "run can be plotted and compared, not verified."
    )
    with open_run(out, settings, guarantee) as store:
        for row in rows:
            store.add(_record(row, sigma, n))
    return read_run(out)


@dataclass(frozen=True)
class _Row:
    line: int
    idx: int
    label: int
    predict: int
    radius: float
    seconds: float


def _check(sigma: float, n: int) -> tuple[float, int]:
    if not (math.isfinite(sigma) and sigma > 0):
        raise InvalidSetting(
            f"sigma = {sigma!r} cannot be used",
            why="the noise's standard deviation is a finite number > 0",
            remedy="give the sigma that the published run used, such as 0.25",
        )
    if int(n) != n or n < 1:
        raise InvalidSetting(
            f"n = {n!r} cannot be used",
            why="a certificate rests on a whole number of samples, at least one",
            remedy="give the samples per input of the published run, such as 100000",
        )
    return float(sigma), int(n)


def _parse(path: Path) -> list[_Row]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise UnreadableFile(
            f"{path} cannot be read",
            why=str(cause),
            remedy="give the log that the published certify.py wrote",
        ) from cause
    if not lines or lines[0].split("\t") != COLUMNS:
        raise UnreadableFile(
            f"{path} is not a log of certificates",
            why=f"its first line is {lines[0][:80]!r}" if lines else "it is empty",
            remedy="the first line must be the tab-separated names " + " ".join(COLUMNS),
        )
    rows: dict[int, _Row] = {}
    for number, text in enumerate(lines[1:], start=2):
        if not text.strip():
            continue
        row = _row(path, number, text.split("\t"))
        if row.idx in rows:
            _refuse(path, number, f"input {row.idx} is already on line {rows[row.idx].line}")
        rows[row.idx] = row
    if not rows:
        raise InvalidInput(
            f"{path} holds no certificate",
            why="only its heading is there",
            remedy="give a log with at least one line",
        )
    return list(rows.values())


def _row(path: Path, number: int, cells: list[str]) -> _Row:
    if len(cells) != len(COLUMNS):
        _refuse(path, number, f"it has {len(cells)} columns instead of {len(COLUMNS)}")
    try:
        idx, label, predict = (int(c) for c in cells[:3])
        radius, correct = float(cells[3]), int(cells[4])
    except ValueError as cause:
        _refuse(path, number, str(cause))
    if idx < 0 or label < 0 or predict < -1:
        _refuse(path, number, "indices and classes start at 0 (predict -1 is an abstention)")
    if not (math.isfinite(radius) and radius >= 0):
        _refuse(path, number, f"{cells[3]} is not a radius")
    if correct != int(predict == label):
        _refuse(path, number, f"it says correct = {correct} for label {label} and predict {predict}")
    return _Row(number, idx, label, predict, radius, _seconds(path, number, cells[5]))


def _seconds(path: Path, number: int, text: str) -> float:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        _refuse(path, number, f"{text!r} is not a time such as 0:00:14.25")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _record(row: _Row, sigma: float, n: int) -> Record:
    if row.predict < 0:
        return Record(
            row.idx, Status.ABSTAINED, target=row.label, pb_upper=1.0, samples=n, seconds=row.seconds
        )
    p_lower = float(special.ndtr(row.radius / sigma))
    return Record(
        index=row.idx,
        status=Status.CERTIFIED,
        label=row.predict,
        target=row.label,
        radius=row.radius,
        radius_upper=math.inf,
        p_lower=p_lower,
        p_upper=1.0,
        pb_lower=0.0,
        pb_upper=1 - p_lower,
        samples=n,
        seconds=row.seconds,
    )


def _refuse(path: Path, number: int, why: str) -> NoReturn:
    raise InvalidInput(
        f"line {number} of {path.name} cannot be imported",
        why=why,
        remedy="get the log again from its source; nothing was imported",
    )
