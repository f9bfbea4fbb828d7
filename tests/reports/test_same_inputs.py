"""The first figure sets certificate and attack side by side on the same inputs; bars say what was not."""

from __future__ import annotations

import itertools
import re

import pytest

from reports import tables
from reports.evidence import VERDICTS, Evidence
from reports.html import page
from reports.plots.accuracy import accuracy, certified
from reports.plots.outcome import outcome
from reports.report import draw
from tests.reports.evidence_fixture import stored_run

#: Radii between the round ones, too.
RADII = [i / 200 for i in range(260)]


def partly_attacked(part):
    """The easiest inputs were not attacked, so that the curve of all lies above the attacked one."""
    stored = stored_run(inputs=120)
    hardest = {r.index for r in sorted(stored.run, key=lambda r: r.radius)[:part]}
    stored.attacks = [o for o in stored.attacks if o["index"] in hardest]
    return Evidence.of(stored)


def heights(figure, css):
    """(x, share) of the corners of a curve that was drawn, from the picture itself."""
    path = next(p for p in figure.parts if f'class="{css}"' in p)
    numbers = [float(v) for v in re.findall(r"[-\d.]+", re.search(r' d="([^"]*)"', path)[1])]
    return [(x, 1 - (y - 34) / 340) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def at(curve, x):
    """The height of a drawn step curve just right of x."""
    return next((y for (left, y), (right, _) in itertools.pairwise(curve) if left <= x < right), None)


@pytest.mark.parametrize("part", [1, 25, 60, 120])
def test_no_certified_curve_lies_above_an_attacked_one(part):
    evidence = partly_attacked(part)
    shown = evidence.confronted
    assert shown.by_index.keys() == evidence.attacked(smoothed=True)
    low = [e.value for e in shown.certified_accuracy(RADII)]
    high = [e.value for e in evidence.attacked_accuracy(RADII, smoothed=True)]
    assert all(a <= b for a, b in zip(low, high, strict=True))
    figure = accuracy(evidence)
    proved, left = heights(figure, "line-proof"), heights(figure, "line-counter")
    pairs = [(at(proved, x + 0.5), at(left, x + 0.5)) for x in range(52, 600, 3)]
    met = [(a, b) for a, b in pairs if a is not None and b is not None]
    assert len(met) > 50
    assert all(a <= b + 1e-3 for a, b in met)


def test_the_curves_of_different_inputs_would_have_crossed():
    evidence = partly_attacked(60)
    everything = [e.value for e in evidence.certified_accuracy(RADII)]
    attacked = [e.value for e in evidence.attacked_accuracy(RADII, smoothed=True)]
    assert any(a > b for a, b in zip(everything, attacked, strict=True))


def test_the_curve_of_all_inputs_is_a_figure_of_its_own():
    part, whole = partly_attacked(60), partly_attacked(120)
    figures = draw(part)
    assert heights(figures["certified"], "line-proof")[0][1] == pytest.approx(
        part.certified_accuracy([0.0])[0].value, abs=1e-4
    )
    assert "the 60 attacked inputs" in page(part, figures)
    assert certified(whole) is None
    assert "Every curve is about all 120 inputs" in page(whole, draw(whole))


def test_the_base_model_s_curve_is_left_out_where_it_is_about_other_inputs():
    stored = stored_run(inputs=120)
    stored.attacks = [o for o in stored.attacks if (o["index"] < 40 if o["smoothed"] else o["index"] >= 20)]
    evidence = Evidence.of(stored)
    assert not any("line-base" in p for p in accuracy(evidence).parts)
    assert "attacked accuracy, base model" not in page(evidence, draw(evidence))
    stored.attacks = [o for o in stored_run(inputs=120).attacks if not (o["smoothed"] and o["index"] >= 40)]
    assert any("line-base" in p for p in accuracy(Evidence.of(stored)).parts)


def test_the_table_repeats_what_was_proved_of_the_attacked_inputs():
    evidence = partly_attacked(60)
    rows = [row for row in tables.accuracy_rows(evidence) if row.attacked]
    assert rows
    for row in rows:
        assert row.confronted.value <= row.attacked.value
    assert "Proved, the same 60" in page(evidence, draw(evidence))
    assert all(row.confronted is None for row in tables.accuracy_rows(partly_attacked(120)))


def test_bars_tell_what_was_not_attacked_from_what_is_inconclusive():
    evidence = partly_attacked(60)
    tried = evidence.attacked(smoothed=True)
    for radius in evidence.radii:
        found = dict(zip(evidence.by_index, evidence.verdicts(radius), strict=True))
        tally = evidence.verdict(radius)
        assert sum(tally.values()) == 120
        assert list(tally) == list(VERDICTS)
        for index, verdict in found.items():
            assert verdict != "not attacked" or index not in tried
            assert verdict != "inconclusive" or index in tried
    last = evidence.verdict(evidence.radii[-1])
    assert last["not attacked"] > 0
    drawn = outcome(evidence)
    assert any("bar-not-attacked" in part for part in drawn.parts)
    assert f"{last['not attacked']} not attacked" in drawn.text
    assert not any("bar-not-attacked" in part for part in outcome(partly_attacked(120)).parts)


def test_without_an_attack_nothing_is_called_inconclusive():
    stored = stored_run(inputs=50)
    stored.attacks = []
    evidence = Evidence.of(stored)
    assert all(evidence.verdict(radius)["inconclusive"] == 0 for radius in evidence.radii)
    assert tables.verdict_kinds(evidence) == ["proof", "not attacked", "counterexample"]
