"""The tab-separated logs in which the literature publishes its certificates, line by line.

``certify.py`` of Cohen, Rosenfeld and Kolter (2019) writes ``idx label predict radius correct time``. What
programs and people do to such files on the way is forgiven: byte-order marks, any line ends, spaces around
cells, further columns, the columns in another order, times in plain seconds. What a line says is not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from certify.errors import InvalidInput, UnreadableFile
from certify.records import Record

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|\.[0-9]+")
_CLOCK = re.compile(r"(?:([0-9]{1,6}) days?, )?([0-9]{1,9}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]*)?)")

#: Files in which someone looks for a log, by the words they begin with: what they are instead.
_OTHER_FILES = (
    (("idx", "label", "predict", "correct", "time"), "predictions without radii, as predict.py writes them"),
    (("epoch",), "a training log"),
)


@dataclass(frozen=True)
class LogLine:
    """One line of a log. ``printed`` is its radius as the file spells it, ``line`` its number from 1 on."""

    line: int
    idx: int
    label: int
    predict: int
    radius: float
    printed: str
    seconds: float


def parse_log(path: Path, data: bytes) -> list[LogLine]:
    """Every certificate of the log ``path`` with content ``data``.

    Raises UnreadableFile for other files, InvalidInput for impossible lines.
    """
    lines = _text(path, data).split("\n")
    places = _places(path, lines)
    rows: dict[int, LogLine] = {}
    for number, text in enumerate(lines[1:], start=2):
        if not text.strip():
            continue
        row = _line(path, number, text, places)
        if row.idx in rows:
            _refuse(
                path, number, f"input {row.idx} is already on line {rows[row.idx].line}",
                "two runs may have been written to one file: keep the lines of one of them",
            )  # fmt: skip
        rows[row.idx] = row
    if not rows:
        raise InvalidInput(
            f"{path} holds no certificate",
            why="only its heading is there: the run that wrote it ended before its first input",
            remedy="give a log with at least one line",
        )
    return list(rows.values())


def printed_radius(record: Record) -> str | None:
    """The radius of an imported certificate as its log spells it; None where that is not its radius."""
    text = record.details.get("printed")
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        return None
    return text if not record.certified or float(text) == record.radius else None


def _text(path: Path, data: bytes) -> str:
    """The file as text with plain line feeds, whatever its byte-order mark says."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # what Windows PowerShell's > writes
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as cause:
        raise UnreadableFile(
            f"{path} cannot be read",
            why=str(cause),
            remedy="give the log that the published certify.py wrote, a text file",
        ) from cause


def _places(path: Path, lines: list[str]) -> dict[str, int]:
    """Where each column is, by the heading."""
    names = [cell.strip().lower() for cell in lines[0].split("\t")] if lines and lines[0].strip() else []
    places = {name: names.index(name) for name in COLUMNS if names.count(name) == 1}
    if len(places) == len(COLUMNS):
        return places
    why = "it is empty" if not names else f"its first line is {lines[0].strip()[:80]!r}"
    lacking = [name for name in COLUMNS if name not in places]
    if 0 < len(lacking) < len(COLUMNS):
        why += f", without the column {' and '.join(lacking)}"
    for words, what in _OTHER_FILES:
        if tuple(names[: len(words)]) == words:
            why += f": {what}"
    raise UnreadableFile(
        f"{path} is not a log of certificates",
        why=why,
        remedy="the first line must name, separated by tabs, " + " ".join(COLUMNS),
    )


def _line(path: Path, number: int, text: str, places: dict[str, int]) -> LogLine:
    cells = [cell.strip() for cell in text.split("\t")]
    if len(cells) <= max(places.values()):
        _refuse(
            path, number, f"it has {len(cells)} columns instead of {max(places.values()) + 1}",
            "if it is the last line of a run that was cut off, remove the line",
        )  # fmt: skip
    idx, label, predict, correct = (
        _whole(path, number, name, cells[places[name]]) for name in ("idx", "label", "predict", "correct")
    )
    if idx < 0 or label < 0 or predict < -1:
        _refuse(path, number, "indices and classes start at 0 (predict -1 is an abstention)")
    printed = cells[places["radius"]]
    radius = float(printed) if _DECIMAL.fullmatch(printed) else math.nan
    if not math.isfinite(radius):
        _refuse(path, number, f"{printed[:40]!r} is not a radius: a finite decimal number >= 0")
    if correct != int(predict == label):
        _refuse(path, number, f"it says correct = {correct} for label {label} and predict {predict}")
    return LogLine(
        number, idx, label, predict, radius, printed, _seconds(path, number, cells[places["time"]])
    )


def _whole(path: Path, number: int, name: str, text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        _refuse(path, number, f"{text[:40]!r} in column {name} is not a whole number")
    return int(text)


def _seconds(path: Path, number: int, text: str) -> float:
    if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    found = _CLOCK.fullmatch(text)
    if found is None:
        _refuse(path, number, f"{text[:40]!r} is not a time such as 0:00:14.25, or 14.25 seconds")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _refuse(path: Path, number: int, why: str, remedy: str = "correct the line, or remove it") -> NoReturn:
    raise InvalidInput(
        f"line {number} of {path.name} cannot be imported", why=why, remedy=f"{remedy}; nothing was imported"
    )
