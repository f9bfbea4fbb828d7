"""The ledger: refutes what is false, never a theorem, and says undetermined without evidence."""

import json

import pytest
import torch
from scipy import stats

from analysis import ledger
from certify.bounds import binomial_lower
from certify.radii import radius_down
from certify.records import Record, Run, Status

SIGMA, DIM = 0.5, 64


def half_space_run(distances, n=20_000, alpha=1e-3):
    """Records of half-spaces at known distances, with the exact expected counts."""
    records = []
    for index, t in enumerate(distances):
        k = round(n * stats.norm.cdf(t / SIGMA))
        low = binomial_lower(k, n, alpha)
        records.append(
            Record(
                index, Status.CERTIFIED, label=1, target=1, radius=radius_down(low, SIGMA), p_lower=low,
                p_upper=1 - binomial_lower(n - k, n, alpha), pb_lower=binomial_lower(n - k, n, alpha),
                pb_upper=1 - low, counts=(n - k, k),
            )
        )  # fmt: skip
    settings = {"sigma": SIGMA, "dim": DIM, "noise": "lattice", "norm": "2"}
    return Run(records, settings, "per input")


def broken(index, distance):
    return {
        "index": index, "smoothed": True, "norm": "2", "eps": None, "status": "broken", "distance": distance,
        "distance_l2": distance, "distance_linf": distance, "prediction": 0, "by_attack": "known",
    }  # fmt: skip


DISTANCES = [0.1, 0.4, 0.8]


def test_printed_radius_is_violated_with_its_input_and_the_theorems_hold():
    run = half_space_run(DISTANCES)
    table = ledger(run, attacks=[broken(i, t) for i, t in enumerate(DISTANCES)])
    printed = table.claim("T1")[0]
    assert printed.status == "violated"
    assert printed.violations == printed.checked == 3
    assert printed.example is not None
    assert printed.example["index"] == 0  # the closest half-space is the worst
    assert printed.example["distance"] == pytest.approx(0.1)
    for name in ("T2", "T3", "T4", "T5"):
        row = table.claim(name)[0]
        assert (row.status, row.violations, row.checked) == ("holds", 0, 3)
        assert row.slack is not None
        assert row.slack > 0
    assert table.alarms == []


def test_order_of_the_radii_is_the_order_of_the_slacks():
    table = ledger(half_space_run(DISTANCES), attacks=[broken(1, 0.4)])
    slacks = [table.claim(name)[0].slack for name in ("T2", "T3", "T4", "T5")]
    assert slacks == sorted(slacks)


def test_a_refuted_theorem_raises_the_alarm():
    table = ledger(half_space_run(DISTANCES), attacks=[broken(2, 0.2)])
    assert {row.claim for row in table.alarms} >= {"T2"}
    assert table.claim("T2")[0].example["index"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"smoothed": False},  # the base model was broken, not the smoothed one
        {"status": "unconfirmed"},
        {"prediction": 1},  # the certified class itself
        {"index": 99},  # not an input of this run
        {"distance_l2": None, "distance_linf": None},
    ],
)
def test_evidence_that_is_not_a_counterexample_is_ignored(changes):
    table = ledger(half_space_run(DISTANCES), attacks=[broken(2, 0.01) | changes])
    assert table.claim("T2")[0].status == "undetermined"
    assert table.alarms == []


@pytest.mark.parametrize("claim", ["T1", "T2", "T5", "T10"])
def test_the_interval_of_a_row_belongs_to_what_was_measured(claim):
    for row in ledger(half_space_run(DISTANCES), attacks=[broken(2, DISTANCES[2] * 1.5)]).claim(claim):
        if row.measured is not None:
            assert row.low <= row.measured <= row.high, row.quantity


def test_half_space_always_refutes_the_printed_radius_exactly():
    row = ledger().claim("T1")[1]
    assert row.status == "violated"
    assert row.theory == pytest.approx(2**0.5 / (2 * stats.norm.cdf(0.1) - 1))
    assert row.measured == row.low == row.high == pytest.approx(0.1)
    assert row.example is not None


def test_other_noise_leaves_the_gaussian_claims_undetermined():
    run = half_space_run(DISTANCES)
    settings = run.settings | {"noise": "uniform"}
    table = ledger(Run(run.records, settings, ""), attacks=[broken(2, 0.01)])
    assert all(table.claim(t)[0].status == "undetermined" for t in ("T1", "T2", "T3", "T4", "T5"))


def test_complexity_bounds_on_data():
    points = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    rows = ledger(points=points).claim("R1")
    assert rows[0].status == "violated"
    assert rows[0].measured == 10.0
    beyond = [r for r in rows if "as printed" in r.quantity]
    assert [r.status for r in beyond] == ["holds", "violated"]
    assert all(r.status == "holds" for r in rows if r.sound)


def test_ledger_is_plain_json():
    run = half_space_run(DISTANCES)
    table = ledger(run, attacks=[broken(0, 0.1)], points=torch.rand(20, 3))
    again = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert len(again["claims"]) == len(table)
    assert len(table.frame()) == len(table)


# -- the other claims -------------------------------------------------------------------------


def run_of_kind(**settings):
    run = half_space_run(DISTANCES)
    return Run(run.records, run.settings | settings, "per input")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("T6", {"scores": "soft"}), ("T7", {"scores": "distribution"}), ("T8", {"noise": "internal"})],
)
def test_claims_about_other_certificates_speak_only_about_their_kind_of_run(name, settings):
    attacks = [broken(i, t) for i, t in enumerate(DISTANCES)]
    other = ledger(half_space_run(DISTANCES), attacks=attacks).claim(name)[0]
    assert other.status == "undetermined"
    own = ledger(run_of_kind(**settings), attacks=attacks).claim(name)[0]
    assert (own.status, own.checked) == ("holds", 3)
    wrong = ledger(run_of_kind(**settings), attacks=[broken(2, 0.2)])
    assert name in {row.claim for row in wrong.alarms}


def test_exact_rows_refute_what_theory_calls_unsound_and_nothing_else():
    table = ledger()
    assert table.alarms == []
    refuted = {row.claim for row in table if row.status == "violated"}
    assert refuted == {"T1", "T6", "T7", "T8", "R1", "R2"}
    assert all(row.example for row in table if row.status == "violated")
    naive = next(row for row in table.claim("T8") if row.quantity.startswith("sqrt"))
    assert naive.measured == pytest.approx((0.5**2 + 0.25**2) ** 0.5)
    rounded = next(row for row in table.claim("T6") if row.status == "violated")
    assert rounded.measured == pytest.approx(0.096)


def test_linf_radius_is_compared_in_linf():
    attacks = [broken(1, 0.4) | {"distance_linf": 0.4}]
    row = ledger(half_space_run(DISTANCES), attacks=attacks).claim("T10")[-1]
    assert row.status == "holds"
    assert row.theory == pytest.approx(half_space_run(DISTANCES)[1].radius / 8)
    row = ledger(half_space_run(DISTANCES), attacks=[broken(1, 0.4) | {"distance_linf": 0.01}])
    assert row.claim("T10")[-1].status == "violated"


def test_an_l1_run_is_compared_with_l1_attacks_only():
    run = run_of_kind(norm="1", noise="laplace")
    other = ledger(run, attacks=[broken(2, 0.01)])  # an l2 distance says little about l1
    assert other.claim("T10")[0].status == "undetermined"
    own = ledger(run, attacks=[broken(2, 0.01) | {"norm": "1"}])
    assert own.claim("T10")[0].status == "violated"


def test_residual_gap_of_a_stored_run_decides_the_trained_diffusion_claim():
    from types import SimpleNamespace

    run = half_space_run(DISTANCES)

    def stored(low):
        gap = {"median": 0.01, "largest": 0.2, "low": low, "high": 0.3, "inputs": 20, "beyond": int(low > 0)}
        return SimpleNamespace(run=run, settings=run.settings, attacks=[], documents={"residual_gap": gap})

    assert ledger(stored(0.1)).claim("T9")[0].status == "violated"
    assert ledger(stored(0.0)).claim("T9")[0].status == "undetermined"
    assert ledger(run).claim("T9")[0].status == "undetermined"


def bound(value, low, high, **changes):
    from analysis.result import BoundResult

    fields = {
        "name": "b", "reference": "r", "target": "risk", "predictor": "Gibbs", "side": "upper",
        "validity": "guaranteed", "value": value, "low": 0.0, "high": value, "delta": 0.05,
        "terms": {"measured_risk": (low + high) / 2, "measured_low": low, "measured_high": high},
    }  # fmt: skip
    return BoundResult(**(fields | changes))


@pytest.mark.parametrize(
    ("value", "status", "vacuous"),
    [(0.5, "holds", False), (0.15, "undetermined", False), (0.05, "violated", False), (1.2, "holds", True)],
)
def test_risk_bounds_against_the_measured_risk(value, status, vacuous):
    row = ledger(bounds=[bound(value, 0.1, 0.2)]).claim("bound")[0]
    assert (row.status, row.vacuous) == (status, vacuous)
    assert row.quantity == "b (Gibbs)"


def test_risk_bounds_without_a_measurement_stay_undetermined():
    row = ledger(bounds=[bound(0.3, 0.1, 0.2, terms={})]).claim("bound")[0]
    assert row.status == "undetermined"
    assert ledger().claim("bound")[0].status == "undetermined"


def test_claims_on_data_hold():
    table = ledger(points=torch.rand(60, 4, generator=torch.Generator().manual_seed(1)))
    assert table.alarms == []
    assert table.claim("R2")[1].status in ("holds", "undetermined")
    assert table.claim("R3")[-1].status == "holds"
