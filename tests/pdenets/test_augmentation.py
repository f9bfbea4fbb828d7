"""Crops and flips: against a loop that moves pixels one by one, and what they are drawn from."""

import dataclasses

import numpy as np
import pytest
import torch

import certify
from certify.contract import IGNORE
from certify.data import load
from certify.data.dataset import Dataset, whole_split
from certify.errors import InvalidSetting, RunConflict
from pdenets import training
from pdenets.augmentation import Augmentation, augmentation
from pdenets.defaults import defaults_for
from pdenets.training import train
from pdenets.training_state import state_path


def by_hand(image, shift, flip, padding, fill):
    """The augmented image (channels, height, width), pixel by pixel."""
    _, height, width = image.shape
    out = np.full(image.shape, fill, dtype=image.dtype)
    for row in range(height):
        for column in range(width):
            r, c = row + shift[0] - padding, (width - 1 - column if flip else column) + shift[1] - padding
            if 0 <= r < height and 0 <= c < width:
                out[:, row, column] = image[:, r, c]
    return out


@pytest.mark.parametrize("flip", [True, False])
def test_pixels_go_where_a_loop_puts_them(flip):
    x = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    draws = Augmentation(2, flip, fill=-1.0, seed=3).epoch(1, 40)
    found, y = draws.apply(x, torch.arange(40), torch.arange(40))
    assert y.tolist() == list(range(40))
    assert found.is_contiguous()
    for i in range(40):
        expected = by_hand(x[i].numpy(), draws.shifts[i].tolist(), bool(draws.flips[i]), 2, -1.0)
        assert np.array_equal(found[i].numpy(), expected)
    assert draws.flips.any() == flip


def test_label_maps_go_with_their_images_and_nothing_comes_in_from_outside():
    y = torch.randint(0, 3, (30, 7, 7), generator=torch.Generator().manual_seed(1))
    draws = Augmentation(3, True, fill=9.0, seed=0).epoch(2, 30)
    x, moved = draws.apply(y[:, None].float(), y, torch.arange(30))
    inside = x[:, 0] != 9.0
    assert torch.equal(x[:, 0][inside].long(), moved[inside])
    assert (moved[~inside] == IGNORE).all()
    assert 0 < (~inside).float().mean() < 0.5


def test_every_shift_is_drawn_alike_and_half_are_mirrored():
    draws = Augmentation(4, True, 0.0, seed=5).epoch(1, 81_000)
    counts = torch.bincount(draws.shifts[:, 0] * 9 + draws.shifts[:, 1], minlength=81)
    # Each count is Bin(81 000, 1/81): six standard deviations around 1000.
    assert ((counts - 1000).abs() < 190).all()
    assert abs(float(draws.flips.float().mean()) - 0.5) < 0.011


def test_what_an_image_looks_like_depends_on_seed_epoch_and_row_alone():
    x = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = Augmentation(4, True, 0.0, seed=7)
    every, some = torch.arange(50), torch.tensor([40, 3, 17])
    at_once = whole.epoch(3, 50).apply(x, every, every)[0]
    assert torch.equal(whole.epoch(3, 50).apply(x[some], some, some)[0], at_once[some])
    for other in (whole.epoch(4, 50), dataclasses.replace(whole, seed=8).epoch(3, 50)):
        assert not torch.equal(other.apply(x, every, every)[0], at_once)


def images(name="pictures"):
    x = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    y = (x.mean(dim=(1, 2, 3)) > 0.5).long()
    return Dataset(name, "train", x, y, 2, 0.0, 1.0, None, whole_split(60), ("dark", "light"))


SETTINGS = {"arch": "mlp", "sigma": 0.1, "epochs": 4, "batch_size": 16}


class Interrupted(Exception):
    pass


def stop_in_third(progress):
    if progress.epoch == 3 and progress.step == 2:
        raise Interrupted


def weights(path):
    return certify.load(path).state_dict()


def test_a_resumed_training_ends_with_the_weights_of_one_that_was_not_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    plain = train(images(), **SETTINGS, out=tmp_path / "plain.pt")
    train(images(), **SETTINGS, augment="crop-flip", out=tmp_path / "straight.pt")
    resumed = tmp_path / "resumed.pt"
    with pytest.raises(Interrupted):
        train(images(), **SETTINGS, augment="crop-flip", out=resumed, progress=stop_in_third)
    assert state_path(resumed).exists()
    with pytest.raises(RunConflict, match=r"other settings"):
        train(images(), **SETTINGS, augment="crop", out=resumed)
    assert train(images(), **SETTINGS, augment="crop-flip", out=resumed).resumed_from == 2
    first, again, bare = (weights(tmp_path / f"{n}.pt") for n in ("straight", "resumed", "plain"))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], bare[k]) for k in first)
    headers = [certify.load(tmp_path / f"{n}.pt").certify_header.training for n in ("straight", "plain")]
    assert [h["augment"] for h in headers] == ["crop-flip", "none"]
    assert plain.final.epoch == 4


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_cropped_and_flipped_unless_told_otherwise(name, tmp_path):
    assert defaults_for(name).augment == "crop-flip"
    for asked, kept in ((None, "crop-flip"), ("none", "none")):
        train(images(name), **SETTINGS | {"epochs": 1}, augment=asked, out=tmp_path / "net.pt")
        assert certify.load(tmp_path / "net.pt").certify_header.training["augment"] == kept
    assert {defaults_for(other).augment for other in ("mnist", "digits", "moons", "shapes")} == {"none"}


def test_a_segmentation_trains_on_moved_maps(tmp_path):
    data = load("shapes", split="train", limit=6)
    small = {
        "arch": "unet",
        "arguments": {"width": 2, "depth": 1},
        "sigma": 0.1,
        "epochs": 2,
        "batch_size": 3,
    }
    result = train(data, **small, augment="crop-flip", out=tmp_path / "net.pt")
    assert result.skipped_steps == 0
    assert np.isfinite(result.final.loss)


def test_vectors_and_unknown_names_are_refused_before_the_first_step(tmp_path):
    moons = load("moons", split="train", limit=50)
    with pytest.raises(InvalidSetting, match="cannot be used with moons"):
        train(moons, **SETTINGS, augment="crop", out=tmp_path / "net.pt")
    with pytest.raises(InvalidSetting, match="'mixup' is unknown"):
        train(images(), **SETTINGS, augment="mixup", out=tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []
    assert augmentation("none", moons, seed=0) is None
