"""Image sets in their standard layouts, small copies of which the tests make."""

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from certify import data
from certify.contract import IGNORE
from certify.data import pixels
from certify.data.cifar import unpack
from certify.data.cifar_pickle import read_batch
from certify.data.download import FILES
from certify.data.shapes import relabel_blocks
from certify.errors import DataNotFound, InvalidInput, InvalidSetting, UnreadableFile, UntrustedFile
from tests.certify.hostile_tools import MARKER, Payload

RNG = np.random.default_rng(0)


def picture(path, height=6, width=8, *, mode="RGB", value=None):
    """Write one random (or constant) image and return its array."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    array = RNG.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


# ---- CIFAR -------------------------------------------------------------------------------------------


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


def test_eight_bit_values_are_divided_exactly(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(every).save(tmp_path / name / "1.png")
    found = data.load(tmp_path).x[0, 0].numpy()
    assert np.array_equal(found, (every / 255).astype(np.float32)), "the float nearest to k/255"


# ---- folders of images -------------------------------------------------------------------------------


def test_folder_with_one_subfolder_per_class(tmp_path):
    first = picture(tmp_path / "b_dog" / "2.png")
    picture(tmp_path / "b_dog" / "1.jpg")
    cats = [picture(tmp_path / "a_cat" / f"{k}.png") for k in range(3)]
    (tmp_path / "a_cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    found = data.load(tmp_path)
    assert found.classes == ("a_cat", "b_dog")
    assert found.y.tolist() == [0, 1, 0, 1, 0], "the classes take turns, so that every part covers them"
    assert found.input_shape == (3, 6, 8)
    assert np.array_equal((found.x[0] * 255).round().permute(1, 2, 0).numpy(), cats[0])
    assert np.array_equal((found.x[3] * 255).round().permute(1, 2, 0).numpy(), first)
    part = data.load(tmp_path, skip=1, limit=3)
    assert torch.equal(part.x, found.x[1:4])
    assert part.ids.tolist() == [1, 2, 3]
    with pytest.raises(InvalidSetting, match="beyond its end"):
        data.load(tmp_path, skip=5)


def test_folder_with_splits(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        for name in ("x", "y"):
            for k in range(count):
                picture(tmp_path / split / name / f"{k}.png")
    assert len(data.load(tmp_path, split="train")) == 6
    assert len(data.load(tmp_path, split="test")) == 2
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(DataNotFound, match="no folder test or val"):
        data.load(tmp_path, split="test")


def test_size_in_the_name_rescales_and_stays_in_the_name(tmp_path):
    picture(tmp_path / "x" / "1.png", 6, 8)
    picture(tmp_path / "y" / "1.png", 10, 10, value=51)
    with pytest.raises(InvalidInput, match=rf"{tmp_path}@6x8"):
        data.load(tmp_path)
    found = data.load(f"{tmp_path}@4x5")
    assert found.input_shape == (3, 4, 5)
    assert found.name == f"{tmp_path}@4x5", "a checkpoint's header names the data this way"
    assert torch.equal(found.x[1], torch.full((3, 4, 5), 51 / 255))
    steps = found.x.double() * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4), "rescaled images are 8-bit images again"
    with pytest.raises(InvalidSetting, match="fixed size"):
        data.load("mnist@14x14")


def test_grey_transparent_and_palette_images_become_colour(tmp_path):
    grey = picture(tmp_path / "x" / "1.png", mode="L")
    rgba = np.dstack([RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.full((6, 8), 9, np.uint8)])
    (tmp_path / "y").mkdir()
    Image.fromarray(rgba).save(tmp_path / "y" / "1.png")
    found = data.load(tmp_path)
    assert np.array_equal((found.x[0] * 255).round().numpy(), np.stack([grey] * 3))
    assert np.array_equal((found.x[1] * 255).round().permute(1, 2, 0).numpy(), rgba[..., :3])


@pytest.mark.parametrize(
    ("prepare", "cause"),
    [
        (lambda f: None, "0 folders"),
        (lambda f: picture(f / "only" / "1.png"), "1 folders"),
        (lambda f: (picture(f / "a" / "1.png"), (f / "b").mkdir()), "without images: b"),
    ],
)
def test_folders_that_are_no_image_set(tmp_path, prepare, cause):
    prepare(tmp_path)
    with pytest.raises(DataNotFound, match=cause) as caught:
        data.load(tmp_path)
    assert "FOLDER/CLASS/IMAGE.png" in caught.value.remedy


def png_claiming(width, height):
    """A tiny PNG whose header claims a giant."""
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "giant": (lambda p: p.write_bytes(png_claiming(8000, 8000)), UntrustedFile, "8000 x 8000"),
    "far beyond": (lambda p: p.write_bytes(png_claiming(60000, 60000)), UntrustedFile, "exhaust memory"),
    "within bounds but empty": (lambda p: p.write_bytes(png_claiming(500, 500)), UnreadableFile, "cut off"),
    "text": (lambda p: p.write_text("hello"), UnreadableFile, "known format"),
    "empty": (lambda p: p.touch(), UnreadableFile, "empty"),
    "16 bits": (
        lambda p: Image.fromarray(np.zeros((6, 8), np.uint16)).save(p), UnreadableFile, "not of 8 bits"),
    "postscript": (
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n"),
        UnreadableFile, "known format"),
    "dangling": (lambda p: p.symlink_to("nowhere"), UnreadableFile, "link to nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images_that_cannot_be_read(tmp_path, case):
    write, error, cause = BAD_IMAGES[case]
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "1.png")
    with pytest.raises(error, match=cause):
        data.load(tmp_path)


def test_truncated_photographs(tmp_path):
    picture(tmp_path / "a" / "1.png", 40, 40)
    picture(tmp_path / "b" / "1.jpg", 40, 40)
    whole = (tmp_path / "b" / "1.jpg").read_bytes()
    for end in (10, len(whole) // 2):
        (tmp_path / "b" / "1.jpg").write_bytes(whole[:end])
        with pytest.raises(UnreadableFile):
            data.load(tmp_path)


def test_too_much_for_memory_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    for name in ("a", "b"):
        picture(tmp_path / name / "1.png", 40, 40)
    monkeypatch.setattr(pixels, "MAX_BYTES", 2 * 40 * 40 * 18 - 1)
    with pytest.raises(InvalidSetting, match="--limit"):
        data.load(tmp_path)
    assert len(data.load(tmp_path, limit=1)) == 1


# ---- segmentation ------------------------------------------------------------------------------------


def city(root, folder, name, ids):
    stem = f"{name}_000000_000019"
    image = picture(root / "leftImg8bit" / folder / name / f"{stem}_leftImg8bit.png", *ids.shape)
    labels = root / "gtFine" / folder / name / f"{stem}_gtFine_labelIds.png"
    labels.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(labels)
    return image


def test_cityscapes(tmp_path):
    ids = np.array([[7, 8, 11, 0], [33, 29, 26, 255]])
    image = city(tmp_path / "cityscapes", "val", "ulm", ids)
    city(tmp_path / "cityscapes", "train", "aachen", ids[::-1])
    found = data.load("cityscapes", root=tmp_path)
    assert found.task == "segmentation"
    assert found.num_classes == len(found.classes) == 19
    assert found.y.tolist() == [[[0, 1, 2, IGNORE], [18, IGNORE, 13, IGNORE]]]
    assert found.classes[13] == "car"
    assert np.array_equal((found.x[0] * 255).round().permute(1, 2, 0).numpy(), image)
    assert data.load("cityscapes", root=tmp_path, split="train").y[0, 1].tolist() == [0, 1, 2, IGNORE]
    double = data.load("cityscapes@4x8", root=tmp_path)
    assert torch.equal(double.y[0], found.y[0].repeat_interleave(2, 0).repeat_interleave(2, 1))
    (tmp_path / "cityscapes" / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(UnreadableFile, match="1 of 1 images of cityscapes have no label map"):
        data.load("cityscapes", root=tmp_path)


@pytest.mark.parametrize("place", ["wbc", "segmentation_WBC-master", "."])
def test_white_blood_cells(tmp_path, place):
    folder = tmp_path / place / "Dataset 1"
    for k in range(1, 11):
        picture(folder / f"{k:03}.bmp", 4, 4)
        Image.fromarray(np.array([[0, 128, 255, 250]] * 4, np.uint8)).save(folder / f"{k:03}.png")
    train, test = (data.load("wbc", root=tmp_path, split=s) for s in ("train", "test"))
    assert len(train) + len(test) == 10
    assert len(test) in (2, 3)
    assert train.y[0, 0].tolist() == [0, 1, 2, 2]
    assert train.classes == ("background", "cytoplasm", "nucleus")
    everything = torch.cat([train.x, test.x]).flatten(1).unique(dim=0)
    assert len(everything) == 10, "the splits share no image"


def test_data_science_bowl(tmp_path):
    for k in range(5):
        case = tmp_path / "dsb2018" / "stage1_train" / f"id{k}"
        picture(case / "images" / f"id{k}.png", 6 + k, 8)
        for m in range(2):
            mask = np.zeros((6 + k, 8), np.uint8)
            mask[m, :] = 255
            (case / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(case / "masks" / f"m{m}.png")
    found = data.load("dsb2018@6x8", root=tmp_path, split="train")
    assert found.name == "dsb2018@6x8"
    first = found.y[found.ids == 0]
    assert found.y.max() == 1
    assert first.sum() in (8, 16)
    assert data.load("dsb2018", root=tmp_path, split="train", limit=1).input_shape == (3, 256, 256)
    for mask in (tmp_path / "dsb2018").rglob("m*.png"):
        mask.unlink()
    with pytest.raises(UnreadableFile, match="no mask"):
        data.load("dsb2018", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("cityscapes", "gtFine/val/CITY"), ("wbc", "Dataset 1/001.bmp"), ("dsb2018", "stage1_train/ID/masks"),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin"), ("cifar100", "cifar-100-python/test"),
        ("fashion-mnist", "fashion-mnist/t10k-images-idx3-ubyte.gz"),
    ],
)  # fmt: skip
def test_missing_sets_name_their_layout(tmp_path, name, layout):
    with pytest.raises(DataNotFound) as caught:
        data.load(name, root=tmp_path)
    assert layout in caught.value.why
    assert "--data-root" in caught.value.remedy
    assert str(tmp_path) in caught.value.what


def test_synthetic_shapes():
    clean, noisy = (data.load(name, split="train") for name in ("shapes", "shapes-noisy"))
    assert clean.x.shape == (24, 1, 32, 32)
    assert clean.task == noisy.task == "segmentation"
    assert torch.equal(clean.x, noisy.x)
    assert torch.equal(clean.y.unique(), torch.arange(3))
    steps = clean.x.double() * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert data.load("shapes").digest() != data.load("shapes", seed=1).digest()
    assert torch.equal(data.load("shapes").y, data.load("shapes-noisy").y), "test labels are always clean"
    assert len(data.load("shapes")) == 96


def test_label_noise_relabels_the_stated_share_of_blocks():
    clean, noisy = (data.load(name, split="train").y for name in ("shapes", "shapes-noisy"))
    by_block = lambda y: y.reshape(24, 16, 2, 16, 2).permute(0, 1, 3, 2, 4).flatten(3)  # noqa: E731
    changed = (by_block(clean) != by_block(noisy)).any(-1)
    assert (by_block(noisy)[changed] == by_block(noisy)[changed][:, :1]).all(), (
        "a relabelled block has one class"
    )
    # 102 of 256 blocks of each map are drawn, and two in three of them get another class: a count of
    # changed blocks beyond 102 is impossible, and the total lies within 4 standard deviations.
    assert changed.flatten(1).sum(1).max() <= 102
    expected, deviation = 24 * 102 * 2 / 3, (24 * 102 * 2 / 9) ** 0.5
    assert abs(int(changed.sum()) - expected) < 4 * deviation + 24 * 2  # a mixed block always changes


def test_label_noise_of_everything_leaves_nothing_to_chance():
    labels = np.zeros((2, 4, 4), dtype=np.int64)
    assert np.array_equal(relabel_blocks(labels, seed=0, share=0.0), labels)
    spoilt = relabel_blocks(labels + 7, seed=0, share=1.0)
    assert spoilt.max() <= 2, "every block was drawn"
    assert labels.max() == 0, "the given labels are left alone"


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b"):
        picture(tmp_path / "set" / name / "1.png")
    assert len(data.load("~/set")) == 2
    assert Path("~/set").expanduser() == tmp_path / "set"
    assert os.path.isdir(tmp_path / "set")
