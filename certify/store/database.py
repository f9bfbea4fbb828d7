"""The tables of a run, and how they come to be in one step."""

from __future__ import annotations

import sqlite3
from typing import Any

from certify.canonical import canonical, sha256_text

FORMAT = 1
APPLICATION_ID = 0x43455254  # "CERT": lets file(1) and this package recognise the database

_TABLES = (
    "CREATE TABLE run (id TEXT PRIMARY KEY, format INTEGER, binding TEXT, guarantee TEXT, sha256 TEXT)",
    "CREATE TABLE sessions (number INTEGER PRIMARY KEY, body TEXT, sha256 TEXT)",
    "CREATE TABLE records (run TEXT, idx INTEGER, record TEXT, seconds REAL, sha256 TEXT, seal TEXT, "
    "PRIMARY KEY (run, idx)) WITHOUT ROWID",
    "CREATE TABLE documents (name TEXT PRIMARY KEY, body TEXT, sha256 TEXT)",
    "CREATE TABLE attacks (key TEXT PRIMARY KEY, idx INTEGER, body TEXT, sha256 TEXT)",
    "CREATE TABLE arrays (name TEXT PRIMARY KEY, sha256 TEXT, pending TEXT)",
)


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


def run_hash(binding: str, guarantee: str) -> str:
    """Hash over the binding settings and the sentence that was promised for them."""
    return sha256_text(f"{binding}\n{guarantee}")


def seal(run: str, index: int, text: str, seconds: float) -> str:
    """Hash over a whole row, its place and its time included."""
    return sha256_text(f"{run}\n{index}\n{text}\n{seconds!r}")
