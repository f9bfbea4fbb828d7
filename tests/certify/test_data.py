"""Data sets: the layouts people have, the range and grid they declare, clear errors otherwise."""

import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certify import data
from certify.data.download import FILES, RemoteFile, fetch
from certify.data.idx import read_idx
from certify.errors import DataNotFound, InvalidInput, InvalidSetting, UnreadableFile, UntrustedFile


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, n=6, *, prefix="t10k", packed=True, dotted=False, seed=0):
    """A small MNIST in the standard files; returns its images and labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        name = f"{prefix}-{part}".replace("-idx", ".idx" if dotted else "-idx")
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return images, labels


@pytest.mark.parametrize("split", data.loading.SPLITS)
@pytest.mark.parametrize("name", ["digits", "moons"])
def test_built_in_sets_keep_their_declarations(name, split):
    found = data.load(name, split=split)
    assert found.x.dtype == torch.float32
    assert found.y.dtype == found.ids.dtype == torch.int64
    assert found.low <= found.x.min()
    assert found.x.max() <= found.high
    steps = found.x.double() / found.grid
    assert torch.equal(steps, steps.round()), "every input lies on the declared lattice"
    assert torch.equal(found.y.unique(), torch.arange(found.num_classes))
    assert torch.equal(found.ids, torch.arange(len(found)))
    assert len(found.classes) == found.num_classes
    assert found.digest() == data.load(name, split=split).digest()


def test_digits_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    train, test = (data.load("digits", split=s) for s in data.loading.SPLITS)
    assert (len(train), len(test)) == (1436, 361)
    both = torch.cat([train.x, test.x]).flatten(1) * 16
    everything = torch.from_numpy(load_digits().data).float()
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, everything.tolist()))
    assert train.input_shape == (1, 8, 8)
    assert test.y.bincount().min() >= 30, "every class is tested"


def test_moons_seed_and_split_draw_other_points():
    sets = [data.load("moons", split=s, seed=k) for s in data.loading.SPLITS for k in (0, 1)]
    assert len({s.digest() for s in sets}) == 4
    assert (len(sets[0]), len(sets[2])) == (400, 2000)
    assert sets[0].bounds == (-4.0, 4.0)


@given(skip=st.integers(0, 300), limit=st.integers(1, 400))
@settings(max_examples=10, deadline=None)
def test_a_part_keeps_the_ids_of_the_whole(skip, limit):
    whole = data.load("digits")
    part = data.load("digits", skip=skip, limit=limit)
    assert len(part) == min(limit, len(whole) - skip)
    assert torch.equal(part.x, whole.x[part.ids])
    assert torch.equal(part.y, whole.y[part.ids])


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "MNIST", "."])
@pytest.mark.parametrize(("packed", "dotted"), [(True, False), (False, False), (False, True)])
def test_mnist_in_every_usual_layout(tmp_path, folder, packed, dotted):
    images, labels = write_mnist(tmp_path / folder, packed=packed, dotted=dotted)
    found = data.load("mnist", root=tmp_path)
    assert found.input_shape == (1, 28, 28)
    assert (found.low, found.high, found.grid, found.num_classes) == (0.0, 1.0, 1 / 255, 10)
    assert np.array_equal((found.x * 255).round().numpy()[:, 0], images)
    assert torch.equal(found.x, torch.from_numpy(images).float().unsqueeze(1) / 255)
    assert np.array_equal(found.y.numpy(), labels)


def test_mnist_part_is_the_part_of_the_whole(tmp_path):
    write_mnist(tmp_path / "mnist", n=9, prefix="train")
    whole = data.load("mnist", root=tmp_path, split="train")
    for skip, limit in [(0, 3), (2, 4), (7, 10), (8, None)]:
        part = data.load("mnist", root=tmp_path, split="train", skip=skip, limit=limit)
        assert part.ids.tolist() == list(range(9))[skip:][:limit]
        assert part.digest() == whole.part(skip, limit).digest()
    with pytest.raises(InvalidSetting, match="beyond its end"):
        data.load("mnist", root=tmp_path, split="train", skip=9)


def test_root_comes_from_the_argument_then_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "a" / "mnist", seed=1)
    write_mnist(tmp_path / "b" / "mnist", seed=2)
    monkeypatch.setenv("CERTIFY_DATA", str(tmp_path / "a"))
    first = data.load("mnist").digest()
    second = data.load("mnist", root=tmp_path / "b").digest()
    assert first != second
    monkeypatch.delenv("CERTIFY_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataNotFound, match=r"home/\.cache/certify"):
        data.load("mnist")


def test_missing_mnist_names_layout_and_remedy(tmp_path):
    with pytest.raises(DataNotFound) as caught:
        data.load("mnist", root=tmp_path)
    text = str(caught.value)
    for expected in (
        "mnist/t10k-images-idx3-ubyte.gz",
        "--data-root",
        "CERTIFY_DATA",
        "--download",
        str(tmp_path),
    ):
        assert expected in text


def test_real_mnist_where_it_is_present():
    root = os.environ.get("CERTIFY_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("CERTIFY_DATA does not point at MNIST")
    test = data.load("mnist", root=root)
    assert len(test) == 10_000
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    digest = FILES["mnist"]["t10k-images-idx3-ubyte.gz"].digest
    with gzip.open(Path(root) / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        assert f"sha256:{hashlib.sha256(file.read()).hexdigest()}" == digest


def test_files_that_do_not_belong_together(tmp_path):
    write_mnist(tmp_path / "mnist", n=6)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(np.zeros(5, np.uint8)))
    )
    with pytest.raises(UnreadableFile, match="do not belong together"):
        data.load("mnist", root=tmp_path)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(np.full(6, 10, np.uint8)))
    )
    with pytest.raises(UnreadableFile, match="label 10"):
        data.load("mnist", root=tmp_path)


GOOD_IDX = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
BAD_IDX = {
    "empty": (b"", "empty|inside its header"),
    "half a header": (GOOD_IDX[:9], "inside its header"),
    "one byte short": (GOOD_IDX[:-1], "before its header says"),
    "one byte long": (GOOD_IDX + b"x", "longer than its header"),
    "another type": (b"\0\0\x0d\x03" + GOOD_IDX[4:], "starts with 00000d03"),
    "another rank": (idx_bytes(np.zeros((4, 6), np.uint8)), "starts with 00000802"),
    "no rows": (b"\0\0\x08\x03" + struct.pack(">3I", 0, 3, 4), "declares the shape"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BAD_IDX)
def test_damaged_idx_files(tmp_path, case, packed):
    content, cause = BAD_IDX[case]
    path = tmp_path / ("f.gz" if packed else "f")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UnreadableFile, match=cause):
        read_idx(path, 3)


def test_gzip_stream_cut_anywhere_is_an_error(tmp_path):
    whole = gzip.compress(GOOD_IDX)
    path = tmp_path / "f.gz"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UnreadableFile):
            read_idx(path, 3)
    path.write_bytes(whole)
    assert read_idx(path, 3).shape == (2, 3, 4)


def test_npz_of_floats_and_of_8_bit_images(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    y = np.array([0, 1, 2, 1, 0])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "b.npz", x=x.astype(np.float64) / 255, y=y.astype(np.int16), grid=1 / 255)
    a, b = data.load(tmp_path / "a.npz"), data.load(str(tmp_path / "b.npz"), split="train")
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y, b.y)
    assert a.grid == b.grid == 1 / 255
    assert (a.num_classes, a.bounds, a.task, b.split) == (3, (0.0, 1.0), "classification", "train")


def test_npz_declares_its_range_grid_and_classes(tmp_path):
    x = np.array([[-2.5, 1.0], [2.0, 0.0]], np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1], low=-3, high=3, grid=0.5, num_classes=4, classes=list("abcd"))
    found = data.load(tmp_path / "a.npz")
    assert (found.bounds, found.grid, found.num_classes) == ((-3.0, 3.0), 0.5, 4)
    assert found.classes == ("a", "b", "c", "d")
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 1, 4, 4), np.uint8), y=np.ones((2, 4, 4), np.int64))
    assert data.load(tmp_path / "s.npz").task == "segmentation"


GOOD = {"x": np.full((3, 2), 0.5, np.float32), "y": np.array([0, 1, 1])}
BAD_NPZ = {
    "no y": ({"y": None, "lables": np.array([0, 1, 1])}, UnreadableFile, "no array y"),
    "two y": ({"labels": np.array([0, 1, 1])}, UnreadableFile, "several arrays for labels"),
    "nan": ({"x": np.full((3, 2), np.nan)}, InvalidInput, "NaN"),
    "outside": ({"x": np.full((3, 2), 255.0)}, InvalidInput, "divide 8-bit images by 255"),
    "integers": ({"x": np.ones((3, 2), np.int64)}, InvalidInput, "without a declared type"),
    "labels short": ({"y": np.array([0, 1])}, InvalidInput, "labels have shape"),
    "labels float": ({"y": np.array([0.0, 1.0, 1.0])}, InvalidInput, "labels are of type float64"),
    "labels from -1": ({"y": np.array([-1, 0, 1])}, InvalidInput, "label -1"),
    "labels beyond": ({"num_classes": 2, "y": np.array([0, 1, 2])}, InvalidInput, "label 2"),
    "one class": ({"num_classes": 1.0}, UnreadableFile, "num_classes = 1"),
    "text": ({"x": np.array([["a", "b"]] * 3)}, InvalidInput, "not an array of numbers"),
    "bad grid": ({"grid": np.array([1.0, 2.0, 3.0])}, UnreadableFile, "grid"),
    "negative grid": ({"grid": -1.0}, UnreadableFile, "grid"),
    "fractional classes": ({"num_classes": 2.5}, UnreadableFile, "num_classes"),
    "class names": ({"classes": np.array(["only one"])}, UnreadableFile, "classes"),
    "empty range": ({"low": 2.0}, InvalidSetting, "bounds"),
    "no inputs": ({"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, np.int64)}, InvalidInput, "no inputs"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_npz_files_that_cannot_be_certified(tmp_path, case):
    change, error, cause = BAD_NPZ[case]
    arrays = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(error, match=cause):
        data.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "cause"),
    [
        ({"name_or_path": "minst"}, DataNotFound, "mnist"),
        ({"name_or_path": "none.npz"}, UnreadableFile, "no such file"),
        ({"name_or_path": "digits", "split": "val"}, InvalidSetting, "split 'val'"),
        ({"name_or_path": "digits", "limit": 0}, InvalidSetting, "at least 1"),
        ({"name_or_path": "digits", "skip": -1}, InvalidSetting, "at least 0"),
        ({"name_or_path": "digits", "limit": 2.5}, InvalidSetting, "limit = 2.5"),
        ({"name_or_path": "digits", "limit": "3"}, InvalidSetting, "limit = '3'"),
        ({"name_or_path": "digits", "skip": np.nan}, InvalidSetting, "skip = nan"),
        ({"name_or_path": "digits@6٤x64"}, DataNotFound, "digits@6٤x64"),
        ({"name_or_path": "digits", "skip": 10**6}, InvalidSetting, "beyond its end"),
    ],
)
def test_requests_that_name_no_data(arguments, error, cause):
    with pytest.raises(error, match=cause):
        data.load(**arguments)


class _Server(http.server.BaseHTTPRequestHandler):
    content: ClassVar[dict[str, bytes]] = {}

    def do_GET(self):
        body = self.content.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args):
        pass


def test_download_into_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataNotFound, match="cannot be written"):
        fetch(RemoteFile(["http://127.0.0.1:9/f"], "sha256:0", 1), tmp_path / "file" / "f")


@pytest.fixture
def server():
    """A mirror on the loopback interface; yields its address and its table of files."""
    _Server.content = {}
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", _Server.content
    httpd.shutdown()
    httpd.server_close()


def test_download_keeps_only_the_published_bytes(tmp_path, server):
    address, content = server
    content["/good"], content["/bad"] = b"the file", b"not the file"
    digest = "sha256:" + hashlib.sha256(b"the file").hexdigest()
    good = RemoteFile([f"{address}/missing", f"{address}/good"], digest, 100)
    assert fetch(good, tmp_path / "deep" / "f").read_bytes() == b"the file"
    with pytest.raises(UntrustedFile, match="not the published file"):
        fetch(RemoteFile([f"{address}/bad"], digest, 100), tmp_path / "g")
    with pytest.raises(DataNotFound, match="longer than 4 bytes"):
        fetch(RemoteFile([f"{address}/good"], digest, 4), tmp_path / "g")
    with pytest.raises(DataNotFound, match="404"):
        fetch(RemoteFile([f"{address}/missing"], digest, 100), tmp_path / "g")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"], "nothing unverified is left behind"


def test_download_of_mnist_checks_the_unpacked_content(tmp_path, server, monkeypatch):
    address, content = server
    source = tmp_path / "source"
    images, _ = write_mnist(source)
    table = {}
    for path in source.iterdir():
        content[f"/{path.name}"] = gzip.compress(gzip.decompress(path.read_bytes()), 1)
        digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        table[path.name] = RemoteFile([f"{address}/{path.name}"], f"sha256:{digest}", 2**20, unpacked=True)
    monkeypatch.setitem(FILES, "mnist", table)
    found = data.load("mnist", root=tmp_path / "root", download=True)
    assert np.array_equal((found.x[:, 0] * 255).round().numpy(), images)
    content.clear()
    assert data.load("mnist", root=tmp_path / "root").digest() == found.digest()
