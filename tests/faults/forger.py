"""A forger who knows the format: rewrites anything in a run directory and makes every hash right again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from certify.canonical import canonical, sha256_text
from certify.records import Record, Run
from certify.store import settings as run_settings
from certify.store.database import run_hash, seal
from certify.store.exports import to_csv
from certify.store.manifest import build
from certify.store.read import StoredRun, attack_key


class Raw(str):
    """JSON text that is stored as it is: what no honest writer would produce."""


class Forger:
    """The content of a run directory as plain values; ``write`` puts it back, sealed like an honest run.

    ``binding``, ``sessions`` [body], ``records`` {index: body}, ``documents`` {name: body} and ``attacks``
    [body] are JSON values, or ``Raw`` text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.closing(self._open()) as db:
            [(self.binding, self.guarantee)] = [
                (json.loads(b), g) for b, g in db.execute("SELECT binding, guarantee FROM run")
            ]
            self.sessions = [
                json.loads(b) for (b,) in db.execute("SELECT body FROM sessions ORDER BY number")
            ]
            rows = db.execute("SELECT idx, record, seconds FROM records ORDER BY idx").fetchall()
            self.records: dict[int, Any] = {i: json.loads(text) for i, text, _ in rows}
            self.seconds: dict[int, Any] = {i: s for i, _, s in rows}
            self.documents: dict[str, Any] = {
                n: json.loads(b) for n, b in db.execute("SELECT name, body FROM documents")
            }
            self.attacks: list[Any] = [json.loads(b) for (b,) in db.execute("SELECT body FROM attacks")]

    def write(self, *, evidence: bool = True) -> None:
        """Store everything with the hashes that belong to it, then the manifest and the table."""
        binding, run = _text(self.binding), "0" * 64
        with contextlib.suppress(Exception):
            run = run_settings.run_id(self.binding)
        with contextlib.closing(self._open()) as db, db:
            for table in ("run", "sessions", "records", "documents", "attacks"):
                db.execute(f"DELETE FROM {table}")
            row = (run, 1, binding, self.guarantee, run_hash(binding, self.guarantee))
            db.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", row)
            for body in self.sessions:
                text = _text(body)
                db.execute("INSERT INTO sessions(body, sha256) VALUES (?, ?)", (text, sha256_text(text)))
            for index, body in self.records.items():
                text, seconds = _text(body), self.seconds[index]
                sealed = seal(run, index, text, seconds)
                db.execute(
                    "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                    (run, index, text, seconds, sha256_text(text), sealed),
                )
            for name, body in self.documents.items():
                text = _text(body)
                db.execute("INSERT INTO documents VALUES (?, ?, ?)", (name, text, sha256_text(text)))
            for number, body in enumerate(self.attacks):
                text, key = _text(body), str(number)
                with contextlib.suppress(Exception):
                    key = attack_key(body)
                index = body.get("index") if isinstance(body, dict) else 0
                index = index if type(index) is int and abs(index) < 2**60 else 0
                db.execute(
                    "INSERT OR REPLACE INTO attacks VALUES (?, ?, ?, ?)",
                    (key, index, text, sha256_text(text)),
                )
        if evidence:
            with contextlib.suppress(Exception):  # what cannot be described gets no description
                self._evidence(run)

    def reseal(self, name: str) -> None:
        """Make the stored hash of an array file that of the file that is there."""
        digest = hashlib.sha256((self.path / f"{name}.npz").read_bytes()).hexdigest()
        with contextlib.closing(self._open()) as db, db:
            db.execute("DELETE FROM arrays WHERE name = ?", (name,))
            db.execute("INSERT INTO arrays VALUES (?, ?, NULL)", (name, digest))

    def _evidence(self, run: str) -> None:
        """The manifest and the table as an honest writer would write them for this content."""
        settings = run_settings.join(self.binding, self.sessions[-1] if self.sessions else {})
        records = [
            Record.from_json(self.records[i] | {"seconds": self.seconds[i]}) for i in sorted(self.records)
        ]
        stored = StoredRun(
            self.path, settings, self.guarantee, Run(records, settings, self.guarantee), [], {},
            self.sessions, run, {},
        )  # fmt: skip
        (self.path / "certificates.csv").write_text(to_csv(stored.run))
        (self.path / "manifest.json").write_text(json.dumps(build(stored), indent=1) + "\n")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path / "records.sqlite")


def _text(body: Any) -> str:
    return str(body) if isinstance(body, Raw) else canonical(body, strict=False)
