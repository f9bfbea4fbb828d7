"""One browser and one report for all browser tests; skipped with the reason where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

import reports
from tests.browser.chromium import FORCE, Page, browser, forced, missing
from tests.reports.evidence_fixture import stored_run


@pytest.fixture(scope="session")
def page(tmp_path_factory) -> Page:
    reason = missing()
    if reason and forced():
        pytest.fail(f"{FORCE}=1 asks for the browser tests, but {reason}")
    if reason:
        pytest.skip(reason)
    with browser(str(tmp_path_factory.mktemp("profile"))) as opened:
        yield opened


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """A report of 120 inputs with every section."""
    stored = stored_run(tmp_path_factory.mktemp("runs") / "browser", inputs=120)
    stored.documents["maps"] = {"fields": [{"name": "diffusion", "values": [[0.0, 1.0], [2.0, -1.0]]}]}
    return reports.build(stored).html


@pytest.fixture(scope="session")
def board(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    runs = [
        ("digits-one-0.25", stored_run(folder / "a").run),
        ("digits-one-0.5", stored_run(folder / "b", sigma=0.5).run),
    ]
    return reports.board(runs, folder / "site").html


@pytest.fixture(scope="session")
def comparison(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    return reports.compare([stored_run(folder / "a"), stored_run(folder / "b", sigma=0.5)]).html
