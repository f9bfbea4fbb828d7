"""What is copied from a log is claimed by the log: nothing that is written about it calls it proved."""

from __future__ import annotations

import html
import json
import re

import pytest
from typer.testing import CliRunner

import reports
from analysis import ledger
from certify.store import open_run, read_run
from certify.store.importing import import_locuslab
from certify_cli.main import app
from reports.evidence import Evidence
from reports.tables import input_rows
from tests.reports.evidence_fixture import stored_run

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
LINES = "".join(
    f"{i}\t{i % 3}\t{-1 if i % 7 == 6 else (i + (i % 5 == 4)) % 3}\t{0.0 if i % 7 == 6 else r}"
    f"\t{int(i % 7 != 6 and i % 5 != 4)}\t0:00:15.4\n"
    for i, r in enumerate(("0.289", "0.175", "0.356", "0.378", "0.1", "0.953", "0", "0.5") * 5)
)
FORBIDDEN = re.compile(r"\bprov(?:e[sdn]?|ing|able)\b|\bproofs?\b", re.IGNORECASE)


def imported(place, name="published"):
    log = place / f"{name}.tsv"
    log.write_text(HEAD + LINES, encoding="utf-8")
    return import_locuslab(log, sigma=0.25, alpha=0.001, n=100_000, out=place / name)


def visible(page: str) -> str:
    """What a reader of the page meets: text, descriptions, the data of its table; no style, no ids."""
    rows = "".join(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL))
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", page)) + rows


def refuse_forbidden(text: str) -> None:
    found = [text[max(0, m.start() - 60) : m.end() + 40] for m in FORBIDDEN.finditer(text)]
    assert not found, found


@pytest.mark.parametrize("compared", [False, True])
def test_no_part_of_its_report_says_proved(tmp_path, compared):
    stored = imported(tmp_path)
    if compared:
        with open_run(tmp_path / "published", stored.settings, stored.guarantee) as store:
            store.put_document("ledger", ledger(stored, draws=50).to_json())
    files = reports.build(tmp_path / "published")
    page = files.html.read_text(encoding="utf-8")
    text = visible(page)
    theory = page[page.index('<section id="ledger"') : page.index('<section id="inputs"')] if compared else ""
    refuse_forbidden(visible(page.replace(theory, "")))
    assert "claimed by the log" in text
    assert "not verifiable" in text
    for file in (files.card, files.table, *files.plots):
        refuse_forbidden(visible(file.read_text(encoding="utf-8")))
    assert "claimed" in files.card.read_text().lower()
    assert "claimed by the log" in files.table.read_text()


def test_its_radii_stand_in_the_table_as_the_log_prints_them(tmp_path):
    rows = input_rows(Evidence.of(imported(tmp_path)))
    assert [row[4] for row in rows[:4]] == [0.289, 0.175, 0.356, 0.378]
    assert {row[-1] for row in rows} == {"claim of the log", "not attacked", "counterexample"}


def test_a_comparison_with_a_log_claims(tmp_path):
    own, log = stored_run(inputs=40), imported(tmp_path)
    other = imported(tmp_path, "other")
    for pair in ((own, log), (log, own), (log, other)):
        files = reports.compare(pair, out=tmp_path / "both")
        for file in (files.html, files.table, *files.plots):
            refuse_forbidden(visible(file.read_text(encoding="utf-8")))
        assert "claimed by its log" in files.html.read_text()
        assert "(claimed)" in files.table.read_text()
        told = [r["imported"] for r in json.loads(json.dumps(files.comparison.to_json()))["runs"]]
        assert told == ["imported" in p.settings for p in pair]


def test_an_own_run_still_proves(tmp_path):
    own = stored_run(inputs=40)
    assert "are proved to be" in visible(reports.build(own, out=tmp_path).html.read_text())
    both = reports.compare([own, stored_run(inputs=40, seed=4)], out=tmp_path).html.read_text()
    assert "exactly one of two runs proves" in " ".join(both.split())


def test_the_command_claims_too(tmp_path):
    imported(tmp_path)
    for verb in ("report", "compare"):
        done = CliRunner().invoke(app, [verb, str(tmp_path / "published")])
        assert done.exit_code == 0, done.output
        if verb == "report":
            refuse_forbidden(done.output)
            assert "accuracy claimed by the log" in done.output
    assert "complexity claims left out" in done.output
    assert read_run(tmp_path / "published").documents["ledger"]["claims"]
