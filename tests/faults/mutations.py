"""What can be done to a run directory: thousands of damages and forgeries, drawn by number.

``mutate(kind, number, place)`` does the one with this number to a copy of a genuine run of this kind and
says what it was. Those under "value", "number" and "text" reach every value of every stored document; in
most of them all hashes are made right again, so that types, sizes and arithmetic have to be judged.
"""

from __future__ import annotations

import copy
import os
import random
import socket
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.forger import Forger, Raw

DIGITS = "1" * 5000
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63, 10**38, -(10**38), 0.0, -0.0, 0.5, -0.5, 1e-320,
    1e308, -1e308, "", "x", "0.5", "nan", "=HYPERLINK(1)", "\x1b[31m\x07", "\u202egnp.exe", "\ud800",
    "a" * 5000, "../../x", "/etc/passwd", "{{7*7}}", "</script><b>", "[/bold]", [], {},
    [[]], [None], [1, 2, 3], {"a": 1}, [[1, 2], [3]], "certify; rm -rf /", "2", "inf", "internal",
    "segmentation", "imported",
)  # fmt: skip
_TEXTS = (DIGITS, "NaN", "Infinity", "-Infinity", "1e999", "[" * 3000 + "]" * 3000, "[" * 60 + "]" * 60,
          '{"a":1,"a":2}', '"' + "y" * 300_000 + '"', "-" + DIGITS, "0x10", "01", '"\\ud800"')  # fmt: skip
_WHOLE = (
    "[]", "3", "null", "{}", '"x"', DIGITS, "[" * 100_000, "", "\x00", '{"index":0,"status":[]}',
    '{"counts":5,"index":0,"status":"certified"}', "true",
)  # fmt: skip
_FILES = (
    "records.sqlite", "records.sqlite-wal", "records.sqlite-shm", "records.sqlite-journal",
    "manifest.json", "certificates.csv", "adversarial.npz", "pixels-0.npz", ".lock", "report.html",
    "table.tex", "card.md", "badge.svg", "plots", "plots/accuracy.svg", ".report.html.tmp",
)  # fmt: skip
_SQL = (
    "CREATE VIEW extra AS SELECT * FROM records",
    "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
    "CREATE TRIGGER t INSTEAD OF UPDATE ON v BEGIN SELECT 1; END",
    "CREATE INDEX extra ON records(idx)",
    "CREATE TABLE extra (x)",
    "CREATE VIRTUAL TABLE extra USING fts5(x)",
    "ALTER TABLE records ADD COLUMN extra TEXT",
    "ALTER TABLE documents ADD COLUMN extra TEXT GENERATED ALWAYS AS (body || 'x') VIRTUAL",
    "DROP TABLE sessions",
    "DROP TABLE arrays",
    "ALTER TABLE attacks RENAME TO other",
    "ALTER TABLE records RENAME COLUMN seal TO stamp",
    "ANALYZE",
    "PRAGMA user_version=9",
    "PRAGMA user_version=-1",
    "UPDATE records SET record = CAST(record AS BLOB)",
    "UPDATE records SET seconds = NULL",
    "UPDATE records SET seconds = 1e999",
    "UPDATE records SET seconds = 'x'",
    "UPDATE records SET idx = 1.5 WHERE idx = 0",
    "UPDATE records SET idx = 'x' WHERE idx = 0",
    "UPDATE records SET sha256 = NULL",
    "UPDATE records SET seal = zeroblob(1000000)",
    "UPDATE run SET format = 'one'",
    "UPDATE run SET id = NULL",
    "UPDATE run SET guarantee = x'ff'",
    "UPDATE run SET binding = NULL",
    "INSERT INTO run SELECT 'x', format, binding, guarantee, sha256 FROM run",
    "INSERT INTO records SELECT 'other', idx, record, seconds, sha256, seal FROM records",
    "UPDATE sessions SET body = NULL",
    "DELETE FROM sessions",
    "DELETE FROM run",
    "DELETE FROM records",
    "INSERT INTO documents VALUES (NULL, '{}', 'x')",
    "INSERT INTO attacks VALUES ('k', 0, '{}', 'x')",
    "INSERT INTO arrays VALUES ('../../etc/passwd', 'x', NULL)",
    "INSERT INTO arrays VALUES (NULL, 'x', NULL)",
    "INSERT INTO arrays VALUES ('adversarial2', x'00', 7)",
    "UPDATE arrays SET sha256 = NULL",
    "UPDATE arrays SET pending = sha256",
)  # fmt: skip
_HARMLESS = (
    "PRAGMA page_size=1024; VACUUM", "PRAGMA page_size=65536; VACUUM", "PRAGMA auto_vacuum=1; VACUUM",
    "PRAGMA journal_mode=WAL", "PRAGMA application_id=7",
)  # fmt: skip


def mutate(number: int, place: Path) -> str:
    """Do mutation ``number`` to the run directory ``place``; what was done, in words."""
    draw = random.Random(number)
    names = list(_WAYS)
    weights = [weight for weight, _ in _WAYS.values()]
    name = draw.choices(names, weights)[0]
    return f"{name}: {_WAYS[name][1](draw, place)}"


# -- values of stored documents, sealed again ------------------------------------------------


def _value(draw: random.Random, place: Path) -> str:
    """One value of one document replaced, left out, added to, or moved."""
    forger = Forger(place)
    whole = _pick_document(draw, forger)
    spot, key, words = _pick_value(draw, whole)
    if spot is None:
        return "nothing to change"
    deed = draw.choice(("junk", "junk", "junk", "drop", "double", "swap", "wrap"))
    old = spot[key]
    if deed == "drop":
        del spot[key]
    elif deed == "double" and isinstance(old, list):
        spot[key] = old + copy.deepcopy(old)
    elif deed == "swap" and isinstance(spot, list) and len(spot) > 1:
        other = draw.randrange(len(spot))
        spot[key], spot[other] = spot[other], spot[key]
    elif deed == "wrap":
        spot[key] = [old] if draw.random() < 0.5 else {"value": old}
    else:
        spot[key] = copy.deepcopy(draw.choice(JUNK))
    forger.write()
    return f"{words} {deed}"


def _number(draw: random.Random, place: Path) -> str:
    """One number moved: a little, a lot, to its other type; every other number stays."""
    forger = Forger(place)
    where = draw.choice(("record", "record", "record", "binding", "plan"))
    document = {"record": lambda: _a_record(draw, forger), "binding": lambda: forger.binding,
                "plan": lambda: forger.documents.get("plan", forger.binding)}[where]()  # fmt: skip
    spots = [s for s in _spots(document) if isinstance(s[0][s[1]], int | float) and s[0][s[1]] is not True]
    if not spots:
        return "no number"
    spot, key, words = draw.choice(spots)
    old = spot[key]
    spot[key] = draw.choice((
        lambda: old + 1, lambda: old - 1, lambda: old * 2, lambda: old * 1.001, lambda: old * (1 + 1e-6),
        lambda: old + 1e-6, lambda: old + 0.05, lambda: float(old), lambda: int(old), lambda: -old,
        lambda: 10 * old + 0.01, lambda: 1 - old, lambda: bool(old), lambda: old / 10,
    ))()  # fmt: skip
    forger.write()
    return f"{where}{words} {old!r} -> {spot[key]!r}"


def _text(draw: random.Random, place: Path) -> str:
    """One value, or a whole document, replaced by text that no honest writer produces."""
    forger = Forger(place)
    kind = draw.choice(("binding", "session", "record", "document", "attack"))
    holder, key = {
        "binding": lambda: (vars(forger), "binding"),
        "session": lambda: (forger.sessions, 0),
        "record": lambda: (forger.records, draw.choice(sorted(forger.records))),
        "document": lambda: (forger.documents, draw.choice(sorted(forger.documents) or ["ledger"])),
        "attack": lambda: (forger.attacks, 0),
    }[kind]()
    if isinstance(holder, list) and not holder:
        holder.append({})
    if draw.random() < 0.4:
        text = draw.choice(_WHOLE)
    else:
        body = copy.deepcopy(holder[key]) if not isinstance(holder, dict) or key in holder else {}
        spot, at, _ = _pick_value(draw, body)
        mark = "@@here@@"
        if spot is None:
            body = mark
        else:
            spot[at] = mark
        from certify.canonical import canonical

        text = canonical(body, strict=False).replace(f'"{mark}"', draw.choice(_TEXTS))
    holder[key] = Raw(text)
    forger.write(evidence=draw.random() < 0.5)
    return f"{kind} {text[:60]!r}"


def _rows(draw: random.Random, place: Path) -> str:
    """Records exchanged, repeated, left out, renamed; their seals made right."""
    forger = Forger(place)
    known = sorted(forger.records)
    a, b = draw.sample(known, 2) if len(known) > 1 else (known[0], known[0])
    deed = draw.choice(("swap", "repeat", "drop", "rename", "shift", "attack", "copy"))
    if deed == "swap":
        forger.records[a], forger.records[b] = forger.records[b], forger.records[a]
    elif deed == "repeat":
        forger.records[max(known) + 1] = copy.deepcopy(forger.records[a])
        forger.seconds[max(known) + 1] = 0.1
    elif deed == "drop":
        del forger.records[a]
    elif deed == "rename":
        forger.records[10**6] = forger.records.pop(a) | {"index": 10**6}
        forger.seconds[10**6] = 0.1
    elif deed == "shift":
        forger.records = {i: forger.records[known[k - 1]] | {"index": i} for k, i in enumerate(known)}
    elif deed == "copy":
        forger.records[a] = forger.records[b] | {"index": a}
    elif forger.attacks:
        forger.attacks.append(copy.deepcopy(forger.attacks[0]) | {"index": 10**6})
    forger.write()
    return deed


# -- the database itself ----------------------------------------------------------------------


def _sql(draw: random.Random, place: Path) -> str:
    statement = draw.choice(_SQL)
    return _execute(place, statement)


def _harmless(draw: random.Random, place: Path) -> str:
    return _execute(place, draw.choice(_HARMLESS))


def _execute(place: Path, statement: str) -> str:
    db = sqlite3.connect(place / "records.sqlite", isolation_level=None)
    try:
        db.executescript(statement)
    except sqlite3.Error as refused:
        statement += f" (refused: {refused})"
    finally:
        db.close()
    return statement


def _view(draw: random.Random, place: Path) -> str:
    """A table that is a view over another one."""
    table = draw.choice(("records", "documents", "run", "sessions", "attacks", "arrays"))
    return _execute(
        place, f"ALTER TABLE {table} RENAME TO hidden; CREATE VIEW {table} AS SELECT * FROM hidden"
    )


def _loose(draw: random.Random, place: Path) -> str:
    """A table made again without its key, with its rows twice."""
    table = draw.choice(("records", "documents", "attacks"))
    return _execute(
        place,
        f"CREATE TABLE t AS SELECT * FROM {table}; INSERT INTO t SELECT * FROM {table}; DROP TABLE {table}; "
        f"ALTER TABLE t RENAME TO {table}",
    )


def _bytes(draw: random.Random, place: Path) -> str:
    """Bytes of a file turned, cut off, doubled, replaced."""
    files = sorted(p for p in place.iterdir() if p.is_file() and p.stat().st_size)
    file = draw.choice([*files, place / "records.sqlite", place / "records.sqlite"])
    data = bytearray(file.read_bytes())
    deed = draw.choice(("flip", "flips", "cut", "empty", "double", "page", "head"))
    if deed in ("flip", "flips"):
        for _ in range(1 if deed == "flip" else 50):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif deed == "cut":
        del data[draw.randrange(len(data)) :]
    elif deed == "empty":
        data = bytearray()
    elif deed == "double":
        data = data * 2
    elif deed == "page":
        start = draw.randrange(0, len(data), 4096)
        data[start : start + 4096] = draw.randbytes(min(4096, len(data) - start))
    else:
        data[: min(100, len(data))] = draw.randbytes(min(100, len(data)))
    file.write_bytes(bytes(data))
    return f"{file.name} {deed}"


# -- names that are no files -------------------------------------------------------------------


def _thing(draw: random.Random, place: Path) -> str:
    """A link, pipe, folder, socket or monster in the place of a file."""
    name = draw.choice(_FILES)
    file = place / name
    file.parent.mkdir(exist_ok=True)
    if file.is_dir() and not file.is_symlink():
        for inner in file.iterdir():
            inner.unlink()
        file.rmdir()
    moved = file.read_bytes() if file.is_file() else b""
    file.unlink(missing_ok=True)
    outside = place.parent / "outside"
    outside.mkdir(exist_ok=True)
    thing = draw.choice(
        ("link", "dangling", "loop", "zero", "pipe", "folder", "socket", "hard", "sparse", "tty")
    )
    victim = outside / file.name.lstrip(".")
    victim.write_bytes(moved or b"precious\n")
    if thing == "link":
        file.symlink_to(victim)
    elif thing == "dangling":
        file.symlink_to(outside / "nothing")
    elif thing == "loop":
        file.symlink_to(file)
    elif thing == "zero":
        file.symlink_to("/dev/zero")
    elif thing == "tty":
        file.symlink_to("/dev/full")
    elif thing == "pipe":
        os.mkfifo(file)
    elif thing == "folder":
        file.mkdir()
    elif thing == "socket" and len(os.fsencode(file)) < 100:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(file))
    elif thing == "hard":
        os.link(victim, file)
    else:
        with file.open("wb") as sparse:
            sparse.truncate(1 << 36)
    return f"{name} is a {thing}"


def _journal(draw: random.Random, place: Path) -> str:
    """A rollback journal that names a second one: SQLite would open that file and may delete it."""
    victim = place.parent / "victim.txt"
    victim.write_text("precious\n")
    name = os.fsencode(victim)
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">6I", 0, 7, 1, 512, 4096, 0)
    tail = name + struct.pack(">II", len(name), sum(name) & 0xFFFFFFFF) + bytes.fromhex("d9d505f920a163d7")
    body = header.ljust(512, b"\0") + struct.pack(">I", 1 << 18) + tail
    (place / "records.sqlite-journal").write_bytes(body)
    return "a journal that names another"


# -- array files ---------------------------------------------------------------------------------


def _arrays(draw: random.Random, place: Path) -> str:
    """An array file with other types, shapes, values, sizes, packed in other ways; its hash made right."""
    forger = Forger(place)
    there = sorted(p.stem for p in place.glob("*.npz"))
    name = draw.choice(there) if there else "adversarial"
    file = place / f"{name}.npz"
    found: dict[str, Any] = (
        dict(np.load(file)) if there else {"index": np.arange(2), "x": np.ones((2, 1, 4, 4))}
    )
    key = draw.choice(sorted(found))
    value = found[key]
    deed = draw.choice(
        ("type", "shape", "nan", "huge", "negative", "drop", "extra", "object", "bomb", "lzma", "deep")
    )
    packed = np.savez_compressed
    if deed == "type":
        found[key] = value.astype(draw.choice(("f2", "f8", "c16", "u1", "i8", "U5", "bool", "M8[s]", ">i4")))
    elif deed == "shape":
        found[key] = draw.choice((value[:1], value.ravel(), value[None], np.zeros(()), value[..., :0]))
    elif deed == "nan":
        found[key] = np.full(value.shape, draw.choice((np.nan, np.inf, -np.inf)))
    elif deed == "huge":
        found[key] = np.full(value.shape, 2**31 - 1, dtype=value.dtype if value.dtype.kind == "i" else "i8")
    elif deed == "negative":
        found[key] = np.full(value.shape, -7, dtype=value.dtype if value.dtype.kind in "if" else "i4")
    elif deed == "drop":
        del found[key]
    elif deed == "extra":
        found["extra"] = np.zeros(3)
    elif deed == "object":
        found[key] = np.array([{"a": 1}], dtype=object)
    elif deed == "bomb":
        found[key] = np.zeros(1 << 27, dtype="u1")
    if deed in ("lzma", "deep"):
        np.savez(file, **found)
        _repack(file, zipfile.ZIP_LZMA if deed == "lzma" else zipfile.ZIP_BZIP2)
    else:
        packed(file, **found)
    if name.startswith("pixels-") and draw.random() < 0.8:
        from certify.dense.maps import arrays_digest

        index = int(name.removeprefix("pixels-"))
        if index in forger.records and deed != "object":
            forger.records[index]["details"]["maps"] = arrays_digest(found)
            forger.write()
    forger.reseal(name)
    return f"{name} {key} {deed}"


def _repack(file: Path, method: int) -> None:
    with zipfile.ZipFile(file) as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(file, "w", method) as new:
        for name, body in entries.items():
            new.writestr(name, body)


_WAYS: dict[str, tuple[int, Callable[[random.Random, Path], str]]] = {
    "value": (34, _value), "number": (18, _number), "text": (12, _text), "rows": (5, _rows), "sql": (6, _sql),
    "harmless": (1, _harmless), "view": (2, _view), "loose": (1, _loose), "bytes": (8, _bytes),
    "thing": (8, _thing), "journal": (1, _journal), "arrays": (6, _arrays),
}  # fmt: skip


def _pick_document(draw: random.Random, forger: Forger) -> Any:
    return draw.choice(
        [forger.binding, forger.binding, *forger.sessions, _a_record(draw, forger), _a_record(draw, forger),
         *forger.documents.values(), *forger.attacks[:2]]
    )  # fmt: skip


def _a_record(draw: random.Random, forger: Forger) -> Any:
    return forger.records[draw.choice(sorted(forger.records))]


def _pick_value(draw: random.Random, document: Any) -> tuple[Any, Any, str]:
    """A container in ``document``, a key of it, and their path; shallow values as often as deep ones."""
    spot, words = document, ""
    while isinstance(spot, dict | list) and len(spot):
        key = draw.choice(sorted(spot)) if isinstance(spot, dict) else draw.randrange(len(spot))
        words += f".{key}"
        inner = spot[key]
        if not isinstance(inner, dict | list) or not len(inner) or draw.random() < 0.35:
            return spot, key, words
        spot = inner
    return None, None, words


def _spots(document: Any, words: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every place in a document that holds a value, with its path."""
    keys = (
        document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    )
    for key in keys:
        if isinstance(document[key], dict | list):
            yield from _spots(document[key], f"{words}.{key}")
        else:
            yield document, key, f"{words}.{key}"
