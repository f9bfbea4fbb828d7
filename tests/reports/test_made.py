"""When, with what and where a run was made; a theory behind its summary; the network without noise."""

import re

import pytest

import reports
from reports.evidence import Evidence
from reports.made import made_sentence
from tests.reports.evidence_fixture import stored_run


def test_what_a_run_says_of_its_making_is_one_sentence():
    settings = {
        "environment": {"date": "2026-03-09", "hardware": {"processor": "A <fast> one", "cpus": 4}},
        "versions": {"certify": "1.2", "torch": "2.13.0", "python": "3.11.7", "other": "9"},
    }
    assert made_sentence(settings) == (
        "Begun on 9 March 2026 with certify 1.2, torch 2.13.0, python 3.11.7 on A <fast> one (4 cores)."
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"environment": None}, {"environment": "x", "versions": ["1"]}, {"environment": {"date": "soon"}},
     {"environment": {"date": 7, "hardware": 3}, "versions": {"torch": None}}],
)  # fmt: skip
def test_nothing_is_said_where_a_run_says_nothing(settings):
    assert made_sentence(settings) == ""


def test_the_network_without_noise_has_its_tile_where_it_was_attacked(tmp_path):
    stored = stored_run(tmp_path / "run")
    evidence = Evidence.of(stored)
    page = reports.build(stored, out=tmp_path / "page").html.read_text(encoding="utf-8")
    met = evidence.attacked(smoothed=False)
    assert ("the network itself right, without noise" in page) is bool(met and evidence.labelled)
    if '<section id="ledger"' in page:
        assert re.search(r"<details( open)?><summary>\d+ claims?, every measurement", page)
