"""The table of what evidence says is unchanged: whoever changes it on purpose changes frozen.json with it."""

import json

import pytest

from tests.certify import frozen

CASES = dict(frozen.cases())
KEPT = json.loads(frozen.FILE.read_text())


def test_the_table_holds_exactly_these_runs():
    assert set(KEPT) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_a_run_says_is_unchanged(name):
    assert json.loads(json.dumps(CASES[name]())) == KEPT[name]
