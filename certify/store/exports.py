"""A run as CSV, JSON, or the tab-separated log the randomized-smoothing literature reads.

Printed numbers never promise more than was proved: radii and lower bounds are rounded
down, upper bounds up, in exact decimal arithmetic.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from pathlib import Path

from certify.errors import InvalidInput, InvalidSetting
from certify.files import write_atomically
from certify.records import Record, Run, Status
from certify.store.logs import printed_radius

CSV_COLUMNS = (
    "index", "label", "predict", "status", "radius", "radius_upper", "correct",
    "p_lower", "p_upper", "samples", "seconds",
)  # fmt: skip

#: Columns of a segmentation run: its inputs have pixels instead of one class.
PIXEL_COLUMNS = (
    "index", "status", "pixels", "certified", "labelled", "correct", "radius", "samples", "seconds",
)  # fmt: skip

#: Decimals in the CSV: finer than any radius means anything, coarser than a double.
DECIMALS = Decimal("1e-12")

_EXACT = Context(prec=400)  # digits enough for any double with its twelve decimals


def export(run: Run, to: str) -> str:
    """The run as text; ``to`` is "csv", "json" or "locuslab". Raises InvalidSetting otherwise."""
    writers = {"csv": to_csv, "json": to_json, "locuslab": to_locuslab}
    if to not in writers:
        raise InvalidSetting(
            f"there is no export named {to!r}",
            why="a run can be exported in a fixed set of formats",
            remedy=f"choose one of: {', '.join(writers)}; `certify report` writes a LaTeX table",
        )
    return writers[to](run)


def write_export(run: Run, to: str, path: str | os.PathLike[str]) -> Path:
    """``export`` into a file that appears whole or not at all."""
    return write_atomically(path, export(run, to))


def to_csv(run: Run) -> str:
    """One line per input. ``label`` is the true class, ``predict`` the certified one or -1.

    For a segmentation run ``PIXEL_COLUMNS``: numbers of pixels; ``radius`` holds for all certified ones.
    """
    if run.settings.get("task") == "segmentation":
        return _pixel_csv(run)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for r in run:
        writer.writerow(
            [
                r.index,
                "" if r.target is None else r.target,
                r.label if r.certified else -1,
                str(r.status),
                (r.certified and _as_printed(run, r)) or round_down(r.radius),
                round_up(r.radius_upper),
                "" if r.correct is None else int(r.correct),
                round_down(r.p_lower),
                round_up(r.p_upper),
                r.samples,
                f"{r.seconds:.6f}",
            ]
        )
    return buffer.getvalue()


def to_locuslab(run: Run) -> str:
    """Header and tabs as ``certify.py`` of Cohen, Rosenfeld and Kolter (2019) writes them.

    Three significant digits, like theirs, but rounded down. Raises InvalidInput where
    the format has no word for what happened: a failed input, or no true label.
    """
    if run.settings.get("task") == "segmentation":
        raise InvalidInput(
            "a segmentation run cannot be written in the locuslab format",
            why="the format has one class and one radius per input, the run has them per pixel",
            remedy="export --to csv or --to json; the maps themselves are the run's pixels-*.npz",
        )
    if run.settings.get("task") == "population":
        raise InvalidInput(
            "a run about a population cannot be written in the locuslab format",
            why="it certified no input, and the format would call every one an abstention",
            remedy="export --to csv or --to json",
        )
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for r in run:
        if r.status is Status.FAILED or r.target is None:
            raise InvalidInput(
                f"input {r.index} cannot be written in the locuslab format",
                why="it failed, and the format would call that an abstention"
                if r.status is Status.FAILED
                else "the format needs the true label",
                remedy="resume the run so that failed inputs are tried again, or export --to csv"
                if r.status is Status.FAILED
                else "certify a data set with labels, or export --to csv",
            )
        predict = r.label if r.certified else -1
        radius = _as_printed(run, r) or three_digits(r.radius if r.certified else 0.0)
        time = timedelta(seconds=r.seconds)
        lines.append(f"{r.index}\t{r.target}\t{predict}\t{radius}\t{int(bool(r.correct))}\t{time}")
    return "\n".join(lines) + "\n"


def to_json(run: Run) -> str:
    """Settings, guarantee, digest and every record, as one JSON object."""
    from certify.store import records_digest

    body = {
        "settings": run.settings,
        "guarantee": run.guarantee,
        "digest": records_digest(run),
        "records": [_json(r) for r in run],
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def _pixel_csv(run: Run) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PIXEL_COLUMNS)
    for r in run:
        counts = [r.details.get(name) for name in ("pixels", "certified", "labelled", "correct")]
        numbers = ["" if k is None else k for k in counts]
        writer.writerow(
            [r.index, str(r.status), *numbers, round_down(r.radius), r.samples, f"{r.seconds:.6f}"]
        )
    return buffer.getvalue()


def round_down(value: float, step: Decimal = DECIMALS) -> str:
    """The largest multiple of ``step`` that is not above ``value``, as plain decimals."""
    return _rounded(value, step, ROUND_FLOOR)


def round_up(value: float, step: Decimal = DECIMALS) -> str:
    """The smallest multiple of ``step`` that is not below ``value``, as plain decimals."""
    return _rounded(value, step, ROUND_CEILING)


def three_digits(value: float) -> str:
    """``value`` to three significant digits in the style of ``{:.3}``, rounded down (value >= 0)."""
    return f"{float(Context(prec=3, rounding=ROUND_FLOOR).create_decimal(Decimal(value))):.3}"


def _rounded(value: float, step: Decimal, rounding: str) -> str:
    if not math.isfinite(value):
        return str(float(value))
    text = f"{Decimal(value).quantize(step, rounding=rounding, context=_EXACT):f}"
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def _as_printed(run: Run, record: Record) -> str | None:
    """The radius as an imported log prints it: to round a rounded number again would change the claim."""
    return printed_radius(record) if run.settings.get("imported") else None


def _json(record: Record) -> dict:
    return record.to_json() | {"correct": record.correct}
