"""A run's database holds exactly a run's tables, and nothing in it is believed to be a program."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import time

import pytest

from certify.canonical import canonical, sha256_text
from certify.errors import CorruptRun
from certify.store import open_run, read_run
from certify.store.database import seal
from certify.verification import verify
from tests.certify.sample_run import GUARANTEE, fill, settings
from tests.certify.simulated_run import write
from tests.faults.forger import Forger, Raw


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest")
    write(path, "radius")
    return path


@pytest.fixture
def run(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "run")
    return tmp_path / "run"


def execute(path, script):
    db = sqlite3.connect(path / "records.sqlite", isolation_level=None)
    db.executescript(script)
    db.close()


def refused(path) -> str:
    """Why the reader, the writer and the verifier refuse it; all for one reason."""
    with pytest.raises(CorruptRun) as caught:
        read_run(path)
    with pytest.raises(CorruptRun):
        open_run(path, settings(), GUARANTEE)
    assert caught.value.why in verify(path).failures[0].detail
    return caught.value.why


EXTRAS = {
    "a view": "CREATE VIEW extra AS SELECT * FROM records",
    "a trigger": "CREATE TRIGGER extra AFTER INSERT ON sessions BEGIN DELETE FROM records; END",
    "an index": "CREATE INDEX extra ON records(seconds)",
    "an expression index": "CREATE INDEX extra ON documents(lower(body))",
    "a table": "CREATE TABLE extra (x)",
    "a virtual table": "CREATE VIRTUAL TABLE extra USING fts5(x)",
    "another column": "ALTER TABLE records ADD COLUMN extra TEXT",
    "a computed column": "ALTER TABLE records ADD COLUMN extra AS (upper(record)) VIRTUAL",
    "statistics": "ANALYZE",
    "another name": "ALTER TABLE records RENAME COLUMN seal TO stamp",
    "no sessions": "DROP TABLE sessions",
    "a table that is a view": "ALTER TABLE records RENAME TO hidden; "
    "CREATE VIEW records AS SELECT * FROM hidden",
    "a table without its key": "CREATE TABLE t AS SELECT * FROM documents; DROP TABLE documents; "
    "ALTER TABLE t RENAME TO documents",
    "a table with a check": "DROP TABLE attacks; CREATE TABLE attacks (key TEXT PRIMARY KEY, idx INTEGER, "
    "body TEXT, sha256 TEXT CHECK (random() > 0))",
}


@pytest.mark.parametrize("name", EXTRAS)
def test_anything_beside_the_tables_of_a_run_is_refused(run, name):
    execute(run, EXTRAS[name])
    assert "no run has" in refused(run) or "lacks" in refused(run)


def test_records_cannot_depend_on_the_clock(run):
    """The same bytes, read at another time, would say other radii."""
    forged = Forger(run)
    execute(run, "ALTER TABLE records RENAME TO honest; CREATE TABLE forged AS SELECT * FROM honest")
    db = sqlite3.connect(run / "records.sqlite", isolation_level=None)
    for index, body in forged.records.items():
        text = canonical(body | {"radius": 9.0})
        db.execute("UPDATE forged SET record = ? WHERE idx = ?", (text, index))
    when = int(time.time()) + 3600
    db.execute(
        f"CREATE VIEW records AS SELECT * FROM honest WHERE CAST(strftime('%s','now') AS INTEGER) < {when} "
        f"UNION ALL SELECT * FROM forged WHERE CAST(strftime('%s','now') AS INTEGER) >= {when}"
    )
    db.close()
    assert "no run has" in refused(run)


HARMLESS = {
    "small pages": "PRAGMA page_size=512; VACUUM",
    "large pages": "PRAGMA page_size=65536; VACUUM",
    "vacuumed": "PRAGMA auto_vacuum=2; VACUUM",
    "a log beside it": "PRAGMA journal_mode=WAL; UPDATE records SET seconds = seconds",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_how_the_same_rows_are_kept_does_not_matter(run, name):
    execute(run, HARMLESS[name])
    assert verify(run).ok


def test_text_in_another_encoding_is_the_same_text(honest, tmp_path):
    source = sqlite3.connect(honest / "records.sqlite")
    (tmp_path / "run").mkdir()
    db = sqlite3.connect(tmp_path / "run" / "records.sqlite", isolation_level=None)
    db.execute("PRAGMA encoding='UTF-16'")
    db.executescript("\n".join(source.iterdump()))
    db.execute("PRAGMA user_version=1")
    db.close()
    source.close()
    for name in ("manifest.json", "certificates.csv"):
        shutil.copy(honest / name, tmp_path / "run")
    assert verify(tmp_path / "run").ok


TYPES = [
    ("UPDATE records SET record = CAST(record AS BLOB)", "a bytes for a str"),
    ("UPDATE records SET seconds = NULL", "a NoneType for a float"),
    ("UPDATE records SET seconds = 'soon'", "a str for a float"),
    ("UPDATE records SET seal = zeroblob(10)", "a bytes for a str"),
    ("UPDATE run SET guarantee = 7.5", "match its hash"),
    ("UPDATE run SET id = NULL", "a NoneType for a str"),
    ("UPDATE run SET format = 'one'", "a str for a int"),
    ("UPDATE run SET format = 2", "its format is 2"),
    ("INSERT INTO documents VALUES (NULL, '{}', 'x')", "a NoneType for a str"),
    ("UPDATE sessions SET body = 3.5", "match its hash"),
    ("INSERT INTO arrays VALUES ('../../etc/passwd', 'x', NULL)", "names no file of a run"),
    ("INSERT INTO arrays VALUES ('.lock', 'x', NULL)", "names no file of a run"),
    ("INSERT INTO arrays VALUES ('a/b', 'x', NULL)", "names no file of a run"),
    ("INSERT INTO arrays VALUES ('pixels-1', x'00', NULL)", "is no text"),
]


@pytest.mark.parametrize(("statement", "why"), TYPES)
def test_every_value_has_the_type_of_its_column(run, statement, why):
    execute(run, statement)
    assert why in refused(run)


def test_a_time_that_is_no_number_of_seconds_is_refused(run):
    forger = Forger(run)
    for bad in (float("inf"), -1.0):
        forger.seconds[0] = bad
        forger.write()
        assert "record.seconds" in refused(run)


def test_a_journal_that_names_another_file_is_refused_before_sqlite_sees_it(run, tmp_path):
    """SQLite would open that file, and delete it."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = os.fsencode(victim)
    magic = bytes.fromhex("d9d505f920a163d7")
    head = (magic + struct.pack(">6I", 0, 7, 1, 512, 4096, 0)).ljust(512, b"\0")
    tail = struct.pack(">I", 1 << 18) + name + struct.pack(">II", len(name), sum(name)) + magic
    (run / "records.sqlite-journal").write_bytes(head + tail)
    assert "points to a file outside the run" in refused(run)
    assert victim.read_text() == "precious"
    (run / "records.sqlite-journal").unlink()
    assert verify(run).ok


def test_an_outcome_under_another_key_is_refused(run):
    body = {
        "index": 0, "target": 0, "smoothed": True, "norm": "2", "eps": None, "preset": "x",
        "clean_correct": True, "status": "survived",
    }  # fmt: skip
    text = canonical(body)
    for key, index in (("k", 0), (canonical([0, True, "2", None]), 1)):
        execute(run, "DELETE FROM attacks")
        db = sqlite3.connect(run / "records.sqlite")
        with db:
            db.execute("INSERT INTO attacks VALUES (?, ?, ?, ?)", (key, index, text, sha256_text(text)))
        db.close()
        assert "under another key" in refused(run)


def test_a_session_cannot_override_what_binds_the_run(run):
    for body, name in (({"alpha": 0.4}, "alpha"), ({"model": {"digest": "f" * 64}}, "model.digest")):
        forger = Forger(run)
        forger.sessions = [body]
        forger.write()
        assert f"session.{name} is no setting that a session records" in refused(run)


WRONG = {
    "a list": "[]", "a number": "3", "nothing": "null", "five thousand digits": "1" * 5000,
    "three thousand brackets": "[" * 3000 + "]" * 3000, "no number": '{"index":NaN}',
    "twice": '{"a":1,"a":1}',
    "spaces": '{ "index":0}', "half a text": '{"index":0', "infinity": '{"index":1e999}', "empty": "",
    "a status that is a list": '{"index":0,"status":[]}',
    "counts that are a number": '{"counts":5,"index":0,"status":"certified"}',
}  # fmt: skip


@pytest.mark.parametrize("where", ["binding", "session", "record", "document", "attack"])
@pytest.mark.parametrize("name", WRONG)
def test_stored_text_that_is_no_such_document_is_named(run, where, name):
    forger = Forger(run)
    text = Raw(WRONG[name])
    if where == "binding":
        forger.binding = text
    elif where == "session":
        forger.sessions = [text]
    elif where == "record":
        forger.records[0] = text
    elif where == "document":
        forger.documents["ledger"] = text
    else:
        forger.attacks = [text]
    forger.write(evidence=False)
    assert refused(run)


def test_a_hash_over_numbers_written_in_another_way_is_no_canonical_record(run):
    db = sqlite3.connect(run / "records.sqlite")
    index, text, seconds, owner = db.execute("SELECT idx, record, seconds, run FROM records").fetchone()
    text = text.replace('"samples":', '"samples": ')
    with db:
        db.execute(
            "UPDATE records SET record = ?, sha256 = ?, seal = ? WHERE idx = ?",
            (text, sha256_text(text), seal(owner, index, text, seconds), index),
        )
    db.close()
    assert "canonical" in refused(run)


def test_a_run_can_still_be_made_and_gone_on_with(tmp_path):
    digest = fill(tmp_path, range(4))
    assert fill(tmp_path, range(4)) == digest
    assert len(read_run(tmp_path).run) == 4
