"""A run that bounds the runner-up: the report shows both radii and says which published tables have."""

from __future__ import annotations

import json
import re

import pytest

import reports
from certify.records import Run
from certify.store import read_run
from reports import card, words
from reports.evidence import Evidence
from reports.latex import latex
from reports.numbers import radius_down
from reports.tables import formula_rows, input_columns, input_rows
from tests.certify.simulated_run import certify_votes, procedure, write

SHARES = (0.45, 0.55, 0.72, 0.9, 0.99)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path, plan = tmp_path_factory.mktemp("both"), procedure("fixed", classes=3)
    write(path, "fixed", certify_votes(plan, SHARES), plan=plan)
    return Evidence.of(read_run(path))


def test_both_means_are_said_and_which_of_them_is_published(both):
    alone = sum(both.run.one_sided()) / len(both.run)
    sentence = words.one_sided_sentence(both)
    assert radius_down(both.run.mean_radius(), 4) in sentence
    assert f"Published tables use pB = 1 − pA: by that the average is {radius_down(alone, 4)}" in sentence
    low = sum(r.certified and r.p_lower <= 0.5 for r in both.run)
    assert low > 0
    assert f"{low} of the inputs would have no radius" in sentence
    assert alone < both.run.mean_radius()
    for text in (card.card(both), latex(both)):
        assert "Published tables use pB" in text


def test_every_input_has_both_radii(both):
    heads = [name for name, _ in input_columns(both)]
    at = heads.index("One-sided radius")
    assert heads[at - 1] == "Certified radius"
    for row, record in zip(input_rows(both), both.run, strict=True):
        assert len(row) == len(heads)
        if record.certified:
            assert row[at] <= row[at - 1]
            assert row[at] <= record.details["one_sided"] < row[at] + 1e-4


def test_the_formula_table_has_the_published_one_beside_the_certificate(both):
    rows = {row.name: row for row in formula_rows(both)}
    assert rows["one_sided"].expression == "sigma Phi^-1(pA)"
    assert "published tables" in rows["one_sided"].claim
    assert rows["one_sided"].radius < rows["cohen"].radius


def test_the_page_shows_it(both, tmp_path):
    page = reports.build(both.path).html.read_text()
    assert "Published tables use pB" in page
    assert "One-sided radius" in page
    data = json.loads(re.search(r'id="rows"[^>]*>(.*?)</script>', page, re.S)[1])
    assert len(data[0]) == len(input_columns(both))


def test_a_run_with_one_bound_says_nothing_of_it(both):
    settings = {**both.settings, "mode_options": {"n0": 100, "n": 1000}}
    one = Evidence(both.name, None, settings, Run(both.run.records, settings, ""), [], {}, lambda name: None)
    assert not one.two_sided
    assert "Published tables" not in " ".join(words.headline(one).details)
    assert "One-sided radius" not in [name for name, _ in input_columns(one)]
