"""A run of the command says on its page when, with what and where it was made."""

import re
from html import unescape

import reports
from certify.store import read_run
from reports.made import made_sentence


def test_a_run_names_its_day_and_machine(run, tmp_path):
    stored = read_run(run)
    told = made_sentence(stored.settings)
    assert re.match(r"Begun on \d+ \w+ \d{4} with certify \S+, torch ", told)
    assert told in unescape(reports.build(stored, out=tmp_path).html.read_text(encoding="utf-8"))


def test_day_and_machine_bind_nothing(run):
    stored = read_run(run)
    from certify.store.settings import run_id, split

    binding, recorded = split(stored.settings)
    assert {"date", "hardware"} <= set(recorded["environment"])
    other = split(stored.settings | {"environment": {"date": "1999-01-01"}})[0]
    assert run_id(binding) == run_id(other)
