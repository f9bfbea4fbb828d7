"""Rounding never flatters: radii down, distances up, intervals outward."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attacks
import reports
from certify.records import Estimate, Run, Status
from reports import numbers, tables, words
from reports.evidence import Evidence, _round_step
from reports.latex import escape
from reports.plots.sandwich import sandwich
from reports.svg import ticks
from reports.tables import accuracy_rows, formula_rows, refutation
from tests.reports.evidence_fixture import stored_run

positive = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(positive)
def test_radius_is_never_printed_larger_and_distance_never_smaller(value):
    exact = Decimal(repr(value))
    assert Decimal(numbers.radius_down(value)) <= exact <= Decimal(numbers.distance_up(value))
    assert exact - Decimal(numbers.radius_down(value)) < Decimal("0.001")
    assert Decimal(numbers.distance_up(value)) - exact <= Decimal("0.001")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.radius_down(0.3), "0.300"),
        (numbers.radius_down(0.29999), "0.299"),
        (numbers.distance_up(0.30001), "0.301"),
        (numbers.percent_down(0.57), "57.0\u00a0%"),
        (numbers.percent_down(2 / 3), "66.6\u00a0%"),
        (numbers.percent_up(2 / 3), "66.7\u00a0%"),
        (numbers.radius_down(None), "–"),
        (numbers.general(float("inf")), "∞"),
        (numbers.general(1234567), "1\u202f234\u202f567"),
        (numbers.seconds(0.0123), "12 ms"),
        (numbers.seconds(7200), "2.0 h"),
        (numbers.general(True), "True"),
    ],
)
def test_printed_form(shown, expected):
    assert shown == expected


def test_interval_ends_round_outward():
    e = Estimate(0.5, 0.33333, 0.66666, 0.95, "clopper-pearson")
    assert numbers.percent_interval(e) == "33.3\u00a0–\u00a066.7\u00a0%"


@given(st.floats(min_value=1e-3, max_value=1e4), st.integers(3, 8))
def test_ticks_are_few_and_inside(extent, most):
    found = ticks(0, extent, most)
    assert 2 <= len(found) <= most + 1
    assert found[0] == 0
    assert found[-1] <= extent * (1 + 1e-6)


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_round_step_covers_the_extent(extent):
    step = _round_step(extent, 5)
    assert 5 * step >= extent * (1 - 1e-9)
    assert step <= extent


def test_accuracy_table_is_a_sandwich():
    rows = accuracy_rows(Evidence.of(stored_run()))
    for row in rows:
        assert row.attacked is not None
        assert row.proved.value <= row.attacked.value
        assert sum(row.verdict.values()) == 200
    assert rows[0].radius == 0
    assert rows[-1].proved.value == 0


def test_formulas_against_exact_distances():
    """Half-spaces: no theorem exceeds the true distance here; the printed formula does."""
    rows = {r.name: r for r in formula_rows(Evidence.of(stored_run()))}
    assert [n for n, r in rows.items() if r.sound] == [
        "cohen",
        "one_sided",
        "margin",
        "lipschitz",
        "dimension",
    ]
    assert all(r.violations == 0 for r in rows.values() if r.sound)
    assert rows["as_printed"].violations > 0.9 * rows["as_printed"].checked > 0


def test_refutation_prefers_a_confirmed_attack():
    stored = stored_run(inputs=30)
    found = refutation(Evidence.of(stored))
    assert found["kind"] == "attack"
    assert found["claimed"] > found["distance"]
    stored.attacks = []
    found = refutation(Evidence.of(stored))
    assert found["kind"] == "half-space"
    assert found["claimed"] > found["distance"]


def test_base_model_attacks_never_contradict():
    stored = stored_run(inputs=30)
    base = [o for o in stored.attacks if not o["smoothed"]]
    assert any(o["status"] == "broken" and o["distance_l2"] < stored.run[o["index"]].radius for o in base)
    assert Evidence.of(stored).contradictions == ()


def test_attack_of_another_norm_counts_by_its_l2_size():
    stored = stored_run(inputs=30)
    best = max((r for r in stored.run if r.correct), key=lambda r: r.radius)
    hit = next(o for o in stored.attacks if o["index"] == best.index and o["smoothed"])
    hit |= {"norm": "inf", "distance": 0.9, "distance_linf": 0.9, "distance_l2": best.radius / 2}
    hit |= {"status": "broken", "prediction": (best.label + 1) % 10}
    assert [o["index"] for o in Evidence.of(stored).contradictions] == [best.index]


def test_latex_escapes_every_special_character():
    assert escape("50% & _x^2~{#}$\\") == (
        r"50\% \& \_x\textasciicircum{}2\textasciitilde{}\{\#\}\$\textbackslash{}"
    )


def test_a_run_in_another_norm_is_measured_in_that_norm():
    stored = stored_run(inputs=60)
    stored.settings["norm"] = "inf"
    records = [replace(r, radius=r.radius / 8) for r in stored.run]
    stored.run = Run(records, stored.settings, stored.guarantee)
    evidence = Evidence.of(stored)
    nearest = evidence.nearest(smoothed=True)
    assert evidence.distances(smoothed=True) == [o["distance_linf"] for o in nearest.values()]
    assert evidence.contradictions == ()
    assert formula_rows(evidence) == []
    hit = next(o for o in nearest.values() if stored.run[o["index"]].radius > 0)
    hit["distance_linf"] = stored.run[hit["index"]].radius / 2
    assert [o["index"] for o in Evidence.of(stored).contradictions] == [hit["index"]]


def test_certified_accuracy_is_that_of_the_run():
    stored = stored_run(inputs=80)
    at = [0.0, 0.25, 0.5, *(r.radius for r in stored.run)]
    assert Evidence.of(stored).certified_accuracy(at) == stored.run.accuracy(at, level=0.95)


def challenge_of(stored) -> list[dict]:
    """One outcome per certified ball: attacked within its own radius, towards leaving its class."""
    return [
        {"index": r.index, "target": r.label, "smoothed": True, "norm": "2",
         "eps": float(np.float32(r.radius)), "preset": "challenge", "clean_correct": True,
         "status": "survived",
         "distance": None, "distance_l2": None, "distance_linf": None, "prediction": None, "seconds": 0.1}
        for r in stored.run
        if r.certified and r.radius > 0
    ]  # fmt: skip


def test_attacks_inside_the_balls_are_one_group_and_do_not_flatter_the_curve(tmp_path):
    stored = stored_run(tmp_path / "challenged", inputs=40)
    plain = Evidence.of(stored)
    stored.attacks = [*stored.attacks[:20], *challenge_of(stored)]
    mixed = Evidence.of(stored)
    assert [g.inside for g in mixed.groups] == [False, True]
    assert mixed.challenged == len(challenge_of(stored))
    assert mixed.attacked(smoothed=True) == set(range(20))
    assert mixed.attack_reach(smoothed=True) == plain.attack_reach(smoothed=True)
    page = reports.build(stored).html.read_text(encoding="utf-8")
    assert "inside each certified ball" in page
    assert "balls were attacked from inside" in page


def test_an_attack_whose_budget_happens_to_be_a_radius_is_no_challenge():
    stored = stored_run(inputs=20)
    ordinary = [o | {"preset": "smoothed"} for o in challenge_of(stored)]
    stored.attacks = ordinary + challenge_of(stored)
    evidence = Evidence.of(stored)
    assert evidence.challenged == len(ordinary)
    assert sum(len(g.outcomes) for g in evidence.groups if not g.inside) == len(ordinary)


def test_command_and_page_take_the_same_median():
    stored = stored_run(inputs=31)
    group = next(g for g in Evidence.of(stored).groups if g.smoothed and g.number("broken") > 1)
    for n in (2, 3):
        rows = [o for o in group.outcomes if o["status"] == "broken"][:n]
        rows.append(rows[0] | {"status": "unconfirmed", "distance": 1e-9})  # measured, not confirmed
        row = tables.attack_rows(Evidence.of(replace(stored, attacks=rows)))[0]
        found = attacks.AttackRun(
            [attacks.AttackOutcome.from_json(o) for o in rows], attacks.Threat(2), "smoothed"
        )
        assert row["median"] == found.median_distance() == np.median([o["distance"] for o in rows[:n]])


def test_a_ball_that_gives_way_is_a_contradiction():
    stored = stored_run(inputs=20)
    stored.attacks = challenge_of(stored)
    assert Evidence.of(stored).contradictions == ()
    first = stored.attacks[0]
    first |= {"status": "broken", "distance": 0.0, "distance_l2": 0.0, "distance_linf": 0.0}
    first |= {"prediction": (stored.run[0].label + 1) % 10}
    evidence = Evidence.of(stored)
    assert [o["index"] for o in evidence.contradictions] == [0]
    assert evidence.attacked(smoothed=True) == {0}


def test_a_wrong_class_before_the_attack_counts_only_if_established():
    stored = stored_run(inputs=10)
    errors = [o for o in stored.attacks if o["smoothed"]][:2]
    records = [replace(r, status=Status.ABSTAINED, label=None, radius=0.0) for r in stored.run]
    stored.run = Run(records, stored.settings, stored.guarantee)
    for o, label in zip(errors, (None, (errors[1]["target"] + 1) % 10), strict=True):
        o |= {"status": "clean_error", "prediction": None, "distance_l2": None, "details": {"label": label}}
    assert Evidence.of(stored).wrong(smoothed=True) == {errors[1]["index"]}


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("sigma/2 (Phi^-1(pA) - Phi^-1(pB))", "σ/2 (Φ⁻¹(pA) − Φ⁻¹(pB))"),
        ("sigma sqrt(d) / (pA - pB) is an l2 radius", "σ √d / (pA − pB) is an ℓ₂ radius"),
        ("an l2 radius is an lp radius, and linf", "an ℓ₂ radius is an ℓₚ radius, and ℓ∞"),
        ("an l_inf attack -> R/sqrt(2 pi) <= eps", "an ℓ∞ attack → R/√(2 π) ≤ ε"),
        ("PAC-Bayes, kl form; phi; sigmoid; model2", "PAC-Bayes, kl form; phi; sigmoid; model2"),
    ],
)
def test_formulas_are_printed_with_the_letters_of_the_field(typed, printed):
    assert numbers.symbols(typed) == printed


@given(positive)
def test_the_upper_end_of_a_radius_is_never_printed_smaller(value):
    assert Decimal(numbers.radius_short(value)) <= Decimal(repr(value)) <= Decimal(numbers.radius_over(value))


def test_the_sentence_over_the_ledger_counts_its_rows():
    rows = [{"claim": "T2", "statement": "s", "status": s, "sound": True} for s in ("holds", "undetermined")]
    rows.append({"claim": "T1", "statement": "t", "status": "violated", "sound": False})

    def said(found):
        stored = replace(stored_run(inputs=5), documents={"ledger": {"claims": found}})
        return words.ledger_sentence(tables.ledger_claims(Evidence.of(stored)))

    assert said(rows) == (
        "1 of 3 confrontations hold; 1 refute a statement that is no theorem; 1 stay undetermined: nothing "
        "here could decide them."
    )
    assert said([rows[0] | {"status": "violated"}]).startswith("1 violate a theorem, so that this run is in")


def test_the_sentence_over_the_bounds_tells_errors_and_gap():
    gap = stored_run(inputs=5).documents["bounds"]["measured_gap"]
    assert words.gap_sentence(gap).replace("\u00a0", " ").replace("\u202f", " ") == (
        "The deterministic network errs on 1.0 % of 1 000 training inputs and on 4.0 % of 361 test inputs "
        "(95 % interval 2.0 – 7.0 %). Its generalization gap is +3.0 percentage points (+1.0 to +6.0)."
    )
    assert words.gap_sentence(None) == ""


def test_an_input_wrong_before_the_attack_is_not_one_that_withstood_it():
    stored = stored_run(inputs=30)
    first = next(r for r in stored.run if r.certified)
    stored.attacks = [o for o in stored.attacks if o["smoothed"] and o["index"] != first.index]
    before = len(sandwich(Evidence.of(stored)).parts)
    nothing = {"index": first.index, "distance": None, "distance_l2": None, "distance_linf": None}
    found = stored.attacks[0] | nothing
    for status, label, marks in (("clean_error", (first.target + 1) % 10, 0), ("survived", first.target, 1)):
        changed = replace(stored, attacks=[*stored.attacks, found | {"status": status, "prediction": label}])
        assert len(sandwich(Evidence.of(changed)).parts) == before + marks


def test_the_attacked_accuracy_says_how_many_inputs_it_is_about(tmp_path):
    stored = stored_run(tmp_path / "part", inputs=40)
    stored.attacks = [o for o in stored.attacks if o["index"] < 20]
    files = reports.build(stored)
    for file in (files.html, files.card, files.table):
        assert "fter attack, 20 inputs" in file.read_text(encoding="utf-8").replace("After", "after"), file
    stored.attacks = stored_run(inputs=40).attacks
    assert words.after_attack(Evidence.of(stored)) == "After attack"


def test_a_zero_has_no_sign():
    assert numbers.radius_down(-0.0, 4) == numbers.distance_up(-0.0, 4) == "0.0000"
    assert numbers.distance_up(-1e-9, 3) == "0.000"
    assert numbers.radius_down(-1e-9, 3) == "−0.001"
