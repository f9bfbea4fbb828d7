"""The badge says what the page says, and nothing more."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

import certify
import reports
from reports.badge import CLAIMED, INVALID, PROVED, badge
from reports.evidence import Evidence
from reports.words import headline
from tests.reports.evidence_fixture import stored_run


def words(svg: str) -> str:
    root = ElementTree.fromstring(svg)
    said = " ".join(part.text or "" for part in root.iter() if part.tag.endswith("}text"))
    title = next(part.text for part in root.iter() if part.tag.endswith("}title"))
    assert title == said == root.get("aria-label")
    return said


def test_it_repeats_the_headline_of_the_page(tmp_path):
    stored = stored_run(tmp_path / "run")
    evidence = Evidence.of(stored)
    svg = badge(stored)
    assert words(svg) == f"certified {headline(evidence).share} @ l2 {evidence.headline_radius:.2f}"
    assert PROVED in svg
    assert reports.build(stored).badge.read_text(encoding="utf-8") == svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_the_share_is_rounded_down(tmp_path, monkeypatch):
    stored = stored_run(tmp_path / "run")
    two_of_three = replace(Evidence.of(stored).certified_accuracy([0.0])[0], value=2 / 3)
    monkeypatch.setattr(Evidence, "certified_accuracy", lambda self, at: [two_of_three])
    assert "66.6\u00a0% @" in words(badge(stored))


def test_what_an_attack_contradicts_is_invalid(tmp_path, monkeypatch):
    stored = stored_run(tmp_path / "run")
    monkeypatch.setattr(Evidence, "contradictions", property(lambda self: [object()]))
    svg = badge(stored)
    assert words(svg) == "certificates invalid"
    assert INVALID in svg


def test_an_imported_log_is_a_claim(tmp_path):
    log = tmp_path / "log.tsv"
    log.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
        + "0\t3\t3\t0.5\t1\t0:00:15.4\n1\t3\t2\t0.7\t0\t0:00:1\n"
    )
    from typer.testing import CliRunner

    from certify_cli.main import app

    place = tmp_path / "imported"
    done = CliRunner().invoke(app, ["import", str(log), "--sigma", "0.25", "--out", str(place)])
    assert done.exit_code == 0, done.output
    svg = badge(certify.store.read_run(place))
    assert words(svg).startswith("claimed 50.0")
    assert CLAIMED in svg


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_run_gives_the_same_bytes(tmp_path, seed):
    stored = stored_run(tmp_path / f"run{seed}")
    assert badge(stored) == badge(stored)
