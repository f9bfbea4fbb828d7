"""The run directory: durable, single-writer, resumable, and the same run however it was made."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from certify.canonical import canonical
from certify.errors import CorruptRun, InvalidInput, RunConflict, RunNotWritable, UnreadableFile
from certify.records import Record, Status
from certify.store import open_run, read_run, records_digest
from certify.store.manifest import read_manifest
from certify.store.settings import join, run_id, split
from tests.certify.sample_run import GUARANTEE, fill, record, settings


def test_what_was_added_is_read_back_exactly(tmp_path):
    fill(tmp_path, range(8))
    stored = read_run(tmp_path)
    assert list(stored.run) == [record(i) for i in range(8)]
    assert stored.settings == json.loads(canonical(settings()))
    assert stored.guarantee == GUARANTEE
    assert stored.run.settings == stored.settings


def test_the_digest_ignores_order_time_sessions_and_what_is_only_recorded(tmp_path):
    whole = fill(tmp_path / "whole", range(8))
    fill(tmp_path / "parts", [5, 1, 7])
    with open_run(
        tmp_path / "parts", settings(command="again", environment={"batch_size": 7}), GUARANTEE
    ) as store:
        for i in (0, 2, 3, 4, 6, 1):
            store.add(record(i, seconds=99.0))
        assert store.digest() == whole == records_digest(store.run())
    assert len(read_run(tmp_path / "parts").sessions) == 2


@given(st.permutations(range(6)))
@hypothesis_settings(max_examples=15, deadline=None)
def test_records_digest_does_not_depend_on_order(order):
    assert records_digest([record(i) for i in order]) == records_digest([record(i) for i in range(6)])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"alpha": 0.01}, "alpha: 0.001 there, 0.01 now"),
        ({"model": {"digest": "c" * 64}}, "model.digest"),
        ({"data": {"name": "other"}}, 'data.name: "toy" there, "other" now'),
        ({"versions": {"torch": "3"}}, "versions.torch"),
        ({"device": "cuda"}, "device"),
        ({"extra": 1}, "extra: nothing there, 1 now"),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path, change, named):
    fill(tmp_path, range(3))
    before = (tmp_path / "records.sqlite").read_bytes()
    with pytest.raises(RunConflict, match="other settings") as caught:
        open_run(tmp_path, settings(**change), GUARANTEE)
    assert named in caught.value.why
    assert "--out" in caught.value.remedy
    assert len(read_run(tmp_path).run) == 3
    assert (tmp_path / "records.sqlite").read_bytes()[100:] == before[100:]


@pytest.mark.parametrize(
    "change",
    [
        {"environment": {"engine": "ray"}},
        {"command": "x"},
        {"data": settings()["data"] | {"limit": 99, "skip": 3}},
        {"model": settings()["model"] | {"path_name": "copy.pt"}},
        {"versions": settings()["versions"] | {"python": "3.12"}},
    ],
)
def test_settings_that_cannot_change_a_record_may_differ(tmp_path, change):
    digest = fill(tmp_path, range(3))
    assert fill(tmp_path, [], **change) == digest


def test_another_guarantee_is_refused(tmp_path):
    fill(tmp_path, [0])
    with pytest.raises(RunConflict, match="another guarantee"):
        open_run(tmp_path, settings(), "less is promised")


def test_settings_split_and_join_are_inverse():
    binding, recorded = split(settings())
    assert canonical(join(binding, recorded)) == canonical(settings())
    assert "command" not in binding
    assert "limit" not in binding["data"]
    assert run_id(binding) == run_id(split(settings(command="z"))[0])


def test_a_repeat_is_accepted_and_a_different_result_is_not(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.add(record(3))
        store.add(record(3, seconds=4.0))
        with pytest.raises(RunConflict, match="second, different result") as caught:
            store.add(replace(record(3), radius=0.2))
        assert "radius" in caught.value.why
        assert list(store.run()) == [record(3)]


def test_a_failed_input_is_tried_again_and_never_replaces_a_result(tmp_path):
    failed = Record(4, Status.FAILED, details={"reason": "worker lost"})
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.add(failed)
        assert not store.has(4)
        assert store.run()[0].status is Status.FAILED
        store.add(record(4))
        assert store.has(4)
        store.add(failed)
        assert list(store.run()) == [record(4)]
    assert list(read_run(tmp_path).run) == [record(4)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_json_cannot_hold_is_refused(tmp_path, bad):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        with pytest.raises(InvalidInput, match="cannot be written"):
            store.add(replace(record(0), radius=bad))
        assert not store.has(0)


def test_an_unbounded_upper_radius_survives(tmp_path):
    unbounded = replace(record(0), radius_upper=math.inf, details={"n": np.int64(3), "t": (1, 2)})
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.add(unbounded)
    assert read_run(tmp_path).run[0].radius_upper == math.inf
    assert read_run(tmp_path).run[0].details == {"n": 3, "t": [1, 2]}


def test_a_second_store_is_refused_and_the_holder_named(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE):
        with pytest.raises(RunConflict, match=f"pid {os.getpid()}"):
            open_run(tmp_path, settings(), GUARANTEE)
        code = (
            "from certify.store import open_run; from tests.certify.sample_run import *\n"
            f"open_run({str(tmp_path)!r}, settings(), GUARANTEE)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "RunConflict" in done.stderr
        assert str(os.getpid()) in done.stderr
    open_run(tmp_path, settings(), GUARANTEE).close()


def test_a_lock_file_left_behind_blocks_nobody(tmp_path):
    (tmp_path / ".lock").write_text("pid 1 on elsewhere")
    fill(tmp_path, [0])


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    store = open_run(tmp_path, settings(), GUARANTEE)
    child = os.fork()
    if child == 0:  # an orphaned worker that outlives its driver
        import time

        time.sleep(30)
        os._exit(0)
    try:
        store.close()
        open_run(tmp_path, settings(), GUARANTEE).close()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_readers_see_committed_rows_while_the_writer_works(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.add(record(0))
        assert len(read_run(tmp_path).run) == 1
        store.add(record(1))
        assert len(read_run(tmp_path).run) == 2


def test_a_finished_run_is_one_plain_database_file(tmp_path):
    fill(tmp_path, range(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "certificates.csv",
        "manifest.json",
        "records.sqlite",
    ]
    read_run(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_log_left_by_a_kill_is_read_without_being_able_to_write(tmp_path, monkeypatch):
    store = open_run(tmp_path / "run", settings(), GUARANTEE)
    for i in range(3):
        store.add(record(i))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    store.close()
    (tmp_path / "copy" / "records.sqlite-shm").unlink()

    def refused(file):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("certify.store.database._probe", refused)
    assert len(read_run(tmp_path / "copy").run) == 3


def test_an_interrupted_run_presents_no_evidence_until_it_is_resumed(tmp_path):
    def interrupted():
        with open_run(tmp_path, settings(), GUARANTEE) as store:
            store.add(record(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "manifest.json").exists()
    fill(tmp_path, [0, 1])
    assert read_manifest(tmp_path)["predicate"]["inputs"] == 2


def pairs(n, value=1.0):
    """n inputs of the sample run beside their adversarial examples."""
    return {"index": np.arange(n), "x": np.full((n, 2), value), "x_adv": np.zeros((n, 2))}


def test_documents_arrays_and_their_absence(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        assert store.document("ledger") is None
        assert store.arrays("adversarial") is None
        store.put_document("notes", {"claims": [1, {"x": None, "vacuous": math.inf}]})
        store.put_document("notes", {"claims": [2]})
        store.put_arrays("adversarial", pairs(3))
        store.put_arrays("adversarial", pairs(4))
        assert store.document("notes") == {"claims": [2]}
    stored = read_run(tmp_path)
    assert stored.documents == {"notes": {"claims": [2]}}
    assert stored.arrays("adversarial")["x"].shape == (4, 2)
    assert stored.arrays("nothing") is None
    (tmp_path / "adversarial.npz").write_bytes(b"something else")
    with pytest.raises(CorruptRun, match="not the file that was stored"):
        stored.arrays("adversarial")


def test_arrays_survive_a_kill_between_promise_and_file(tmp_path, monkeypatch):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.put_arrays("adversarial", pairs(1, 0.0))
        with monkeypatch.context() as patch:
            patch.setattr(
                "certify.store.write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                store.put_arrays("adversarial", pairs(1, 1.0))
    assert read_run(tmp_path).arrays("adversarial")["x"].tolist() == [[0, 0]]


def outcome(index=0, *, status="survived", distance=None, forwards=10, **rest):
    body = {"index": index, "smoothed": True, "norm": "2", "eps": None, "status": status, "preset": "fast"}
    told = {"distance": distance, "forwards": forwards, "prediction": 1, "target": 0, "clean_correct": True}
    return body | told | rest


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (outcome(status="broken", distance=0.4), outcome(status="survived", forwards=99), 0),
        (outcome(status="survived"), outcome(status="broken", distance=0.4), 1),
        (outcome(status="broken", distance=0.4), outcome(status="broken", distance=0.3), 1),
        (outcome(status="broken", distance=0.3), outcome(status="broken", distance=0.4, forwards=99), 0),
        (outcome(status="survived", forwards=99), outcome(status="survived", forwards=10), 0),
        (outcome(status="error"), outcome(status="survived"), 1),
    ],
)
def test_of_two_attacks_the_one_that_says_more_against_the_model_is_kept(tmp_path, first, second, kept):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.add_attack(first)
        store.add_attack(second)
        assert store.attacks() == [(first, second)[kept]]


def test_attacks_are_kept_per_input_and_threat_and_feed_contradictions(tmp_path):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        for i in range(8):
            store.add(record(i))
        for payload in (
            outcome(1),
            outcome(0),
            outcome(0, eps=0.5),
            outcome(0, norm="inf"),
            outcome(0, smoothed=False),
        ):
            store.add_attack(payload)
    stored = read_run(tmp_path)
    assert [a["index"] for a in stored.attacks] == [0, 0, 0, 0, 1]
    sure = next(r for r in stored.run if r.certified)
    hit = SimpleNamespace(
        index=sure.index, status="broken", smoothed=True, distance=sure.radius / 2, prediction=sure.label + 1
    )
    assert stored.run.contradictions([hit]) == [hit]


def test_no_run_and_no_place_are_named(tmp_path):
    with pytest.raises(UnreadableFile, match="no run in"):
        read_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunNotWritable):
        open_run(tmp_path / "file", settings(), GUARANTEE)
    (tmp_path / "records.sqlite").write_text("this is a text file, long enough to be looked at" * 30)
    with pytest.raises(CorruptRun, match="damaged"):
        read_run(tmp_path)
    with pytest.raises(CorruptRun, match="damaged"):
        open_run(tmp_path, settings(), GUARANTEE)


def edit(path, statement, *values):
    db = sqlite3.connect(path / "records.sqlite")
    with db:
        db.execute(statement, values)
    db.close()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "UPDATE records SET record = replace(record, '\"radius\":0.', '\"radius\":1.') WHERE idx = 3",
            "input 3",
        ),
        ("UPDATE records SET seconds = 0 WHERE idx = 2", "input 2"),
        ("UPDATE records SET idx = 77 WHERE idx = 2", "input 77"),
        ("UPDATE records SET run = 'x' WHERE idx = 2", "input 2"),
        ("UPDATE run SET binding = replace(binding, '0.001', '0.002')", "settings"),
        ("UPDATE run SET guarantee = 'more'", "settings"),
        ("UPDATE run SET id = 'x'", "run's id"),
        ("UPDATE sessions SET body = '{}'", "session"),
        ("UPDATE documents SET body = '{}'", "document notes"),
        ("DELETE FROM run", "settings row"),
    ],
)
def test_an_edited_row_is_refused_by_reader_and_writer(tmp_path, statement, named):
    with open_run(tmp_path, settings(), GUARANTEE) as store:
        store.put_document("notes", [1])
        for i in range(6):
            store.add(record(i))
    edit(tmp_path, statement)
    with pytest.raises(CorruptRun) as caught:
        read_run(tmp_path)
    assert named in caught.value.why
    with pytest.raises(CorruptRun):
        open_run(tmp_path, settings(), GUARANTEE)


def test_a_newer_format_is_refused_with_the_remedy(tmp_path):
    fill(tmp_path, [0])
    edit(tmp_path, "PRAGMA user_version=9")
    with pytest.raises(UnreadableFile, match="newer release"):
        read_run(tmp_path)


def test_closing_beside_a_reader_loses_nothing(tmp_path):
    store = open_run(tmp_path, settings(), GUARANTEE)
    store.add(record(0))
    reader = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchone()
    store.close()
    assert len(read_run(tmp_path).run) == 1
    reader.close()
    fill(tmp_path, [1])
    assert len(read_run(tmp_path).run) == 2
    assert not (tmp_path / "records.sqlite-wal").exists()
