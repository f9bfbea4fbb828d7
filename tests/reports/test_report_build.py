"""The report of a run with known geometry: files, words, numbers and what must never appear."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import reports
from certify.errors import InvalidSetting, UnreadableFile
from certify.laws import LAWS, law_of
from certify.records import Run
from reports.evidence import Evidence
from reports.words import formula_refutation, headline
from tests.reports.evidence_fixture import FakeStored, stored_run


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, FakeStored]:
    path = tmp_path_factory.mktemp("runs") / "moon & sun"
    stored = stored_run(path)
    reports.build(stored)
    return path, stored


class Addresses(HTMLParser):
    """Everything a browser would fetch, and every element that must be closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "circle", "rect", "line", "path", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "data", "srcset", "poster", "action") and value:
                self.fetched.append(value)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open[-1:] == [tag], f"</{tag}> closes something else"
            self.open.pop()


def test_files_are_written_where_the_run_lives(built):
    path, _ = built
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert {"report.html", "table.tex", "card.md"} <= names
    assert {"plots/accuracy.svg", "plots/sandwich.svg", "plots/outcome.svg"} <= names
    assert not [n for n in names if n.endswith(".tmp")]


def test_page_is_well_formed_and_fetches_nothing(built):
    page = (built[0] / "report.html").read_text(encoding="utf-8")
    parser = Addresses()
    parser.feed(page)
    assert parser.open == []
    assert [a for a in parser.fetched if not a.startswith(("#", "data:"))] == []
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?data:)", page)
    assert "moon &amp; sun" in page
    assert "moon & sun" not in page


def test_same_records_give_the_same_bytes(built, tmp_path):
    path, stored = built
    reports.build(stored, tmp_path)
    for file in (p for p in path.rglob("*") if p.is_file()):
        assert (tmp_path / file.relative_to(path)).read_bytes() == file.read_bytes(), file.name


def test_plots_are_documents_with_title_and_description(built):
    for file in (built[0] / "plots").iterdir():
        root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
        space = "{http://www.w3.org/2000/svg}"
        assert root.find(f"{space}title") is not None, file.name
        assert root.find(f"{space}desc").text, file.name
        assert "nan" not in file.read_text(encoding="utf-8").lower().replace("nance", "")


def test_printed_formula_is_flagged_and_refuted_by_an_input(built):
    page = (built[0] / "report.html").read_text(encoding="utf-8")
    row = next(r for r in page.split("<tr") if "As printed" in r)
    assert "not a certificate" in row
    assert 'class="unsound"' in "<tr" + row
    assert "Refuted by input" in page
    for title in ("Cohen et al.", "Margin", "Lipschitz", "Dimension form"):
        sound = next(r for r in page.split("<tr") if f">{title}<" in r)
        assert "chip good" in sound
        assert "0 of" in sound


def test_headline_counts_what_was_proved_at_its_radius(built):
    _, stored = built
    evidence = Evidence.of(stored)
    assert evidence.headline_radius == 0.5
    proved = sum(bool(r.correct) and r.radius >= 0.5 for r in stored.run)
    assert headline(evidence).share.startswith(f"{100 * proved / len(stored.run):.1f}")


def test_words_never_promise_more_than_an_attack_can_show(built):
    for name in ("report.html", "card.md", "table.tex"):
        text = (built[0] / name).read_text(encoding="utf-8")
        text = re.sub(r"<style>.*?</style>|<script.*?</script>", "", text, flags=re.S)
        text = text.replace("robustness report", "").replace("## Robustness", "")
        assert not re.search(r"\brobust", text, flags=re.I), name
    assert "survived preset" in (built[0] / "card.md").read_text(encoding="utf-8")


def test_contradiction_invalidates_the_page_loudly(tmp_path):
    stored = stored_run(tmp_path / "bad", inputs=40)
    best = max((r for r in stored.run if r.correct), key=lambda r: r.radius)
    inside = next(o for o in stored.attacks if o["index"] == best.index and o["smoothed"])
    inside |= {"status": "broken", "prediction": (best.label + 1) % 10}
    inside |= {"distance": best.radius * 0.9, "distance_l2": best.radius * 0.9}
    files = reports.build(stored)
    page = files.html.read_text(encoding="utf-8")
    assert 'role="alert"' in page
    assert "This run is invalid" in page
    assert "This run is invalid" in files.card.read_text(encoding="utf-8")
    assert [o["index"] for o in Evidence.of(stored).contradictions] == [best.index]


def test_clean_run_raises_no_alarm(built):
    assert 'role="alert"' not in (built[0] / "report.html").read_text(encoding="utf-8")


def test_run_without_attacks_bounds_or_ledger_still_reports(tmp_path):
    stored = stored_run(tmp_path / "plain", inputs=12)
    stored.attacks, stored.documents, stored.stored_arrays = [], {}, {}
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "has not been attacked" in page
    assert "half-space" in page  # the printed formula is still refuted
    assert not (tmp_path / "plain" / "plots" / "sandwich.svg").exists()


def test_run_without_labels_speaks_of_share_not_accuracy(tmp_path):
    stored = stored_run(tmp_path / "unlabelled", inputs=12)
    stored.attacks = []
    records = [replace(r, target=None) for r in stored.run]
    stored.run = Run(records, stored.settings, stored.guarantee)
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "given one fixed class" in page
    assert "Certified share" in page


def test_run_with_nothing_certified_reports(tmp_path):
    stored = stored_run(tmp_path / "none", inputs=5)
    records = [replace(r, status="abstained", label=None, radius=0.0, radius_upper=0.0) for r in stored.run]
    stored.run = Run(records, stored.settings, stored.guarantee)
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "0.0\u00a0%" in page


def test_empty_run_reports(tmp_path):
    stored = stored_run(tmp_path / "empty", inputs=3)
    stored.run, stored.attacks = Run([], stored.settings, stored.guarantee), []
    assert "No input" in reports.build(stored).html.read_text(encoding="utf-8")


def test_hostile_names_are_escaped_everywhere(tmp_path):
    stored = stored_run(tmp_path / "hostile", inputs=6)
    bad = "<script>alert(1)</script>"
    stored.settings["command"] = bad
    stored.settings["data"]["name"] = bad + "_50%&$"
    stored.settings["data"]["classes"] = [bad] * 10
    stored.documents["ledger"]["claims"][0]["statement"] = bad
    files = reports.build(stored)
    assert "<script>alert" not in files.html.read_text(encoding="utf-8")
    for plot in files.plots:
        assert "<script>" not in plot.read_text(encoding="utf-8")


def test_nowhere_to_write_is_explained():
    with pytest.raises(InvalidSetting, match="nowhere to write"):
        reports.build(stored_run(None, inputs=3))


def test_missing_run_is_explained(tmp_path):
    with pytest.raises(UnreadableFile):
        reports.build(tmp_path / "nothing")


def test_no_example_gives_no_sentence():
    assert formula_refutation(None) == ""


def test_ledger_is_grouped_and_a_violated_theorem_alarms(tmp_path):
    stored = stored_run(tmp_path / "ledger", inputs=8)
    assert 'role="alert"' not in reports.build(stored).html.read_text(encoding="utf-8")
    stored.documents["ledger"]["claims"][1]["status"] = "violated"
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "The evidence contradicts a theorem: T2" in page
    assert page.count('class="claim"') == 3


def test_run_from_the_library_without_provenance_reports(tmp_path):
    stored = stored_run(tmp_path / "bare", inputs=8)
    for key in ("model", "data", "command", "versions", "bounds"):
        del stored.settings[key]
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "lattice noise" in page


@pytest.mark.parametrize("noise", [*LAWS, {"name": "laplace"}, "of ours"])
def test_page_and_card_say_what_the_noise_does_not_cover(noise, tmp_path):
    stored = stored_run(tmp_path / "law", inputs=4)
    stored.settings["noise"] = noise
    law = law_of(stored.settings)
    files = reports.build(stored)
    for text in (files.html.read_text(encoding="utf-8"), files.card.read_text(encoding="utf-8")):
        said = html.unescape(text)
        assert ("assumes exact real arithmetic" in said) != law.exact
        assert law.caveat in said


def test_break_without_gradients_is_flagged_as_possible_masking(tmp_path):
    stored = stored_run(tmp_path / "masked", inputs=8)
    assert "may be masked" not in reports.build(stored).html.read_text(encoding="utf-8")
    hit = next(o for o in stored.attacks if not o["smoothed"] and o["status"] == "broken")
    hit["by_attack"] = "square-5000"
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "broke 1 input that every" in page
    assert "may be masked" in page
