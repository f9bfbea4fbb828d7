"""Array files of a run: no more is unpacked than such a run can hold, and only what its readers expect."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from certify.dense.maps import arrays_name
from certify.errors import CorruptRun, UntrustedFile
from certify.files.npz import read_npz
from certify.store import open_run, read_run
from certify.store.arrays import FREE, allowed, arrays_fault, limit, packed
from certify.verification import verify
from tests.certify.sample_run import GUARANTEE, record, settings


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", settings(), GUARANTEE) as store:
        store.put_arrays("adversarial", pairs())
        for i in range(3):
            store.add(record(i))
    return tmp_path / "run"


def pairs(**changes):
    return {"index": np.arange(2), "x": np.zeros((2, 2)), "x_adv": np.ones((2, 2))} | changes


def stored(run, body: bytes, name="adversarial"):
    """Put ``body`` in the place of an array file and make its hash right."""
    (run / f"{name}.npz").write_bytes(body)
    db = sqlite3.connect(run / "records.sqlite")
    with db:
        db.execute("DELETE FROM arrays WHERE name = ?", (name,))
        db.execute("INSERT INTO arrays VALUES (?, ?, NULL)", (name, hashlib.sha256(body).hexdigest()))
    db.close()
    return read_run(run)


def saved(save=np.savez_compressed, **arrays) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(buffer, **arrays)
    return buffer.getvalue()


def refused(run, body, name="adversarial") -> str:
    """Why it is not read; nothing of its claimed size was allocated to find out."""
    opened = stored(run, body, name)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRun) as caught:
            opened.arrays(name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * FREE / 64 + 20 * len(body)
    assert "arrays" in {c.name for c in verify(run, level=1).failures}
    return caught.value.why


def test_a_run_reads_what_it_wrote(run):
    found = read_run(run).arrays("adversarial")
    assert found is not None
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in pairs().items()}


@pytest.mark.parametrize("megabytes", [8, 200])
@pytest.mark.parametrize("name", ["adversarial", "other"])
def test_a_file_that_unpacks_to_more_than_the_run_can_hold_is_not_unpacked(run, megabytes, name):
    bomb = saved(**pairs(x_adv=np.zeros(megabytes << 20, dtype="u1")))
    assert len(bomb) < megabytes << 14
    assert "claims to unpack to" in (why := refused(run, bomb, name)) or "need" in why


def test_claimed_inputs_that_are_large_do_not_cover_a_bomb(tmp_path):
    """Settings that lie about the inputs' shape: still nothing beyond what the file's own bytes cover."""
    shape = [1 << 15, 1 << 15]
    with open_run(tmp_path / "run", settings(input_shape=shape, dim=1 << 30), GUARANTEE) as store:
        store.add(record(0))
    bomb = saved(x=np.zeros(160 << 20, dtype="u1"))
    assert "claims to unpack to" in refused(tmp_path / "run", bomb)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compression_without_a_limit_is_refused(run, tmp_path, method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, value in pairs().items():
            body = io.BytesIO()
            np.save(body, value)
            archive.writestr(f"{name}.npy", body.getvalue())
    assert "unusual" in refused(run, buffer.getvalue())
    (tmp_path / "data.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UntrustedFile, match="was not opened"):
        read_npz(tmp_path / "data.npz")


def test_a_header_that_claims_more_than_its_entry_holds_is_refused(run):
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(body, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", body.getvalue() + b"\0" * 64)
    assert "more than its bytes hold" in refused(run, buffer.getvalue())


WRONG = {
    "objects": (pairs(x=np.array([{"a": 1}, None], dtype=object)), "Python objects"),
    "another shape": (pairs(x=np.zeros((2, 3)), x_adv=np.zeros((2, 3))), "shape"),
    "another number": (pairs(index=np.arange(3)), "shape"),
    "whole numbers": (pairs(x=np.zeros((2, 2), dtype=int)), "no finite numbers"),
    "no numbers": (pairs(x_adv=np.full((2, 2), np.nan)), "no finite numbers"),
    "times": (pairs(x=np.zeros((2, 2), dtype="M8[s]")), "no finite numbers"),
    "an index of fractions": (pairs(index=np.zeros(2)), "whole numbers"),
    "a part": ({"x": np.zeros((2, 2))}, "instead of index, x and x_adv"),
    "more": (pairs(extra=np.zeros(1)), "instead of index, x and x_adv"),
}


@pytest.mark.parametrize("name", WRONG)
def test_adversarial_inputs_that_are_none_are_named(run, name):
    arrays, why = WRONG[name]
    assert why in refused(run, saved(**arrays))


def maps(**changes):
    shape = (2, 3)
    found = {
        "selected": np.zeros(shape, "<u2"), "votes": np.ones(shape, "<u4"),
        "certified": np.ones(shape, "|u1"), "radius": np.zeros(shape),
        "plain": np.zeros(shape, "<i4"), "target": np.zeros(shape, "<i4"),
        "preview": np.zeros((1, 2, 3), "|u1"),
    }  # fmt: skip
    return {k: v for k, v in (found | changes).items() if v is not None}


def attacked(**changes):
    shape = (2, 3)
    found = {k: np.zeros(shape, "<i4") for k in ("label", "clean", "attacked", "found")}
    return found | {"by": np.zeros(shape, "<i2")} | changes


SEGMENTED = {"task": "segmentation", "num_classes": 2, "input_shape": [1, 2, 3], "dim": 6}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", np.full((2, 3), 10**6, "<i4")),
        ("target", np.full((2, 3), -7, "<i4")),
        ("plain", np.full((2, 3), 2**31 - 1, "<i4")),
        ("plain", np.full((2, 3), -2, "<i4")),
        ("selected", np.full((2, 3), 2, "<u2")),
        ("certified", np.full((2, 3), 2, "|u1")),
        ("votes", np.ones((2, 3))),
        ("votes", np.ones((3, 2), "<u4")),
        ("radius", np.full((2, 3), np.nan)),
        ("radius", np.full((2, 3), np.inf)),
        ("radius", np.full((2, 3), -1.0)),
        ("preview", np.zeros((2, 3), "|u1")),
        ("preview", np.zeros((1, 2, 3))),
        ("votes", None),
        ("extra", np.zeros((2, 3))),
    ],
)
def test_maps_of_pixels_have_their_types_shapes_and_ranges(name, value):
    assert arrays_fault("pixels-0", maps(), SEGMENTED) is None
    assert arrays_fault("pixels-0", maps(target=None), SEGMENTED) is None
    assert arrays_fault("pixels-0", maps(target=np.full((2, 3), -100, "<i4")), SEGMENTED) is None
    assert arrays_fault("pixels-0", maps(**{name: value}), SEGMENTED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label", np.full((2, 3), 2, "<i4")),
        ("attacked", np.full((2, 3), 5, "<i4")),
        ("found", np.full((2, 3), -100, "<i4")),
        ("by", np.zeros((2, 3), "<i4")),
        ("x_adv", np.zeros((2, 3), "f4")),
        ("other", np.zeros(1)),
    ],
)
def test_maps_of_attacks_do_too(name, value):
    assert arrays_fault("attacked-0-base-l2-0.1", attacked(), SEGMENTED) is None
    assert (
        arrays_fault("attacked-0-base-l2-0.1", attacked(x_adv=np.zeros((1, 2, 3), "f4")), SEGMENTED) is None
    )
    assert arrays_fault("attacked-0-base-l2-0.1", attacked(**{name: value}), SEGMENTED)


def test_honest_arrays_are_never_larger_than_what_is_read():
    """A large picture of one colour compresses beyond what is believed: it is then stored as it is."""
    flat = {"votes": np.zeros((5000, 5000), "<u4")}
    body = packed(flat)
    assert flat["votes"].nbytes <= allowed(len(body))
    small = {"votes": np.zeros((50, 50), "<u4")}
    assert len(packed(small)) < small["votes"].nbytes
    shape = {"input_shape": [3, 640, 480]}
    pixels = 640 * 480
    assert limit(arrays_name(0), shape, 1) > pixels * (2 + 4 + 1 + 8 + 4 + 4) + 3 * 256 * 256
    assert limit("adversarial", shape, 7) > 7 * (8 + 2 * 4 * 3 * pixels)
