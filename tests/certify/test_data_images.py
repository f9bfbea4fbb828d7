"""Image sets in their standard layouts, small copies of which the tests make."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from certify import data
from certify.contract import IGNORE
from certify.data import pixels
from certify.data.shapes import relabel_blocks
from certify.errors import DataNotFound, InvalidInput, InvalidSetting, UnreadableFile, UntrustedFile

RNG = np.random.default_rng(0)


def picture(path, height=6, width=8, *, mode="RGB", value=None):
    """Write one random (or constant) image and return its array."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    array = RNG.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def test_eight_bit_values_are_divided_exactly(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(every).save(tmp_path / name / "1.png")
    found = data.load(tmp_path).x[0, 0].numpy()
    assert np.array_equal(found, (every / 255).astype(np.float32)), "the float nearest to k/255"


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
