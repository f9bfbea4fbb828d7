"""The tables of a run, how they come to be in one step, and how a stranger's database is opened.

SQLite runs what a database's schema says: views, triggers and generated columns are programs, and a table
can be shown as something that it is not. So a database must have exactly the tables below, word for
word, before a row of it is read or written.
"""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certify.canonical import canonical, sha256_text
from certify.errors import UnreadableFile
from certify.files.members import fault_of, open_member
from certify.store.damage import absent, corrupt

FORMAT = 1
APPLICATION_ID = 0x43455254  # "CERT": lets file(1) and this package recognise the database
DATABASE = "records.sqlite"
#: What SQLite keeps beside a database.
_COMPANIONS = ("", "-wal", "-shm", "-journal")
#: At the end of a journal: it names a second journal, which SQLite would open and may delete.
_POINTS_ELSEWHERE = bytes.fromhex("d9d505f920a163d7")
#: Most bytes of one value that SQLite hands out.
_LONGEST = 1 << 28

_TABLES = (
    "CREATE TABLE run (id TEXT PRIMARY KEY, format INTEGER, binding TEXT, guarantee TEXT, sha256 TEXT)",
    "CREATE TABLE sessions (number INTEGER PRIMARY KEY, body TEXT, sha256 TEXT)",
    "CREATE TABLE records (run TEXT, idx INTEGER, record TEXT, seconds REAL, sha256 TEXT, seal TEXT, "
    "PRIMARY KEY (run, idx)) WITHOUT ROWID",
    "CREATE TABLE documents (name TEXT PRIMARY KEY, body TEXT, sha256 TEXT)",
    "CREATE TABLE attacks (key TEXT PRIMARY KEY, idx INTEGER, body TEXT, sha256 TEXT)",
    "CREATE TABLE arrays (name TEXT PRIMARY KEY, sha256 TEXT, pending TEXT)",
)
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"


def create(db: sqlite3.Connection, binding: dict[str, Any], run: str, guarantee: str) -> None:
    """Put the run's tables and settings into an empty database, in one transaction; else do nothing."""
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA busy_timeout=10000")
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        return
    text = canonical(binding)
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        db.execute(statement)
    db.execute(
        "INSERT INTO run VALUES (?, ?, ?, ?, ?)", (run, FORMAT, text, guarantee, run_hash(text, guarantee))
    )
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={FORMAT}")
    db.execute("COMMIT")


def connect(path: Path) -> sqlite3.Connection:
    """The database of the run directory ``path``, for writing; made where there is none.

    Raises CorruptRun for one that is no regular file, or has other tables than a run's.
    """
    _refuse_files(path, writing=True)
    db = sqlite3.connect(path / DATABASE, isolation_level=None)
    try:
        _harden(db)
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _refuse_others(db, path)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database of a run directory for reading, without changing it.

    Raises UnreadableFile where there is none, it is empty or of a newer release; CorruptRun as ``connect``.
    """
    if fault_of(path / DATABASE) is None and not os.path.lexists(path / DATABASE):
        absent(path, f"{path / DATABASE} does not exist")
    _refuse_files(path, writing=False)
    try:
        db = _probe(path / DATABASE)
    except sqlite3.OperationalError:
        # A log that was left behind needs a writable place to be replayed in: use a copy.
        with tempfile.TemporaryDirectory() as scratch:
            for part in ("", "-wal", "-journal"):
                if os.path.lexists(path / f"{DATABASE}{part}"):
                    with (
                        open_member(path / f"{DATABASE}{part}", "database") as source,
                        open(Path(scratch) / f"{DATABASE}{part}", "xb") as copy,
                    ):
                        shutil.copyfileobj(source, copy)
            yield from _closing(sqlite3.connect(Path(scratch) / DATABASE, isolation_level=None), path)
        return
    yield from _closing(db, path)


def run_hash(binding: str, guarantee: str) -> str:
    """Hash over the binding settings and the sentence that was promised for them."""
    return sha256_text(f"{binding}\n{guarantee}")


def seal(run: str, index: int, text: str, seconds: float) -> str:
    """Hash over a whole row, its place and its time included."""
    return sha256_text(f"{run}\n{index}\n{text}\n{seconds!r}")


def _closing(db: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    try:
        _harden(db)
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            absent(path, f"{path / DATABASE} is empty: the run stopped before it began")
        _refuse_others(db, path)
        yield db
    finally:
        db.close()


def _probe(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA busy_timeout=10000")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _harden(db: sqlite3.Connection) -> None:
    """Nothing in the file is believed to be a program, and nothing in it is handed out beyond measure."""
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("PRAGMA cell_size_check=ON")
    db.execute("PRAGMA mmap_size=0")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    configure = getattr(db, "setconfig", None)  # Python 3.12
    if configure is not None:
        for name in ("DEFENSIVE", "TRUSTED_SCHEMA", "ENABLE_TRIGGER", "ENABLE_VIEW"):
            configure(getattr(sqlite3, f"SQLITE_DBCONFIG_{name}"), name == "DEFENSIVE")


def _refuse_files(path: Path, *, writing: bool) -> None:
    for companion in _COMPANIONS:
        file = path / f"{DATABASE}{companion}"
        if fault := fault_of(file, writing=writing):
            corrupt(path, fault)
        if companion == "-journal" and os.path.lexists(file):
            with open_member(file, "journal") as journal:
                journal.seek(max(0, os.fstat(journal.fileno()).st_size - len(_POINTS_ELSEWHERE)))
                if journal.read() == _POINTS_ELSEWHERE:
                    corrupt(path, f"{file.name} points to a file outside the run, which SQLite might delete")


def _refuse_others(db: sqlite3.Connection, path: Path) -> None:
    """Raise where the database is of a newer release, or holds anything beside a run's tables."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise UnreadableFile(
            f"{path} was written by a newer release",
            why=f"its format is {version}, this release reads up to {FORMAT}",
            remedy="upgrade certify-robustness",
        )
    found, ours = db.execute(_SCHEMA).fetchall(), _expected()
    for row in found:
        if row not in ours:
            kind, name, table, sql = (str(part)[:200] for part in row)
            corrupt(path, f"its database holds a {kind} {name!r} (of {table!r}) that no run has: {sql}")
    if len(found) != len(ours):
        missing = {row[1] for row in ours} - {row[1] for row in found}
        corrupt(path, f"its database lacks {', '.join(sorted(missing)) or 'a table'}")


@functools.cache
def _expected() -> tuple[tuple[Any, ...], ...]:
    """The schema of an honest database, as SQLite itself writes it down."""
    db = sqlite3.connect(":memory:")
    try:
        for statement in _TABLES:
            db.execute(statement)
        return tuple(db.execute(_SCHEMA).fetchall())
    finally:
        db.close()
