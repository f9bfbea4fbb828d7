"""Reading a run directory: every row is checked against its hash and its schema before anyone sees it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify.calls import checked
from certify.canonical import canonical, parse, sha256_text
from certify.errors import InvalidInput
from certify.records import Record, Run
from certify.store import settings as run_settings
from certify.store import typed
from certify.store.arrays import load_arrays
from certify.store.damage import corrupt, explained
from certify.store.database import DATABASE, FORMAT, opened, run_hash, seal

if TYPE_CHECKING:
    import numpy as np

#: What an outcome says against the model, from most to least.
_DAMAGE = ("broken", "clean_error", "unconfirmed", "survived", "error")
#: Names of array files: they stand in the run directory itself.
_ARRAYS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,199}")


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
        """The arrays stored under ``name`` (``NAME.npz``), or None.

        Raises CorruptRun where they are not those that were stored, or none that a run like this can have.
        """
        return load_arrays(self.path, name, self._arrays, self.settings, inputs=len(self.run))


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

    @property
    def settings(self) -> dict[str, Any]:
        """The binding settings and those that the newest session recorded."""
        return run_settings.join(self.binding, self.sessions[-1] if self.sessions else {})


@checked
def read_run(path: str | os.PathLike[str]) -> StoredRun:
    """Read a run directory, finished or not, without changing it.

    Raises UnreadableFile when there is no run, CorruptRun when any row fails its hash or its schema.
    """
    path = Path(path)
    with explained(path), opened(path) as db:
        rows = read_rows(db, path)
    settings = rows.settings
    return StoredRun(
        path,
        settings,
        rows.guarantee,
        Run(rows.records, settings, rows.guarantee, documents=rows.documents),
        rows.attacks,
        rows.documents,
        rows.sessions,
        rows.run_id,
        rows.arrays,
    )


def read_rows(db: sqlite3.Connection, path: Path) -> Rows:
    """Every row of the database: structure, hashes, types. Raises CorruptRun."""
    verdict = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        corrupt(path, f"the database's structure is damaged: {verdict}")
    return Reader(db, path).rows()


class Reader:
    """One reading: the database, and the directory that errors name. Raises CorruptRun."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.db, self.path = db, path

    def rows(self) -> Rows:
        runs = self._all("id, binding, guarantee, sha256, format FROM run", (str, str, str, str, int))
        if len(runs) != 1:
            corrupt(self.path, f"it has {len(runs)} settings rows instead of one")
        run, text, guarantee, digest, version = runs[0]
        if version != FORMAT:
            corrupt(self.path, f"its format is {version!r}, and {FORMAT} in the database's head")
        self._check("the settings", run_hash(text, guarantee), digest)
        binding = self._parsed("the settings", text)
        self._fault("the settings", typed.settings_fault(binding))
        self._check("the run's id", run_settings.run_id(binding), run)
        sessions = [
            self._body(f"session {n}", text, sha, typed.session_fault, strict=True)
            for n, text, sha in self._all(
                "number, body, sha256 FROM sessions ORDER BY number", (int, str, str)
            )
        ]
        for session in sessions:
            self._fault("the settings", typed.settings_fault(run_settings.join(binding, session)))
        found = Rows(
            binding=binding,
            run_id=run,
            guarantee=guarantee,
            sessions=sessions,
            records=[
                self._record(run, binding, *row)
                for row in self._all(
                    "run, idx, record, seconds, sha256, seal FROM records ORDER BY run, idx",
                    (str, int, str, float, str, str),
                )
            ],
            documents=self.documents(),
            attacks=self.attacks(binding),
            arrays=self.arrays(),
        )
        if len({r.index for r in found.records}) != len(found.records):
            corrupt(self.path, "it holds two records of one input")
        return found

    def documents(self) -> dict[str, Any]:
        """The documents by name."""
        found = self._all("name, body, sha256 FROM documents ORDER BY name", (str, str, str))
        return {
            name: self._body(f"document {name}", text, sha, lambda b, n=name: typed.document_fault(n, b))
            for name, text, sha in found
        }

    def attacks(self, binding: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The attack outcomes, by input, then threat."""
        found = self._all("key, idx, body, sha256 FROM attacks ORDER BY idx, key", (str, int, str, str))
        return [self._attack(binding, *row) for row in found]

    def _all(self, query: str, kinds: tuple[type, ...]) -> list[Any]:
        """All rows at once (a cursor kept alive by an error's traceback would keep the database locked).

        SQLite keeps any type in any column: each value must be of its column's.
        """
        found = self.db.execute(f"SELECT {query}").fetchall()
        for row in found:
            for value, kind in zip(row, kinds, strict=True):
                if type(value) is not kind:
                    table = query.partition(" FROM ")[2].partition(" ")[0]
                    corrupt(self.path, f"table {table} holds a {type(value).__name__} for a {kind.__name__}")
        return found

    def _record(
        self, run: str, binding: Mapping[str, Any], owner: str, index: int, text: str, seconds: float,
        digest: str, whole: str,
    ) -> Record:  # fmt: skip
        name = f"the record of input {index}"
        if owner != run:
            corrupt(self.path, f"{name} belongs to another run")
        self._check(name, sha256_text(text), digest)
        self._check(f"the row of input {index}", seal(run, index, text, seconds), whole)
        body = self._parsed(name, text)
        if not isinstance(body, dict) or body.get("index") != index or "seconds" in body:
            corrupt(self.path, f"{name} is not in canonical form under its own key")
        body |= {"seconds": seconds}
        self._fault(name, typed.record_fault(body, binding))
        return Record.from_json(body)

    def _attack(self, binding: Mapping[str, Any], key: str, index: int, text: str, digest: str) -> Any:
        body = self._body(f"attack {key}", text, digest, lambda b: typed.attack_fault(b, binding))
        if body["index"] != index or attack_key(body) != key:
            corrupt(self.path, f"attack {key[:200]} is stored under another key than its own")
        return body

    def arrays(self) -> dict[str, tuple[str | None, str | None]]:
        """The array files by name: the hash of each, and that of one about to replace it."""
        found = self.db.execute("SELECT name, sha256, pending FROM arrays").fetchall()
        for name, *hashes in found:
            if not isinstance(name, str) or not _ARRAYS.fullmatch(name):
                corrupt(self.path, f"it lists arrays under {str(name)[:80]!r}, which names no file of a run")
            if not all(h is None or isinstance(h, str) for h in hashes):
                corrupt(self.path, f"the hash of {name}.npz is no text")
        return {name: (sha, pending) for name, sha, pending in found}

    def _body(
        self, name: str, text: str, digest: str, fault: Callable[[Any], str | None], *, strict: bool = False
    ) -> Any:
        self._check(name, sha256_text(text), digest)
        body = self._parsed(name, text, strict=strict)
        self._fault(name, fault(body))
        return body

    def _parsed(self, name: str, text: str, *, strict: bool = True) -> Any:
        try:
            body = parse(text, strict=strict)
            if canonical(body, strict=strict) == text:
                return body
        except (ValueError, RecursionError, InvalidInput) as cause:
            corrupt(self.path, f"{name} cannot be read: {cause}", cause)
        corrupt(self.path, f"{name} is not in canonical form")

    def _check(self, name: str, computed: str, stored: str) -> None:
        if computed != stored:
            corrupt(
                self.path,
                f"{name} does not match its hash (stored {stored[:12]}..., is {computed[:12]}...)",
            )

    def _fault(self, name: str, fault: str | None) -> None:
        if fault is not None:
            corrupt(self.path, f"{name} is not what a run holds: {fault}")


def attack_key(payload: Mapping[str, Any]) -> str:
    """What tells two stored attack outcomes apart: input, target, norm and size."""
    return canonical([payload["index"], bool(payload["smoothed"]), str(payload["norm"]), payload.get("eps")])


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


__all__ = ["DATABASE", "Rows", "StoredRun", "attack_key", "read_rows", "read_run", "stronger"]
