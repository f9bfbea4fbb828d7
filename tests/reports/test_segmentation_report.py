"""The report of a segmentation run with known geometry: files, words, pictures."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import certify
import reports
from attacks import Threat
from attacks.dense import attack_segmentation, challenge_segmentation
from certify.errors import InvalidSetting
from certify.store import open_run, read_run
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


class Stored:
    """A run with attacks beside it, as ``certify attack`` and ``--challenge`` leave it."""

    def __init__(self, path, factor=1.0):
        model = PixelHalfSpaces(DISTANCES)
        self.path = certified(path)
        with open_run(path, read_run(path).settings, read_run(path).guarantee) as store:
            g = certify.SmoothedSegmentation(
                model, 1.0, num_classes=2, noise="gaussian", bounds=None, batch_size=64
            )
            x, y = torch.zeros(2, 1, 3, 4), torch.tensor(np.stack([model.truth] * 2))
            threat = Threat(2, eps=0.7, bounds=None)
            run = certify.SegmentationRun.open(path)
            found = [
                *attack_segmentation(g, x, y, threat=threat),
                *attack_segmentation(model, x, y, threat=threat, preset="quick"),
                *challenge_segmentation(g, run, torch.zeros(8, 1, 3, 4)),
            ]
            for outcome in found:
                # A counterexample that is closer than any is: what a wrong radius would leave behind.
                near = tuple(
                    replace(a, distance=a.distance * factor, distance_l2=a.distance_l2 * factor)
                    for a in outcome.attempts
                )
                outcome = replace(outcome, attempts=near)
                store.add_attack(outcome.to_json())
                store.put_arrays(outcome.arrays_name, outcome.arrays())
            self.smoothed = found[:2]


def test_what_attacks_left_stands_beside_what_is_certified(tmp_path):
    stored = Stored(tmp_path / "attacked")
    evidence = PixelEvidence(read_run(stored.path))
    smoothed, base = evidence.attacks.rows
    assert (smoothed.target, base.target) == ("smoothed", "base model")
    assert smoothed.images == base.images == 2
    left = sum(int((o.right & ~o.reached).sum()) for o in stored.smoothed) / 24
    assert smoothed.survived == left
    assert smoothed.certified <= smoothed.survived <= smoothed.once <= smoothed.before == 1.0
    assert base.certified is None, "an attack on the base model is not set beside certificates"
    assert evidence.attacks.contradictions == ()
    assert evidence.attacks.challenged == (
        sum(int(i.maps.certified.sum()) for i in certify.SegmentationRun.open(stored.path)), 8,
    )  # fmt: skip
    files = reports.build(stored.path)
    text = files.html.read_text()
    assert 'id="attacks"' in text
    assert "No certified pixel was confirmed to change its class" in text
    assert "This run is invalid" not in text
    assert text.count("dot-wrong") >= 2
    assert "No certified pixel was confirmed" in files.card.read_text()
    shown = next(p for p in panels(evidence) if p.index == 0)
    assert "attacked" in [p[0] for p in shown.pictures]


def test_a_contradiction_is_an_alarm_on_the_page_and_in_the_card(tmp_path):
    stored = Stored(tmp_path / "liar", factor=0.01)
    evidence = PixelEvidence(read_run(stored.path))
    assert evidence.attacks.contradictions
    files = reports.build(stored.path)
    for text in (files.html.read_text(), files.card.read_text()):
        assert "This run is invalid" in text
        assert "changed class within the certified radius" in text


def test_a_run_that_was_not_attacked_says_so(runs):
    text = reports.build(runs["holm"]).html.read_text()
    assert "(none sought)" in text
    assert 'id="attacks"' not in text


def test_a_segmentation_is_not_compared_with_other_runs(runs):
    with pytest.raises(InvalidSetting, match="no comparison"):
        reports.compare([runs["holm"], runs["bonferroni"]])
