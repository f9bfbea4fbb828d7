"""Read a published log of certificates as a run, so that it can be plotted and compared.

The format is the tab-separated one of ``certify.py`` in Cohen, Rosenfeld and Kolter (2019), in
which the literature publishes its results: ``idx label predict radius correct time``. A log holds
neither counts nor weights, so nothing in it can be recomputed. What can be refuted is refused:
a radius that no n samples prove at that alpha and sigma, a "correct" that contradicts its line.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from scipy import special

from certify.bounds import binomial_lower
from certify.errors import InvalidInput, InvalidSetting
from certify.files.safe import open_regular
from certify.radii import radius_down
from certify.records import Record, Run, Status
from certify.store import StoredRun, open_run, read_run
from certify.store.logs import LogLine, parse_log

#: Half a unit of the third significant digit: what printing may have added to a radius.
_PRINTED = 0.5e-2
#: More samples than any published certificate was made with.
_MOST_SAMPLES = 10**9


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
    run = read_log(log_path, sigma=sigma, alpha=alpha, n=n)
    with open_run(out, run.settings, run.guarantee) as store:
        store.add_all(run.records)
    return read_run(out)


def read_log(log_path: str | os.PathLike[str], *, sigma: float, alpha: float, n: int) -> Run:
    """The log as a run in memory; arguments and errors as ``import_locuslab``."""
    sigma, n = _check(sigma, n)
    binomial_lower(n, n, alpha)  # refuses an alpha that is none before the file is looked at
    path = Path(log_path)
    with open_regular(path, "log") as file:
        data = file.read()
    rows = parse_log(path, data)
    _refuse_more_than_provable(path, rows, sigma, alpha, n)
    settings = {
        "format_version": 1,
        "imported": {"format": "locuslab", "file": path.name, "sha256": hashlib.sha256(data).hexdigest()},
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
    return Run([_record(row, sigma, n) for row in rows], settings, guarantee)


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


def _refuse_more_than_provable(
    path: Path, rows: Sequence[LogLine], sigma: float, alpha: float, n: int
) -> None:
    """Raise InvalidInput for radii that n samples cannot prove, and name settings that would."""
    best = _longest(sigma, alpha, n)
    over = [row for row in rows if row.predict >= 0 and row.radius > best]
    if not over:
        return
    worst = max(over, key=lambda row: row.radius)
    proved = radius_down(binomial_lower(n, n, alpha), sigma)
    raise InvalidInput(
        f"line {worst.line} of {path.name} claims radius {worst.printed}",
        why=f"{n:,} samples at alpha = {alpha:g} and sigma = {sigma:g} prove at most {proved:.6g}; "
        f"{len(over)} of {len(rows)} lines claim more",
        remedy=f"give the settings of the published run: {_that_allow(worst.radius, sigma, alpha, n)} would "
        "allow it. If none of these is the log's, it claims more than its samples prove",
    )


def _longest(sigma: float, alpha: float, n: int) -> float:
    """The largest radius a log may print: numbers are rounded to nearest, so up by half a digit."""
    return radius_down(binomial_lower(n, n, alpha), sigma) * (1 + _PRINTED)


def _that_allow(radius: float, sigma: float, alpha: float, n: int) -> str:
    """Which alpha, n or sigma proves ``radius`` with the other two as they are, rounded up."""
    needed = float(special.log_ndtr(radius / (1 + _PRINTED) / sigma))  # log of the class probability
    alphas = _rounded_up(math.exp(n * needed), (1, 2, 5))
    more = math.log(alpha) / needed if needed < 0 else math.inf
    ns = _rounded_up(min(more, 2.0 * _MOST_SAMPLES), (1, 1.5, 2, 3, 5, 7))
    best = _longest(sigma, alpha, n)
    sigmas = float(f"{sigma * radius / best * 1.005:.3g}") if best > 0 else math.inf
    found = []
    if alpha < alphas < 0.5 and _longest(sigma, alphas, n) >= radius:
        found.append(f"alpha = {alphas:g} at this n")
    if ns <= _MOST_SAMPLES and _longest(sigma, alpha, int(ns)) >= radius:
        found.append(f"n = {int(ns)} at this alpha")
    if _longest(sigmas, alpha, n) >= radius:
        found.append(f"sigma = {sigmas:g}")
    return ", or ".join(found) or "a larger n and a larger sigma"


def _rounded_up(value: float, leading: tuple[float, ...]) -> float:
    """The next number that begins with one of the ``leading`` digits, as people choose them; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = math.floor(math.log10(value))
    return next(r for d in (*leading, 10, 20) if (r := float(f"{d}e{power}")) >= value * (1 - 1e-12))


def _record(row: LogLine, sigma: float, n: int) -> Record:
    if row.predict < 0:
        return Record(
            row.idx, Status.ABSTAINED, target=row.label, pb_upper=1.0, samples=n, seconds=row.seconds,
            details={"printed": row.printed},
        )  # fmt: skip
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
        details={"printed": row.printed},
    )
