"""Comparisons: the paired interval against a published value and by coverage; the page."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import reports
from certify.errors import InvalidCounts, InvalidSetting
from certify.records import Run
from certify.store.importing import import_locuslab
from reports.comparison import contrast
from reports.evidence import Evidence
from reports.numbers import points, points_interval
from reports.paired import difference, holm, tango_interval
from tests.reports.evidence_fixture import stored_run


def test_interval_against_the_published_example():
    """Fagerland, Lydersen, Laake, Statist. Med. 33 (2014): 1 and 7 discordant of 21 pairs."""
    assert tango_interval(1, 7, 21, 0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_interval_without_discordant_pairs_in_closed_form():
    z2 = stats.norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, 10, 0.95) == pytest.approx((-z2 / (10 + z2), z2 / (10 + z2)), abs=1e-9)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 100))
def test_interval_holds_the_estimate_and_mirrors(b, c, rest):
    n = b + c + rest
    if n == 0:
        return
    low, high = tango_interval(b, c, n, 0.95)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert tango_interval(c, b, n, 0.95) == pytest.approx((-high, -low), abs=1e-9)


def test_interval_covers_in_simulation():
    """Coverage at 95 %: refused only if a binomial test at 1e-4 finds it below 94 %."""
    rng = np.random.default_rng(11)
    interval = lru_cache(None)(lambda b, c, n: tango_interval(b, c, n, 0.95))
    for n, p10, p01 in ((50, 0.1, 0.1), (50, 0.2, 0.05), (200, 0.05, 0.02), (30, 0.4, 0.1)):
        hits = 0
        for b, c, _ in rng.multinomial(n, [p10, p01, 1 - p10 - p01], size=2000):
            low, high = interval(int(b), int(c), n)
            hits += low <= p10 - p01 <= high
        assert stats.binomtest(hits, 2000, 0.94, alternative="less").pvalue > 1e-4, (n, p10, p01)


def test_impossible_counts_are_refused():
    for b, c, n in ((0, 0, 0), (-1, 0, 5), (3, 3, 5)):
        with pytest.raises(InvalidCounts):
            tango_interval(b, c, n, 0.95)


def test_difference_counts_discordant_pairs_and_tests_exactly():
    row = difference([True] * 9 + [False], [True] + [False] * 8 + [True], radius=0.5, level=0.95)
    assert (row.only_first, row.only_second, row.value) == (8, 1, 0.7)
    assert row.p_value == pytest.approx(stats.binomtest(8, 9).pvalue)


def test_holm_against_a_hand_worked_case():
    base = difference([True], [False], radius=0.0, level=0.95)
    rows = holm([replace(base, p_value=p) for p in (0.01, 0.04, 0.03)])
    assert [r.p_adjusted for r in rows] == pytest.approx([0.03, 0.06, 0.06])


def test_points_have_signs_and_round_outward():
    assert points(0.0) == "0.0"
    assert points(-0.00001) == "0.0"
    assert points(0.0321) == "+3.2"
    assert points_interval(-0.01234, 0.01231) == "−1.3 to +1.3"


def test_page_compares_runs_on_common_inputs(tmp_path):
    first, second = stored_run(tmp_path / "first"), stored_run(tmp_path / "second")
    weaker = [replace(r, radius=r.radius / 2) if r.index < 150 else r for r in second.run]
    second.run = Run(weaker[20:], second.settings, second.guarantee)
    files = reports.compare([first, second])
    assert files.html == tmp_path / "comparison" / "compare.html"
    page = files.html.read_text(encoding="utf-8")
    assert "second proves fewer inputs than first at radius 0.5" in page
    pair = files.comparison.pairs[0]
    assert pair.inputs == 180
    at = next(d for d in pair.differences if d.radius == 0.5)
    lost = sum(bool(r.correct) and r.radius >= 0.5 > r.radius / 2 for r in first.run if 20 <= r.index < 150)
    assert (at.only_first, at.only_second) == (0, lost)
    assert at.high < 0
    assert "toprule" in files.table.read_text(encoding="utf-8")
    assert files.plots[0].read_text(encoding="utf-8").count("line-run") >= 2
    assert files.comparison.to_json()["paired"][0]["differences"][0]["level"] == 0.95


def test_reports_compare_stays_callable(tmp_path):
    for _ in range(2):
        reports.compare([stored_run(tmp_path / "a", inputs=9), stored_run(tmp_path / "b", inputs=9)])


def test_runs_on_other_data_are_shown_but_not_tested(tmp_path):
    first, other = stored_run(tmp_path / "a"), stored_run(tmp_path / "b", seed=4)
    pair = contrast([Evidence.of(first), Evidence.of(other)]).pairs[0]
    assert "different true labels" in pair.reason
    assert pair.differences == ()
    other.settings["data"] = {"name": "moons"}
    pair = contrast([Evidence.of(first), Evidence.of(other)]).pairs[0]
    assert "different data (name: digits and moons)" in pair.reason
    assert "are not compared" in reports.compare([first, other]).html.read_text(encoding="utf-8")


def test_runs_that_share_no_input_or_have_no_labels_are_not_tested():
    first, other = stored_run(inputs=20), stored_run(inputs=20)
    other.run = Run([replace(r, index=r.index + 50) for r in other.run], other.settings, "")
    assert contrast([Evidence.of(first), Evidence.of(other)]).pairs[0].reason == "the runs share no input"
    other.run = Run([replace(r, target=None) for r in first.run], other.settings, "")
    assert "labels" in contrast([Evidence.of(first), Evidence.of(other)]).pairs[0].reason


def test_a_decided_radius_is_compared_exactly():
    first, other = stored_run(inputs=20), stored_run(inputs=20)
    first.settings |= {"mode": "decide", "mode_options": {"radius": 0.37}}
    found = contrast([Evidence.of(first), Evidence.of(other)])
    assert found.headline == 0.37
    assert 0.37 in found.radii


def test_settings_that_differ_are_listed(tmp_path):
    found = contrast([Evidence.of(stored_run(inputs=9)), Evidence.of(stored_run(inputs=9, sigma=0.5))])
    assert dict(found.changed)["sigma"] == ("0.25", "0.5")
    assert "alpha" not in dict(found.changed)


def test_one_run_or_mixed_norms_are_refused(tmp_path):
    one = stored_run(tmp_path / "a", inputs=5)
    with pytest.raises(InvalidSetting, match="1 runs"):
        reports.compare([one])
    other = stored_run(tmp_path / "b", inputs=5)
    other.settings["norm"] = "1"
    with pytest.raises(InvalidSetting, match="cannot be compared"):
        reports.compare([one, other])


def test_imported_log_is_reported_as_such_and_can_be_compared(tmp_path):
    lines = [f"{i}\t{i % 10}\t{i % 10}\t0.{i % 9}1\t1\t0:00:01" for i in range(40)]
    log = tmp_path / "published.tsv"
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n" + "\n".join(lines) + "\n", encoding="utf-8")
    import_locuslab(log, sigma=0.25, alpha=0.001, n=100_000, out=tmp_path / "imported")
    import_locuslab(log, sigma=0.5, alpha=0.001, n=100_000, out=tmp_path / "other")
    page = reports.build(tmp_path / "imported").html.read_text(encoding="utf-8")
    assert "imported, not verifiable" in page
    assert "copied from another tool" in page
    assert 'id="formulas"' not in page  # the dimension is unknown, so is the printed formula
    found = reports.compare([tmp_path / "imported", tmp_path / "other"]).comparison
    assert [d.value for d in found.pairs[0].differences] == [0.0] * len(found.radii)
