"""The board: numbers of logs as their own tables have them, the price of choosing, what fails is shown."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import reports
from certify.bounds import binomial_lower
from certify.errors import InvalidSetting
from certify.store import open_run, read_run
from certify.store.importing import read_log
from reports.board_rows import Entry, level_in_name
from tests.certify.simulated_run import write

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def log(path, rows):
    """A log of (label, predict, radius) rows."""
    lines = [f"{i}\t{y}\t{p}\t{r}\t{int(y == p)}\t0:00:01" for i, (y, p, r) in enumerate(rows)]
    path.write_text(HEAD + "\n".join(lines) + "\n")
    return path


def drawn(seed, sigma, n=200):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 10, n)
    predict = np.where(rng.random(n) < 0.8, label, (label + 1) % 10)
    return [
        (int(y), int(p), f"{r:.3g}")
        for y, p, r in zip(label, predict, rng.uniform(0, 3.5 * sigma, n), strict=True)
    ]


def opened(path):
    return path.stem, read_log(path, sigma=level_in_name(path.stem), alpha=0.001, n=100_000)


@pytest.fixture
def logs(tmp_path):
    levels = {"0.25": 1, "0.50": 2, "1.00": 3}
    made = [log(tmp_path / f"mnist-one-{s}.tsv", drawn(k, float(s))) for s, k in levels.items()]
    return [*made, log(tmp_path / "mnist-two-0.50.tsv", drawn(2, 0.5))]


def test_accuracies_are_those_of_the_logs(logs, tmp_path):
    found = reports.board([opened(p) for p in logs], tmp_path / "board", radii=[0.0, 0.3, 0.8]).board
    for path, entry, row in zip(logs, found.entries, found.accuracies, strict=True):
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        for at, estimate in zip((0.0, 0.3, 0.8), row, strict=True):
            share = np.mean([r["correct"] == "1" and float(r["radius"]) >= at for r in lines])
            assert estimate.value == pytest.approx(share)
        assert entry.data == "mnist"
        assert entry.verified == "claimed by its log"
        assert entry.good is None
        assert entry.report is None


def test_choosing_after_looking_is_paid_for(logs, tmp_path):
    found = reports.board([opened(p) for p in logs], tmp_path / "board", radii=[0.0, 0.5, 2.0]).board
    [best] = found.envelopes
    assert best.family == "mnist-one"
    assert len(best.names) == 3
    assert best.alpha == pytest.approx(0.003)
    values = {e.name: row for e, row in zip(found.entries, found.accuracies, strict=True)}
    for k, row in enumerate(best.rows):
        top = max(values[name][k].value for name in best.names)
        assert row.value == top == values[row.name][k].value
        hits = round(top * 200)
        assert row.low == pytest.approx(binomial_lower(hits, 200, 0.025))
        assert row.corrected == pytest.approx(binomial_lower(hits, 200, 0.025 / 3))
        assert row.corrected < row.low or row.value == 0
    assert best.price == max(r.low - r.corrected for r in best.rows) > 0


def test_rows_of_one_noise_level_are_tested_on_the_same_inputs(logs, tmp_path):
    found = reports.board([opened(p) for p in logs], tmp_path / "board").board
    [pair] = found.pairs
    assert (pair.name, pair.baseline, pair.inputs) == ("mnist-two-0.50", "mnist-one-0.50", 200)
    [row] = pair.differences
    assert (row.radius, row.only_first, row.only_second, row.p_adjusted) == (0.5, 0, 0, 1.0)
    changed = log(tmp_path / "mnist-three-0.50.tsv", [((y + 1) % 10, p, r) for y, p, r in drawn(2, 0.5)])
    [_, other] = reports.board([opened(p) for p in (*logs, changed)], tmp_path / "board").board.pairs
    assert "different true labels" in other.reason


def test_a_run_of_ones_own_is_verified_and_has_its_report(tmp_path):
    write(tmp_path / "run", "radius")
    found = reports.board([tmp_path / "run"], tmp_path / "board")
    [entry] = found.board.entries
    assert entry.verified == "level 2: holds"
    assert (tmp_path / "board" / entry.report).exists()
    page = found.html.read_text()
    assert f'href="{entry.report}"' in page
    assert not re.search(r'(?:src|href)="(?!data:|#|reports/)', page), "nothing is fetched"
    assert json.loads(found.data.read_text())["rows"][0]["good"] is True


def test_a_run_that_fails_is_shown_as_failing(tmp_path):
    write(tmp_path / "honest", "radius")
    stored = read_run(tmp_path / "honest")
    from dataclasses import replace

    with open_run(tmp_path / "forged", stored.settings, stored.guarantee) as store:
        for name, body in stored.documents.items():
            store.put_document(name, body)
        store.add_all([replace(r, radius=r.radius * 2) if r.certified else r for r in stored.run])
    found = reports.board([tmp_path / "honest", tmp_path / "forged"], tmp_path / "board")
    assert [e.good for e in found.board.entries] == [True, False]
    assert found.board.entries[1].report is None
    assert "1 of them fail" in found.html.read_text()


def test_names_are_text(tmp_path):
    path = log(tmp_path / "x-0.25.tsv", [(1, 1, "0.5"), (2, 2, "0.1")])
    run = read_log(path, sigma=0.25, alpha=0.001, n=100_000)
    page = reports.board(
        [("<script>alert(1)</script>", run), ("a", run)], tmp_path / "board"
    ).html.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_equal_names_are_told_apart(tmp_path):
    path = log(tmp_path / "x-0.25.tsv", [(1, 1, "0.5")])
    pair = opened(path)
    assert [e.name for e in reports.board([pair, pair], tmp_path / "b").board.entries] == [
        "x-0.25 (1)", "x-0.25 (2)"]  # fmt: skip


def test_an_empty_board_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="nothing to put on the board"):
        reports.board([], tmp_path / "board")


@pytest.mark.parametrize(("stem", "level", "family"), [
    ("mnist-gaussian-0.25", 0.25, "mnist-gaussian"), ("resnet_sigma0.5", 0.5, "resnet"),
    ("run-s1.0", 1.0, "run"),
    ("demo", None, "demo"), ("run-0", None, "run"),
])  # fmt: skip
def test_noise_levels_are_read_from_names(stem, level, family, tmp_path):
    assert level_in_name(stem) == level
    run = read_log(log(tmp_path / "x.tsv", [(1, 1, "0.1")]), sigma=1.0, alpha=0.001, n=1000)
    from reports.evidence import Evidence

    entry = Entry(Evidence(stem, None, run.settings, run, [], {}, None), "", "", 0.0, "", None)
    assert entry.family == family


REAL = Path(os.environ.get("CERTIFY_DATA", "")) / "logs"


@pytest.mark.skipif(not list(REAL.glob("*.tsv")), reason="the published logs are not here")
def test_published_tables_come_out(tmp_path):
    """Certified accuracies in percent and mean radii of one published network, as its paper prints them."""
    paths = sorted(REAL.glob("mnist-lenet-*.tsv"))
    found = reports.board([opened(p) for p in paths], tmp_path / "board", radii=[0.0, 0.25, 0.5, 0.75]).board
    rows = {
        e.name: [round(100 * a.value, 1) for a in row]
        for e, row in zip(found.entries, found.accuracies, strict=True)
    }
    for path in paths:
        table = np.loadtxt(path, delimiter="\t", skiprows=1, usecols=(3, 4))
        exact = [
            round(100 * float(np.mean((table[:, 1] == 1) & (table[:, 0] >= r))), 1)
            for r in (0, 0.25, 0.5, 0.75)
        ]
        assert rows[path.stem] == exact
    assert len(found.envelopes) == len({p.stem.rsplit("-", 1)[0] for p in paths})
