"""Cut and corrupt the database at every place: damage is named or harmless, never believed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from certify.errors import CorruptRun, RunNotWritable, UnreadableFile
from certify.store import open_run, read_run, records_digest
from tests.faults.driver import GUARANTEE, SETTINGS, expected, record

pytestmark = pytest.mark.faults

ROWS = 12


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The same run as a killed writer leaves it (log beside it) and as a finished one."""
    place = tmp_path_factory.mktemp("shapes")
    store = open_run(place / "run", SETTINGS, GUARANTEE)
    store.put_document("notes", {"rows": ROWS})
    for i in range(ROWS - 4):
        store.add(record(i))
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for i in range(ROWS - 4, ROWS):
        store.add(record(i))
    shutil.copytree(place / "run", place / "killed")
    store.close()
    shutil.copytree(place / "run", place / "finished")
    for shape in ("killed", "finished"):
        (place / shape / "records.sqlite-shm").unlink(missing_ok=True)
    return place


def scratch(shapes, shape, tmp_path):
    """A fresh copy, on a memory disk where there is one."""
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(shapes / shape, target)
    return target


def believed(path: Path) -> int | None:
    """Rows that a damaged run still holds (after a resume it is whole), None if it is refused."""
    try:
        before = list(read_run(path).run)
        with open_run(path, SETTINGS, GUARANTEE) as store:
            for i in range(ROWS):
                if not store.has(i):
                    store.add(record(i))
            digest = store.digest()
        after = read_run(path)
    except (CorruptRun, UnreadableFile, RunNotWritable):
        return None
    assert before == [record(r.index) for r in before], "a changed record was believed"
    assert digest == records_digest(after.run) == expected(ROWS)
    return len(before)


def cut(shapes, tmp_path, shape, name, offsets):
    data = (shapes / shape / name).read_bytes()
    outcomes = []
    for offset in offsets(len(data)):
        path = scratch(shapes, shape, tmp_path)
        (path / name).write_bytes(data[:offset])
        outcomes.append(believed(path))
    return outcomes


def sparse(size):
    return sorted({*range(0, size, 1009), *range(max(0, size - 8), size + 1)})


def every(size):
    return range(max(0, size - 3 * 4120), size + 1)  # three pages of the log


def test_a_log_cut_anywhere_gives_a_prefix(shapes, tmp_path):
    check_prefixes(cut(shapes, tmp_path, "killed", "records.sqlite-wal", sparse))


def check_prefixes(rows):
    """Nothing is refused, and a longer log never holds fewer rows."""
    assert rows[-1] == ROWS
    assert min(rows) >= ROWS - 4
    assert rows == sorted(rows)


def test_a_database_cut_anywhere_is_refused(shapes, tmp_path):
    # Cut to nothing it is an empty database: a run that has not begun.
    *shorter, whole = cut(shapes, tmp_path, "finished", "records.sqlite", sparse)
    assert whole == ROWS
    assert set(shorter) == {None}


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_offset_of_the_last_rows(shapes, tmp_path):
    check_prefixes(cut(shapes, tmp_path, "killed", "records.sqlite-wal", every))
    *shorter, whole = cut(shapes, tmp_path, "finished", "records.sqlite", every)
    assert whole == ROWS
    assert set(shorter) == {None}


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = rng.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def flips(shapes, tmp_path, shape, name, count, seed):
    rng = random.Random(seed)
    outcomes = []
    for _ in range(count):
        path = scratch(shapes, shape, tmp_path)
        flip(path / name, rng)
        outcomes.append(believed(path))
    return outcomes


CASES = [("finished", "records.sqlite"), ("killed", "records.sqlite"), ("killed", "records.sqlite-wal")]


@pytest.mark.parametrize(("shape", "name"), CASES)
def test_flipped_bits_are_refused_or_harmless(shapes, tmp_path, shape, name):
    outcomes = flips(shapes, tmp_path, shape, name, 30, seed=5)
    assert len(outcomes) == 30  # whatever was believed was compared row by row
    assert None in outcomes or name.endswith("wal")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("shape", "name"), CASES)
def test_flipped_bits_by_the_hundred(shapes, tmp_path, shape, name):
    assert len(flips(shapes, tmp_path, shape, name, 200, seed=6)) == 200


def test_a_flip_inside_a_record_is_always_refused(shapes, tmp_path):
    data = (shapes / "finished" / "records.sqlite").read_bytes()
    for index in range(ROWS):
        place = data.index(b'"radius":' + repr(record(index).radius).encode())
        path = scratch(shapes, "finished", tmp_path)
        changed = bytearray(data)
        changed[place + 12] ^= 1
        (path / "records.sqlite").write_bytes(changed)
        assert believed(path) is None
