"""Reading a run directory: every row is checked against its hash before anyone sees it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from certify.canonical import canonical, sha256_text
from certify.errors import CorruptRun, RunNotWritable, UnreadableFile
from certify.files import sha256_file
from certify.records import Record, Run
from certify.store import settings as run_settings
from certify.store.database import FORMAT, run_hash, seal

if TYPE_CHECKING:
    import numpy as np

DATABASE = "records.sqlite"

#: What an outcome says against the model, from most to least.
_DAMAGE = ("broken", "clean_error", "unconfirmed", "survived", "error")

_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
         sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # fmt: skip


@dataclass(frozen=True)
class StoredRun:
    """A run directory as it was read; changing it changes nothing on the disk."""

    path: Path
    settings: dict[str, Any]
    guarantee: str
    run: Run
    attacks: list[dict[str, Any]]
    documents: dict[str, Any]
    sessions: list[dict[str, Any]]
    run_id: str
    _arrays: Mapping[str, tuple[str | None, str | None]]

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names under which arrays are stored."""
        return tuple(self._arrays)

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays stored under ``name`` (``NAME.npz``), checked against their hash, or None."""
        return load_arrays(self.path, name, self._arrays)


@dataclass(frozen=True)
class Rows:
    """Everything in the database, checked."""

    binding: dict[str, Any]
    run_id: str
    guarantee: str
    sessions: list[dict[str, Any]]
    records: list[Record]
    documents: dict[str, Any]
    attacks: list[dict[str, Any]]
    arrays: dict[str, tuple[str | None, str | None]]


def read_run(path: str | os.PathLike[str]) -> StoredRun:
    """Read a run directory, finished or not, without changing it.

    Raises UnreadableFile when there is no run, CorruptRun when any row fails its hash.
    """
    path = Path(path)
    if not (path / DATABASE).is_file():
        _absent(path, f"{path / DATABASE} does not exist")
    with explained(path), _read_only(path) as db:
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _absent(path, f"{path / DATABASE} is empty: the run stopped before it began")
        rows = read_rows(db, path)
    settings = run_settings.join(rows.binding, rows.sessions[-1] if rows.sessions else {})
    run = Run(rows.records, settings, rows.guarantee)
    return StoredRun(
        path,
        settings,
        rows.guarantee,
        run,
        rows.attacks,
        rows.documents,
        rows.sessions,
        rows.run_id,
        rows.arrays,
    )


def read_rows(db: sqlite3.Connection, path: Path) -> Rows:
    """Every row of the database, structure and hashes checked. Raises CorruptRun."""
    verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        _corrupt(path, f"the database's structure is damaged: {verdict}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise UnreadableFile(
            f"{path} was written by a newer release",
            why=f"its format is {version}, this release reads up to {FORMAT}",
            remedy="upgrade certify-robustness",
        )
    runs = _all(db, "SELECT id, binding, guarantee, sha256, format FROM run")
    if len(runs) != 1:
        _corrupt(path, f"it has {len(runs)} settings rows instead of one")
    run, binding_text, guarantee, digest, _ = runs[0]
    _check(path, "the settings", run_hash(_str(binding_text), _str(guarantee)), digest)
    binding = json.loads(binding_text)
    _check(path, "the run's id", run_settings.run_id(binding), run)
    return Rows(
        binding=binding,
        run_id=run,
        guarantee=guarantee,
        sessions=[
            _body(path, f"session {n}", body, sha)
            for n, body, sha in _all(db, "SELECT number, body, sha256 FROM sessions ORDER BY number")
        ],
        records=[
            _record(path, run, *row)
            for row in _all(
                db, "SELECT run, idx, record, seconds, sha256, seal FROM records ORDER BY run, idx"
            )
        ],
        documents={
            name: _body(path, f"document {name}", body, sha)
            for name, body, sha in _all(db, "SELECT name, body, sha256 FROM documents ORDER BY name")
        },
        attacks=[
            _body(path, f"attack {key}", body, sha)
            for key, body, sha in _all(db, "SELECT key, body, sha256 FROM attacks ORDER BY idx, key")
        ],
        arrays={name: (sha, pending) for name, sha, pending in _all(db, "SELECT * FROM arrays")},
    )


def stronger(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether attack outcome ``new`` says at least as much against the model as ``old``."""

    def damage(outcome: Mapping[str, Any]) -> tuple[int, int, float, float]:
        status = str(outcome.get("status"))
        rank = _DAMAGE.index(status) if status in _DAMAGE else len(_DAMAGE)
        distance = outcome.get("distance")
        near = float("inf") if distance is None or status != "broken" else float(distance)
        # Of attacks on pixels the one that reached more of them.
        return rank, -int(outcome.get("reached") or 0), near, -float(outcome.get("forwards") or 0)

    return damage(new) <= damage(old)


def load_arrays(
    path: Path, name: str, hashes: Mapping[str, tuple[str | None, str | None]]
) -> dict[str, np.ndarray] | None:
    """``NAME.npz`` after its hash was checked; never unpickles. None if it was never stored."""
    import numpy as np

    expected, pending = hashes.get(name, (None, None))
    file = path / f"{name}.npz"
    if name not in hashes or (expected is None and not file.exists()):
        return None
    try:
        if sha256_file(file) not in (expected, pending):
            _corrupt(path, f"{file.name} is not the file that was stored")
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as cause:
        _corrupt(path, f"{file.name} cannot be read: {cause}", cause)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into this package's errors."""
    try:
        yield
    except sqlite3.Error as cause:
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DISK:
            raise RunNotWritable(
                f"{path} cannot be written or read",
                why=f"SQLite says: {cause}",
                remedy="free some space, or choose a writable directory on a local disk with --out; "
                "what was stored before is intact and the run resumes",
            ) from cause
        _corrupt(path, f"SQLite says: {cause}", cause)
    except (OSError, UnicodeDecodeError, RecursionError) as cause:
        if isinstance(cause, OSError) and not isinstance(cause, (CorruptRun, RunNotWritable, UnreadableFile)):
            raise RunNotWritable(
                f"{path} cannot be written or read",
                why=str(cause),
                remedy="choose a writable directory on a local disk with --out",
            ) from cause
        if isinstance(cause, OSError):
            raise
        _corrupt(path, str(cause), cause)


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    file = path / DATABASE
    try:
        db = _probe(file)
    except sqlite3.OperationalError:
        # A log that was left behind needs a writable place to be replayed in: use a copy.
        with tempfile.TemporaryDirectory() as scratch:
            for part in path.glob(f"{DATABASE}*"):
                if not part.name.endswith("-shm"):
                    shutil.copyfile(part, Path(scratch) / part.name)
            db = sqlite3.connect(Path(scratch) / DATABASE, isolation_level=None)
            try:
                yield db
            finally:
                db.close()
        return
    try:
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


def _all(db: sqlite3.Connection, query: str) -> list[Any]:
    """All rows at once: a cursor kept alive by an error's traceback would keep the database locked."""
    return db.execute(query).fetchall()


def _record(path: Path, run: str, *row: Any) -> Record:
    owner, index, text, seconds, digest, whole = row
    if owner != run:
        _corrupt(path, f"the record of input {index} belongs to another run")
    _check(path, f"the record of input {index}", sha256_text(_str(text)), digest)
    _check(path, f"the row of input {index}", seal(run, index, text, seconds), whole)
    body = json.loads(text)
    if body.get("index") != index or canonical(body) != text:
        _corrupt(path, f"the record of input {index} is not in canonical form under its own key")
    try:
        return Record.from_json(body | {"seconds": seconds})
    except (KeyError, TypeError, ValueError) as cause:
        _corrupt(path, f"the record of input {index} is not a record: {cause}", cause)


def _body(path: Path, name: str, text: Any, digest: Any) -> Any:
    _check(path, name, sha256_text(_str(text)), digest)
    return json.loads(text)


def _absent(path: Path, why: str) -> NoReturn:
    raise UnreadableFile(
        f"there is no run in {path}",
        why=why,
        remedy="give the directory that `certify radius --out` wrote",
    )


def _str(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _check(path: Path, name: str, computed: str, stored: Any) -> None:
    if computed != stored:
        _corrupt(
            path, f"{name} does not match its hash (stored {str(stored)[:12]}..., is {computed[:12]}...)"
        )


def _corrupt(path: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    raise CorruptRun(
        f"{path} is damaged",
        why=why,
        remedy="restore the directory from a copy, or run again into another one with --out",
    ) from cause
