"""A run directory that survives kills, full disks and second processes.

``records.sqlite`` holds everything: one row per input, keyed by (run, input id), each
with a SHA-256 over its canonical JSON. SQLite in WAL mode with ``synchronous=FULL``:
a record that ``add`` returned from is on the disk. One process writes (see
``lock``); others may read meanwhile. A run resumes by being opened again with
the same settings (``settings`` says which must be equal). Not for network disks:
their locks and syncs do not keep the promises this rests on.

The run's identity is ``digest``: SHA-256 over the records in input order, time left
out. It is the same for one session or many, serial or sharded, local or on a cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify.calls import checked
from certify.canonical import canonical, sha256_text
from certify.errors import InvalidInput, RunConflict
from certify.files import write_atomically
from certify.inputs import Rows
from certify.records import TIME_FIELDS, Record, Run, Status
from certify.store import settings as run_settings
from certify.store import typed
from certify.store.arrays import load_arrays, packed
from certify.store.bound import continued
from certify.store.damage import explained
from certify.store.database import connect, create, seal
from certify.store.lock import RunLock
from certify.store.read import Reader, StoredRun, attack_key, read_rows, read_run, stronger

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RunStore", "StoredRun", "open_run", "read_run", "records_digest"]


@checked
def open_run(
    path: str | os.PathLike[str], settings: Mapping[str, Any], guarantee: str, *, rows: Rows | None = None
) -> RunStore:
    """Create the run directory ``path``, or resume the run that is in it.

    ``rows`` (``certify.inputs.Rows``): the inputs and labels of this session. Raises EvidenceFails
    where they, or the data set that ``settings`` name, are not those of the run; then nothing is written.
    Raises RunConflict when the directory holds a run with other binding settings or
    another process is writing it, CorruptRun when its content fails its own hashes,
    RunNotWritable when the place cannot be written. Use as a context manager.
    """
    return RunStore(Path(path), settings, guarantee, rows=rows)


@checked
def records_digest(records: Iterable[Record]) -> str:
    """SHA-256 over the canonical text of each record and a line feed, in input order, time left out."""
    hasher = hashlib.sha256()
    for record in sorted(records, key=lambda r: r.index):
        hasher.update(f"{_text(record)}\n".encode())
    return hasher.hexdigest()


class RunStore:
    """The one writer of a run directory. Made by ``open_run``.

    As a context manager it writes the evidence files on the way out (``finish``), unless
    an exception is passing: an interrupted run is resumed, not presented.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], guarantee: str, *, rows: Rows | None = None
    ) -> None:
        binding, recorded = run_settings.split(settings)
        _refuse(typed.settings_fault(run_settings.join(binding, recorded)))
        self.path = path
        self.guarantee = guarantee
        self.settings = run_settings.join(binding, recorded)
        self._run = run_settings.run_id(binding)
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(path)
        for scratch in path.glob(".*.tmp"):  # of a writer that was killed: the lock is ours now
            with contextlib.suppress(OSError):  # what cannot be unlinked is none of ours
                scratch.unlink()
        try:
            self._db = self._open(binding, recorded, rows)
        except BaseException:
            self._lock.release()
            raise

    def _open(
        self, binding: dict[str, Any], recorded: dict[str, Any], given: Rows | None
    ) -> sqlite3.Connection:
        with explained(self.path):
            db = connect(self.path)
        try:
            with explained(self.path):
                create(db, binding, self._run, self.guarantee)
                rows = read_rows(db, self.path)
            begun = [session.get("command") for session in rows.sessions[:1]]
            run_settings.refuse_difference(str(self.path), rows.binding, binding, command=(*begun, None)[0])
            unread = (binding.get("model") or {}).get("unchecked", ())
            run_settings.refuse_other_scores(str(self.path), rows.sessions, recorded, unread)
            if rows.guarantee != self.guarantee:
                raise RunConflict(
                    f"{self.path} was promised another guarantee",
                    why=f"it says: {rows.guarantee}",
                    remedy="give this run another directory with --out",
                )
            recorded = continued(self.path, rows.sessions, recorded, rows.records, given)
            self.settings = run_settings.join(binding, recorded)
            self._known = {record.index: _text(record) for record in rows.records}
            self._failed = {r.index for r in rows.records if r.status is Status.FAILED}
            if canonical(recorded) not in {canonical(s) for s in rows.sessions}:
                text = canonical(recorded)
                with self._transaction(db):
                    db.execute("INSERT INTO sessions(body, sha256) VALUES (?, ?)", (text, sha256_text(text)))
        except BaseException:
            db.close()
            raise
        return db

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def __len__(self) -> int:
        return len(self._known)

    def has(self, index: int) -> bool:
        """Whether this input has a result. A *failed* input has none: it is tried again."""
        return index in self._known and index not in self._failed

    def add(self, record: Record) -> None:
        """Store one record durably.

        The same result again is accepted silently. Raises RunConflict for a second,
        different result of the same input: noise is keyed, so it means that something
        that should be fixed is not. Only a *failed* record gives way to a later one.
        """
        self.add_all((record,))

    def add_all(self, records: Iterable[Record]) -> None:
        """Store records as ``add`` does, in one step: all of them or, where one is refused, none."""
        fresh: dict[int, tuple[Record, str]] = {}
        for record in records:
            text = _text(record)
            _refuse(typed.record_fault(json.loads(text) | {"seconds": float(record.seconds)}, {}))
            if self._is_new(record, text):
                fresh[record.index] = record, text
        if not fresh:
            return
        rows = []
        for index, (record, text) in fresh.items():
            seconds = float(record.seconds)
            sealed = seal(self._run, index, text, seconds)
            rows.append((self._run, index, text, seconds, sha256_text(text), sealed))
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
        for index, (record, text) in fresh.items():
            self._known[index] = text
            (self._failed.add if record.status is Status.FAILED else self._failed.discard)(index)

    def _is_new(self, record: Record, text: str) -> bool:
        """Whether a record is to be written; RunConflict where another result is there."""
        known = self._known.get(record.index)
        if known == text:
            return False
        if known is None or record.index in self._failed:
            return True
        if record.status is Status.FAILED:
            return False  # a worker that died proves nothing against the result that is there
        raise RunConflict(
            f"input {record.index} of {self.path} has a second, different result",
            why=f"stored {_difference(known, text)}; equal settings and noise give equal records",
            remedy="find what changed (hardware, library, a model that is not a fixed function), "
            "then run into another directory with --out",
        )

    def run(self) -> Run:
        """All records so far, in input order, with the settings of the newest session."""
        with explained(self.path):
            rows = read_rows(self._db, self.path)
        return Run(rows.records, self.settings, self.guarantee, documents=rows.documents)

    def digest(self) -> str:
        """The run's identity so far; equals ``records_digest(self.run())``."""
        hasher = hashlib.sha256()
        for index in sorted(self._known):
            hasher.update(f"{self._known[index]}\n".encode())
        return hasher.hexdigest()

    def put_document(self, name: str, body: Any) -> None:
        """Store a JSON document (a bounds table, a ledger) under ``name``, replacing the one before."""
        text = canonical(body, strict=False)
        _refuse(typed.document_fault(name, json.loads(text)))
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (name, text, sha256_text(text)))

    def document(self, name: str) -> Any:
        """The document stored under ``name``, or None."""
        with explained(self.path):
            return Reader(self._db, self.path).documents().get(name)

    def add_attack(self, payload: Mapping[str, Any]) -> bool:
        """Store one attack outcome under (index, smoothed, norm, eps); whether it was kept.

        An attack is a search, and searches may be repeated: of two outcomes the one that
        says more against the model is kept, so a counterexample is never overwritten.
        """
        text = canonical(payload, strict=False)
        _refuse(typed.attack_fault(json.loads(text), self.settings))
        key = attack_key(payload)
        with self._transaction() as db:
            found = db.execute("SELECT body FROM attacks WHERE key = ?", (key,)).fetchone()
            kept = found is None or stronger(json.loads(text), json.loads(found[0]))
            if kept:
                row = (key, int(payload["index"]), text, sha256_text(text))
                db.execute("INSERT OR REPLACE INTO attacks VALUES (?, ?, ?, ?)", row)
        return kept

    def attacks(self) -> list[dict[str, Any]]:
        """All attack outcomes, by input, then threat."""
        with explained(self.path):
            return Reader(self._db, self.path).attacks(self.settings)

    def put_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays as ``NAME.npz``; its hash is promised first, so a kill in between does no harm."""
        body = packed(arrays)
        digest = hashlib.sha256(body).hexdigest()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO arrays VALUES (?, NULL, ?) "
                "ON CONFLICT(name) DO UPDATE SET pending = excluded.pending",
                (name, digest),
            )
        write_atomically(self.path / f"{name}.npz", body)
        with self._transaction() as db:
            db.execute("UPDATE arrays SET sha256 = pending, pending = NULL WHERE name = ?", (name,))

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays stored under ``name``, or None."""
        with explained(self.path):
            hashes = Reader(self._db, self.path).arrays()
        return load_arrays(self.path, name, hashes, self.settings, inputs=len(self))

    def finish(self) -> None:
        """Write ``certificates.csv`` and ``manifest.json`` for the records that are there."""
        from certify.store.manifest import write_evidence

        write_evidence(self.path)

    def close(self) -> None:
        """Fold the log into one plain file (readable from read-only media) and give up the lock."""
        try:
            # Where it cannot be folded (a reader is at work, the disk is full) the log stays beside
            # the database: nothing is lost, and the next session folds it.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode=DELETE")
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _transaction(self, db: sqlite3.Connection | None = None) -> Iterator[sqlite3.Connection]:
        db = db or self._db
        with explained(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def _text(record: Record) -> str:
    row = record.to_json()
    if type(row["index"]) is not int or row["index"] < 0:
        raise InvalidInput(
            f"input id {row['index']!r} is not a row number",
            why="records are keyed by the input's index within its split",
            remedy="give ids as plain integers >= 0",
        )
    for name in TIME_FIELDS:
        del row[name]
    return canonical(row)


def _refuse(fault: str | None) -> None:
    """What would not be read again is not written."""
    if fault is not None:
        raise InvalidInput(
            "a value cannot be written to the run store",
            why=fault,
            remedy="use the types that the JSON Schemas in certify/store/schemas name",
        )


def _difference(old: str, new: str) -> str:
    pairs = run_settings.differences(json.loads(old), json.loads(new))
    return ", ".join(f"{k} {canonical(a)}, now {canonical(b)}" for k, a, b in pairs)[:400]
