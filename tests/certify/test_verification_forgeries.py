"""Runs whose numbers follow from each other, but not from what a certificate rests on: all named."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest

from certify.inside.internal_noise import InternalNoise, NoiseStage
from certify.noise import make_noise
from certify.records import Record, Run, Status
from certify.store import read_run
from certify.verification import verify
from certify.verification.ball import reach_of
from certify.verification.bounds import recompute
from certify.verification.independent import lower_bound, upper_bound
from certify.verification.replay import consistent
from certify.verification.settings import record_fault, settings_faults
from certify.verification.witness import PLAN
from tests.certify.sample_run import GUARANTEE, settings
from tests.certify.simulated_run import write
from tests.certify.test_verification_soft import PLANS, SIGMA, simulate

MODES = ("fixed", "decide", "grid", "radius")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = {}
    for mode in MODES:
        path = tmp_path_factory.mktemp(mode)
        write(path, mode)
        out[mode] = read_run(path)
    return out


@pytest.fixture(scope="module", params=PLANS)
def soft(request, tmp_path_factory):
    from certify.procedures import make_procedure
    from certify.store import open_run

    scores, mode, options = PLANS[request.param]
    plan = make_procedure(mode, scores=scores, sigma=SIGMA, tv=1e-9, **options)
    path = tmp_path_factory.mktemp("soft")
    said = settings(scores=scores, mode=mode, sigma=SIGMA, mode_options=plan.settings())
    with open_run(path, said, GUARANTEE) as store:
        for record in simulate(plan):
            store.add(record)
    return read_run(path)


def faults(stored, *, change=None, record=None, guarantee=None, plan=None):
    """What level 2 names in the run with changed settings, records, promise or boundaries."""
    said = copy.deepcopy(stored.settings)
    if change:
        change(said)
    records = [record(r, said) if record else r for r in stored.run]
    documents = stored.documents if plan is None else {**stored.documents, PLAN: plan}
    guarantee = stored.guarantee if guarantee is None else guarantee
    forged = replace(
        stored, settings=said, guarantee=guarantee, documents=documents, run=Run(records, said, guarantee)
    )
    return {name: detail for name, ok, detail in recompute(forged) if not ok}


def claiming(r: Record, p: float, said) -> Record:
    """The record with p_lower = p and everything else made to fit."""
    reach, upper = reach_of(said), max(p, r.p_upper)
    assert reach is not None
    rest = math.nextafter(1 - p, 2)
    return replace(r, p_lower=p, pb_upper=rest, p_upper=upper, radius=reach(p), radius_upper=reach(upper))


def options(**values):
    return lambda said: said["mode_options"].update(values)


def test_nothing_is_named_in_honest_runs(runs, soft):
    assert not any(faults(stored) for stored in (*runs.values(), soft))


@pytest.mark.parametrize("tv", [-0.1, math.nan, 0.5])
def test_noise_cannot_be_better_than_its_law(runs, soft, tv):
    for stored in (runs["fixed"], runs["radius"], soft):
        assert "the noise's own error" in faults(stored, change=options(tv=tv))["settings"]


def test_a_negative_error_with_bounds_to_match_is_named(runs):
    def raised(r, said):
        return claiming(r, r.p_lower + 0.1, said) if r.certified and r.p_lower < 0.8 else r

    for mode in ("fixed", "radius"):
        assert "settings" in faults(runs[mode], change=options(tv=1e-9 - 0.1), record=raised)


@pytest.mark.parametrize(("sigma", "grid", "shape"), [(0.25, 1 / 255, (3, 8, 8)), (0.5, 1 / 16, (1, 8, 8))])
def test_the_error_of_lattice_noise_is_worked_out_again(sigma, grid, shape):
    noise, dim = make_noise("lattice", sigma=sigma, grid=grid, bounds=(0.0, 1.0)), math.prod(shape)

    def said(tv):
        return settings(
            sigma=sigma, noise="lattice", noise_settings=noise.settings(), grid=grid, input_shape=list(shape),
            dim=dim, mode_options={"alpha": 0.001, "n0": 1, "n": 1, "tv": tv},
        )  # fmt: skip

    assert not list(settings_faults(said(noise.tv(dim)), GUARANTEE))
    for less in (0.0, noise.tv(dim) * 0.5):
        assert "own error" in next(settings_faults(said(less), GUARANTEE), "")
    assert "grid" in next(settings_faults(said(noise.tv(dim)) | {"grid": grid * 2}, GUARANTEE), "")


def test_a_boundary_beyond_all_samples_is_not_reached(runs):
    stored = runs["radius"]
    plan = stored.documents[PLAN]
    n = plan["looks"][0]
    never = max(m for m, row in enumerate(plan["accept"]) if row[0] == n + 1)

    def record(r, said):
        if not r.certified:
            return r
        p = plan["targets"][never] - said["mode_options"]["tv"]
        there = {**r.details, "target": never, "reached_at": n, "reached_count": n + 1}
        return replace(claiming(r, p, said), details=there)

    assert f"{n + 1} votes at {n} samples" in faults(stored, record=record)["bounds"]


def tenfold(r, said):
    return replace(r, radius=10 * r.radius, radius_upper=10 * r.radius_upper)


def test_sigma_is_that_of_the_noise(runs):
    change = {"sigma": 10 * runs["fixed"].settings["sigma"]}
    found = faults(runs["fixed"], change=lambda said: said.update(change), record=tenfold)
    assert "the noise was drawn with 0.5" in found["settings"]


LAWS = {
    "another name": ("uniform", {"name": "gaussian", "sigma": 0.25}),
    "the largest of several": ("anisotropic", {"name": "anisotropic", "sigma": [[0.1], [0.25]]}),
    "a width that is not sigma's": ("uniform", {"name": "uniform", "sigma": 0.25, "half_width": 1.0}),
    "a scale that is not sigma's": ("laplace", {"name": "laplace", "sigma": 0.25, "scale": 0.25}),
    "less noise inside": ("internal", {"scales": [0.1], "lipschitz": [1.0], "sizes": [2]}),
    "no sigma": ("gaussian", {"name": "gaussian", "sigma": None}),
}


@pytest.mark.parametrize("name", LAWS)
def test_noise_is_described_once(runs, name):
    noise, law = LAWS[name]
    change = {"noise": noise, "noise_settings": law, "sigma": 0.25}
    assert "settings" in faults(runs["fixed"], change=lambda said: said.update(change))


def test_noises_describe_themselves_as_level_two_reads_them():
    stages = (NoiseStage(0.1, 1.5, 4), NoiseStage(0.2, 0.7, 2))
    laws = [make_noise(n, sigma=0.25) for n in ("gaussian", "uniform", "laplace")]
    laws += [make_noise("anisotropic", sigma=[[0.25], [0.5]]), InternalNoise(stages)]
    for law in laws:
        sigma = law.sigma if isinstance(law, InternalNoise) else 0.25
        said = settings(sigma=sigma, noise=law.name, noise_settings=law.settings())
        said["mode_options"] = {"alpha": 0.001}
        assert not list(settings_faults(said, GUARANTEE)), law.name


def test_the_dimension_is_that_of_the_inputs(runs, soft):
    for stored in (*runs.values(), soft):
        found = faults(stored, change=lambda said: said.update(norm="inf", dim=1, input_shape=[4, 4]))
        assert "have 16 coordinates" in found["settings"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.999, 7.0, math.nan])
def test_alpha_is_an_error_probability(runs, soft, alpha):
    for stored in (runs["fixed"], runs["radius"], soft):

        def change(said):
            said["alpha"] = said["mode_options"]["alpha"] = alpha

        assert "settings" in faults(stored, change=change)


def test_soft_bounds_are_at_the_alpha_of_the_run(soft):
    assert "the run says 0.001" in faults(soft, change=options(alpha=0.4))["settings"]


def test_the_class_of_mean_scores_is_the_selected_one(soft):
    def labelled(label):
        return lambda r, said: replace(r, label=label) if r.certified else r

    place = next(r for r in soft.run if r.certified)
    other = (place.details["selected"] + 1) % 3
    assert "was the one selected" in faults(soft, record=labelled(other))["bounds"]
    assert "is not among the 3 classes" in " ".join(faults(soft, record=labelled(77)).values())
    many = faults(soft, record=lambda r, said: replace(r, samples=r.samples + 10**6))
    assert "were paid for" in many["bounds"]


@pytest.mark.parametrize("status", [Status.FAILED, Status.ABSTAINED])
def test_only_certificates_claim_anything(runs, soft, status):
    for stored in (runs["decide"], soft):
        found = faults(stored, record=lambda r, said: replace(r, status=status) if r.certified else r)
        assert f"{status}, and yet" in " ".join(found.values())


@pytest.mark.parametrize(
    "change",
    [
        {"p_lower": math.nan},
        {"radius": math.nan},
        {"radius": -1.0},
        {"radius_upper": math.nan},
        {"p_upper": 1.1},
        {"counts": (9, -1, 2)},
    ],
)
def test_numbers_that_are_none_are_named(change):
    plain = Record(0, Status.CERTIFIED, 0, counts=(9, 1, 0), samples=10, p_lower=0.6, radius=0.1)
    assert record_fault(plain, {"num_classes": 3}) is None
    assert record_fault(replace(plain, **change), {"num_classes": 3})


@pytest.mark.parametrize(
    ("promise", "fits"),
    [
        ("With probability at least 0.999 the class is constant.", True),
        ("With probability at least 0.99, the class is constant.", True),
        ("With probability at least 0.9999 the class is constant.", False),
        ("With probability at least one the class is constant.", False),
        ("With probability at least nan the class is constant.", False),
        ("Holds with certainty.", False),
        ("", False),
        ("With probability at least 0.999 and again with probability at least 1.", False),
        ("With probability at least 0.999 the classifier (sigma = 0.5, exact) is constant.", True),
        ("With probability at least 0.999 the classifier (sigma = 5, exact) is constant.", False),
        ("With probability at least 0.999 constant within the certified linf distance.", False),
    ],
)
def test_the_promise_is_that_of_the_settings(runs, soft, promise, fits):
    for stored in (runs["radius"], soft):
        assert ("settings" not in faults(stored, guarantee=promise)) == fits


@pytest.mark.parametrize(("total", "fits"), [("0.002", True), ("0.003", True), ("0.001", False)])
def test_a_transferred_run_promises_both_errors(runs, total, fits):
    promise = f"{GUARANTEE} So the probability of a wrong certificate is at most {total}."
    carried = {"transfer": {"alpha": 0.001}}
    found = faults(runs["fixed"], change=lambda said: said.update(carried), guarantee=promise)
    assert ("settings" not in found) == fits
    assert "settings" in faults(runs["fixed"], change=lambda said: said.update(carried))


BROKEN = {
    "a target that is no number": lambda plan: plan.update(targets=[math.nan]),
    "an infinite look": lambda plan: plan["looks"].__setitem__(0, math.inf),
    "looks in words": lambda plan: plan.update(looks="many"),
    "an infinite boundary": lambda plan: plan["accept"][0].__setitem__(0, math.inf),
    "no rows": lambda plan: plan.update(accept=None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_reported_not_raised(runs, name):
    plan = copy.deepcopy(runs["decide"].documents[PLAN])
    BROKEN[name](plan)
    assert faults(runs["decide"], plan=plan)["boundaries"]


@pytest.mark.parametrize(
    "change",
    [
        {"mode_options": None},
        {"alpha": "small"},
        {"num_classes": None},
        {"scores": ["votes"]},
        {"noise_settings": []},
        {"input_shape": 2},
        {"norm": []},
        {"sigma": "wide"},
    ],
)
def test_settings_of_the_wrong_type_are_reported_not_raised(runs, soft, change):
    for stored in (*runs.values(), soft):
        assert faults(stored, change=lambda said: said.update(change))


def test_a_rewritten_run_with_honest_hashes_fails_as_a_whole(tmp_path):
    write(tmp_path, "radius", input_shape=[3, 3])
    assert verify(tmp_path, level=1).ok
    assert [c.name for c in verify(tmp_path, level=2).failures] == ["settings"]


def test_samples_without_a_class_are_trials_in_a_replay():
    """A third of the scores are not numbers: the class has 2/3 of all samples, and all of the votes."""
    sequential = Record(0, Status.CERTIFIED, 0, counts=(1674, 0, 0), samples=2526, details={"look": 20})
    fixed = replace(sequential, samples=2626)
    for record, said in (
        (sequential, {"mode": "radius"}),
        (fixed, {"mode": "fixed", "mode_options": {"n": 2526}}),
    ):
        assert consistent([record], {0: [663, 0, 0, 337]}, said) is None
        assert "with fresh noise" in (consistent([record], {0: [1000, 0, 0, 0]}, said) or "")
    assert lower_bound(1674, 2526, 1e-6) < 0.663 < upper_bound(1674, 2526, 1e-6)
