"""The report of a segmentation run with known geometry: files, words, pictures."""

import re

import numpy as np
import pytest
import torch

import certify
import reports
from certify.errors import InvalidSetting
from certify.store import read_run
from reports.pixel_maps import _classes, colours, panels
from reports.segmentation import PixelEvidence
from tests.certify.pixel_half_spaces import PixelHalfSpaces
from tests.reports.test_report_build import Addresses

#: Two pixels near their hyperplanes, one of class 1, the rest far away.
DISTANCES = np.array([[2.5, 2.5, 0.02, 0.5], [-2.5, 2.5, 2.5, 2.5], [2.5, 2.5, 2.5, 2.5]])


def certified(path, *, labels=True, **options):
    model = PixelHalfSpaces(DISTANCES)
    g = certify.SmoothedSegmentation(model, 1.0, num_classes=2, noise="gaussian", bounds=None, batch_size=64)
    y = torch.tensor(np.broadcast_to(model.truth, (8, 3, 4)).copy())
    y[:, 2, 3] = 1  # a label that the model gets wrong
    y[:, 2, 2] = -100
    given = {"data": {"name": "half <spaces>", "split": "test", "classes": ["sky & sea", "land"]}}
    command = {"command": "certify radius --model half.pt"}
    g.certify(
        torch.zeros(8, 1, 3, 4), y if labels else None, n=300, store=path, settings=given | command, **options
    )
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("pixels")
    return {
        "bonferroni": certified(place / "each"),
        "holm": certified(place / "one", radius=0.8),
        "unlabelled": certified(place / "bare", labels=False),
    }


@pytest.mark.parametrize("name", ["bonferroni", "holm", "unlabelled"])
def test_the_page_is_whole_fetches_nothing_and_describes_every_picture(runs, name):
    files = reports.build(runs[name])
    text = files.html.read_text()
    page = Addresses()
    page.feed(text)
    assert page.open == []
    assert all(a.startswith(("#", "data:")) for a in page.fetched)
    assert "sky &amp; sea" in text
    assert "half &lt;spaces&gt;" in text
    pictures = re.findall(r"<img [^>]*>", text)
    alternatives = [re.search(r'alt="([^"]+)"', p) for p in pictures]
    assert len(pictures) >= 12
    assert all(a is not None and "mage" in a[1] for a in alternatives)
    assert files.table.read_text().count("\\\\") >= 2
    assert "### Guarantee" in files.card.read_text()
    assert [p.name for p in files.plots] == ["pixels.svg"]
    assert reports.build(runs[name]).html.read_text() == text, "the same records give the same bytes"


def test_the_headline_is_the_share_at_the_tested_radius(runs):
    text = reports.build(runs["holm"]).html.read_text()
    run = certify.SegmentationRun.open(runs["holm"])
    [estimate] = run.certified_correct([0.8])
    # 12 pixels, one without a label, one wrong, two too near: 8 of 11.
    assert estimate.value == 8 / 11
    assert "<em>72.7\u00a0%</em>" in text
    assert "size up to 0.8." in text
    assert "Holm" in text
    assert "25.0\u00a0%" not in text or "abstain" in text


def test_without_labels_nothing_is_called_correct(runs):
    text = reports.build(runs["unlabelled"]).html.read_text()
    assert "true class under" not in text
    assert "mean IoU" not in text
    assert ">truth<" not in text


def test_abstaining_pixels_are_hatched_and_no_class_has_their_colours(runs):
    picture = _classes(np.array([[0, 1], [-1, -2]]), 2)
    half = len(picture) // 2
    hatch = np.unique(picture[half:, :half].reshape(-1, 3), axis=0).tolist()
    assert hatch == [[96, 106, 117], [226, 229, 233]]
    assert picture[0, -1].tolist() == [230, 159, 0]
    assert (picture[-1, -1] == 255).all()
    names = colours(19)
    assert len(set(names)) == 19
    assert not {"#606a75", "#e2e5e9", "#ffffff"} & set(names)


def test_images_are_shown_from_most_certified_to_fewest(runs):
    shown = panels(PixelEvidence(read_run(runs["bonferroni"])))
    assert len(shown) == 6
    assert [p[0] for p in shown[0].pictures] == ["input", "truth", "certified", "radius"]
    shares = [float(p.caption.split("\u00a0")[0]) for p in shown]
    assert shares == sorted(shares, reverse=True)


def test_a_segmentation_is_not_compared_with_other_runs(runs):
    with pytest.raises(InvalidSetting, match="no comparison"):
        reports.compare([runs["holm"], runs["bonferroni"]])
