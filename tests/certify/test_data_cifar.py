"""CIFAR in its binary and Python layouts: read without unpickling, unpacked without trust."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from certify import data
from certify.data.cifar import unpack
from certify.data.cifar_pickle import read_batch
from certify.data.download import FILES
from certify.errors import UnreadableFile, UntrustedFile
from tests.certify.hostile_tools import MARKER, Payload

RNG = np.random.default_rng(0)


def records(n, num_classes, label_bytes):
    labels = RNG.integers(0, num_classes, n, dtype=np.uint8)
    images = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    coarse = np.zeros((n, label_bytes - 1), np.uint8)
    return np.concatenate([coarse, labels[:, None], images], axis=1).tobytes(), images, labels


SETS = {
    "cifar10": (
        10,
        1,
        "cifar-10-batches-bin",
        [f"data_batch_{k}.bin" for k in range(1, 6)],
        "test_batch.bin",
    ),
    "cifar100": (100, 2, "cifar-100-binary", ["train.bin"], "test.bin"),
}


def write_cifar(folder, name):
    """Both splits in the binary layout; {split: (images, labels)}."""
    num_classes, label_bytes, inside, train, test = SETS[name]
    (folder / inside).mkdir(parents=True)
    found = {}
    for split, files in (("train", train), ("test", [test])):
        parts = []
        for file in files:
            content, images, labels = records(4, num_classes, label_bytes)
            (folder / inside / file).write_bytes(content)
            parts.append((images, labels))
        found[split] = tuple(np.concatenate(p) for p in zip(*parts, strict=True))
    return found


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("place", ["", "NAME"])
def test_cifar_in_the_binary_layout(tmp_path, name, place):
    expected = write_cifar(tmp_path / place.replace("NAME", name), name)
    for split in ("train", "test"):
        images, labels = expected[split]
        found = data.load(name, root=tmp_path, split=split)
        assert found.input_shape == (3, 32, 32)
        assert (found.bounds, found.grid, found.num_classes) == ((0.0, 1.0), 1 / 255, SETS[name][0])
        assert np.array_equal((found.x * 255).round().numpy().reshape(-1, 3072), images)
        assert np.array_equal(found.y.numpy(), labels)
    part = data.load(name, root=tmp_path, skip=1, limit=2)
    assert part.ids.tolist() == [1, 2]
    assert np.array_equal(part.y.numpy(), expected["test"][1][1:3])


def test_cifar_class_names_come_from_the_set(tmp_path):
    write_cifar(tmp_path, "cifar10")
    names = [f"class {k}" for k in range(10)]
    (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    assert data.load("cifar10", root=tmp_path).classes == tuple(names)


def python2_batch(images, labels, key):
    """The bytes of a batch as Python 2 and its numpy wrote it: byte strings, protocol 2."""
    text = lambda s: b"U" + bytes([len(s)]) + s.encode()  # noqa: E731
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    dtype = (
        b"cnumpy\ndtype\n("
        + text("u1")
        + b"K\x00K\x01tR(K\x03"
        + text("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
    raw = images.tobytes()
    state = b"(K\x01(" + number(images.shape[0]) + number(images.shape[1]) + b"t" + dtype + b"\x89T"
    state += struct.pack("<I", len(raw)) + raw + b"tb"
    rows = b"(" + b"".join(number(int(label)) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text("data")
        + array
        + state
        + text(key)
        + b"]"
        + rows
        + text("batch_label")
        + text("b 1")
        + b"u."
    )


def python3_batch(images, labels, key):
    table = {"data": images, key: [int(label) for label in labels], "filenames": ["a.png"] * len(labels)}
    return pickle.dumps(table, protocol=2)


@pytest.mark.parametrize("writer", [python2_batch, python3_batch])
@pytest.mark.parametrize("name", SETS)
def test_cifar_python_batches_are_read_without_unpickling(tmp_path, monkeypatch, name, writer):
    key = "labels" if name == "cifar10" else "fine_labels"
    inside, file = (
        ("cifar-10-batches-py", "test_batch") if name == "cifar10" else ("cifar-100-python", "test")
    )
    images = RNG.integers(0, 256, (5, 3072), dtype=np.uint8)
    labels = RNG.integers(0, 10, 5)
    content = writer(images, labels, key)
    reread = pickle.loads(content, encoding="latin1")  # the handmade bytes are what numpy would write
    assert np.array_equal(reread["data"], images)
    (tmp_path / inside).mkdir()
    (tmp_path / inside / file).write_bytes(content)
    for loader in (pickle, "numpy"):
        monkeypatch.setattr(pickle if loader is pickle else np, "load", _forbidden)
    monkeypatch.setattr(pickle, "loads", _forbidden)
    monkeypatch.setattr(pickle, "Unpickler", _forbidden)
    found = data.load(name, root=tmp_path)
    assert np.array_equal((found.x * 255).round().numpy().reshape(-1, 3072), images)
    assert found.y.tolist() == labels.tolist()


def _forbidden(*args, **kwargs):
    raise AssertionError("a pickle was loaded")


GOOD_IMAGES = np.zeros((2, 3072), np.uint8)


def dumped(**table):
    return pickle.dumps(table, protocol=2)


def batch(labels=(0, 1), key="labels"):
    return python2_batch(GOOD_IMAGES, labels, key)


def lying_shape():
    return batch().replace(b"J" + struct.pack("<i", 2), b"J" + struct.pack("<i", 2**30))


BAD_BATCHES = {
    "payload": (lambda f: dumped(data=Payload(f), labels=[0]), UntrustedFile, "system"),
    "payload as label": (lambda f: dumped(data=GOOD_IMAGES, labels=[Payload(f), 1]), UntrustedFile, "system"),
    "objects": (lambda f: dumped(data=np.array([Payload(f)] * 2), labels=[0, 1]), UntrustedFile, "dtype"),
    "floats": (lambda f: dumped(data=np.zeros((2, 3072)), labels=[0, 1]), UntrustedFile, "dtype"),
    "column order": (lambda f: dumped(data=np.asfortranarray(GOOD_IMAGES)), UntrustedFile, "row order"),
    "shape is a lie": (lambda f: lying_shape(), UnreadableFile, "2 labels and data"),
    "label short": (lambda f: batch(labels=[0]), UnreadableFile, "1 labels"),
    "label negative": (lambda f: batch(labels=[0, -1]), UnreadableFile, "class numbers"),
    "no labels": (lambda f: batch(key="other"), UnreadableFile, "no list 'labels'"),
    "a list": (lambda f: pickle.dumps([1, 2], protocol=2), UnreadableFile, "no table"),
    "cut off": (lambda f: batch()[:-300], UntrustedFile, "well-formed"),
    "not a pickle": (lambda f: b"<html>", UntrustedFile, "well-formed"),
    "persistent": (lambda f: b"\x80\x02K\x01Q.", UntrustedFile, "outside itself"),
    "calls a type": (lambda f: b"\x80\x02cnumpy\nndarray\n(K\x05tR.", UntrustedFile, "calls numpy.ndarray"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_python_batches_that_are_no_images(tmp_path, case):
    write, error, cause = BAD_BATCHES[case]
    path = tmp_path / "test_batch"
    path.write_bytes(write(tmp_path))
    with pytest.raises(error, match=cause):
        read_batch(path, "labels")
    assert not (tmp_path / MARKER).exists()


def make_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)


def test_cifar_archive_is_unpacked_beside_itself(tmp_path):
    images, labels = write_cifar(tmp_path / "made", "cifar10")["test"]
    inside = tmp_path / "made" / "cifar-10-batches-bin"
    (tmp_path / "cifar10").mkdir()
    members = {f"cifar-10-batches-bin/{p.name}": p.read_bytes() for p in inside.iterdir()}
    make_archive(
        tmp_path / "cifar10" / "cifar-10-binary.tar.gz", members | {"../escaped": b"x", "/abs": b"y"}
    )
    found = data.load("cifar10", root=tmp_path)
    assert np.array_equal(found.y.numpy(), labels)
    assert len(images) == len(found)
    assert not (tmp_path / "escaped").exists()
    assert sorted(p.name for p in (tmp_path / "cifar10").iterdir()) == [
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
    ]


def test_archives_that_are_not_what_they_should_be(tmp_path):
    path = tmp_path / "a.tar.gz"
    make_archive(path, {"f/other.bin": b"1"})
    with pytest.raises(UnreadableFile, match=r"does not contain f/a\.bin"):
        unpack(path, "f", ["a.bin"])
    make_archive(path, {"f/a.bin": "/etc/passwd"})
    with pytest.raises(UnreadableFile, match="does not contain"):
        unpack(path, "f", ["a.bin"])
    make_archive(path, {"f/a.bin": bytes(100)})
    with pytest.raises(UnreadableFile, match="claims 100 bytes"):
        unpack(path, "f", ["a.bin"], max_bytes=99)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UnreadableFile, match="could not be unpacked"):
        unpack(path, "f", ["a.bin"])
    path.write_bytes(gzip.compress(b"no tar" * 200))
    with pytest.raises(UnreadableFile, match=r"could not be unpacked|does not contain"):
        unpack(path, "f", ["a.bin"])


def test_damaged_cifar_files(tmp_path):
    write_cifar(tmp_path, "cifar10")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UnreadableFile, match="no whole number of 3073-byte records"):
        data.load("cifar10", root=tmp_path)
    path.write_bytes(b"\x0a" + content[1:])
    with pytest.raises(UnreadableFile, match="label 10"):
        data.load("cifar10", root=tmp_path)


def test_every_download_has_a_checksum_and_a_bound():
    for files in FILES.values():
        for remote in files.values():
            kind, _, digest = remote.digest.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[kind]
            assert remote.urls
            assert all(url.startswith("https://") for url in remote.urls)
            assert 0 < remote.size <= 2**28
