"""Runs that bound the runner-up, from votes to verification: honest ones hold, forged ones are named."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import certify
from certify.errors import InvalidSetting, RunConflict
from certify.procedures import make_procedure
from certify.radii import radius_between, radius_down
from certify.records import Run
from certify.runner_up import SHARE, leader_lower, rival_votes, rivals_upper, share_of
from certify.store import read_run
from certify.transfer import transfer
from certify.verification import verify
from certify.verification.bounds import recompute
from certify.verification.witness import PLAN
from tests.certify.simulated_run import SIGMA, certify_votes, procedure, write

MODES = ("fixed", "decide", "grid", "radius")


#: Shares of the leading class; the two others halve the rest.
SHARES = (0.35, 0.45, 0.5, 0.55, 0.66, 0.72, 0.9, 0.99, 0.9999)


def plan(mode):
    return procedure(mode, classes=3, **{"decide": {"radius": 0.1}, "grid": {"step": 0.05}}.get(mode, {}))


@pytest.fixture(scope="module", params=MODES)
def honest(request, tmp_path_factory):
    mode, path = request.param, tmp_path_factory.mktemp(request.param)
    return mode, path, write(path, mode, certify_votes(plan(mode), SHARES), plan=plan(mode))


def named(stored, change, index):
    """What level 2 says against the run with the record of input ``index`` changed."""
    records = [change(r) if r.index == index else r for r in stored.run]
    forged = replace(stored, run=Run(records, stored.settings, stored.guarantee))
    return [detail for _, ok, detail in recompute(forged) if not ok]


# -- what is recorded ----------------------------------------------------------------------------


def test_radii_are_those_of_both_bounds_and_never_less_than_of_one(honest):
    mode, _, records = honest
    assert any(r.p_lower <= 0.5 and r.certified for r in records)
    for r in records:
        if not r.certified:
            continue
        assert r.p_lower > r.pb_upper
        assert r.pb_upper <= math.nextafter(1 - r.p_lower, 2)
        assert r.radius <= radius_between(r.p_lower, r.pb_upper, SIGMA) * (1 + 1e-11)
        assert r.details["one_sided"] <= min(r.radius, radius_down(r.p_lower, SIGMA) * (1 + 1e-11))
        assert r.radius_upper >= r.radius
    spread = [r for r in records if r.certified and r.p_lower < 0.6]
    assert sum(r.radius - r.details["one_sided"] for r in spread) > 0.04 * len(spread)
    assert all(r.details["one_sided"] in (0.0, 0.1) for r in records) or mode != "decide"


def test_a_fixed_run_is_two_clopper_pearson_bounds():
    for r in certify_votes(plan("fixed")):
        label, counts, how = r.details["selected"], np.array(r.counts), {"alpha": 0.001, "tv": 1e-9}
        assert r.p_lower == leader_lower(r.counts[label], 1000, **how)
        upper = rivals_upper(rival_votes(counts, 1000, label), 1000, **how)
        assert r.pb_upper == min(upper, math.nextafter(1 - r.p_lower, 2) if r.p_lower else 1.0)


def test_it_is_on_for_more_than_two_classes_and_off_where_it_says_nothing_new():
    shared = {"sigma": 0.5, "n": 500}
    assert make_procedure("fixed", classes=3, **shared).settings()["runner_up"] == SHARE
    for less in ({}, {"classes": 2}, {"classes": 3, "runner_up": False}, {"classes": 3, "alpha": 1e-249}):
        alone = make_procedure("fixed", **shared, **less)
        assert "runner_up" not in alone.settings()
        assert alone.guarantee().endswith(f"bound at level {alone.alpha:g}.")
    unknown = make_procedure("fixed", needed=lambda r: 0.6, classes=3, **shared)
    assert "runner_up" not in unknown.settings()


@pytest.mark.parametrize(
    "asked",
    [{"classes": 2}, {}, {"classes": 3, "scores": "soft"}, {"classes": 3, "alpha": 1e-249},
     {"classes": 3, "needed": lambda r: 0.6}],
)  # fmt: skip
def test_what_is_asked_for_and_cannot_be_had_is_refused(asked):
    with pytest.raises(InvalidSetting, match="runner-up"):
        make_procedure("fixed", sigma=0.5, n=500, runner_up=True, **asked)


# -- verification ----------------------------------------------------------------------------------


def test_an_honest_run_holds(honest):
    _, path, records = honest
    result = verify(path, level=2)
    assert result.ok, [(c.name, c.detail) for c in result.failures]
    assert any(r.certified for r in records)


FORGERIES = {
    "fewer votes for the runner-up": lambda r: replace(
        r, counts=tuple(c if i == r.label else max(0, c - 60) for i, c in enumerate(r.counts))
    ),
    "a smaller pb_upper": lambda r: replace(r, pb_upper=r.pb_upper - 1e-6),
    "a smaller pb_upper, radius to match": lambda r: replace(
        r, pb_upper=r.pb_upper / 2, radius=radius_between(r.p_lower, r.pb_upper / 2, SIGMA)
    ),
    "a larger p_lower, radius to match": lambda r: replace(
        r, p_lower=r.p_lower + 1e-5, radius=radius_between(r.p_lower + 1e-5, r.pb_upper, SIGMA)
    ),
    "a larger radius": lambda r: replace(r, radius=r.radius + 1e-6),
    "a larger radius without the runner-up": lambda r: replace(
        r, details={**r.details, "one_sided": r.radius + 0.05}
    ),
    "no radius without the runner-up": lambda r: replace(
        r, details={k: v for k, v in r.details.items() if k != "one_sided"}
    ),
    "a larger radius_upper": lambda r: replace(r, radius_upper=r.radius_upper + 1e-4),
    "the runner-up as the class": lambda r: replace(r, label=((r.label or 0) + 1) % 3),
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("below_half", [True, False])
def test_a_forged_record_is_named(honest, name, below_half):
    _, path, records = honest
    forged = next(r for r in records if r.certified and (r.p_lower <= 0.5) == below_half and r.p_lower < 0.9)
    found = named(read_run(path), FORGERIES[name], forged.index)
    assert found, f"{name} was believed"
    assert any(f"input {forged.index}:" in detail for detail in found), found


@pytest.mark.parametrize(
    ("change", "said"),
    [({"runner_up": 0.5}, "0.0005"), ({"runner_up": 1.5}, "share of 1.5"),
     ({"runner_up": -0.1}, "share of -0.1"), ({"runner_up": 0.0}, "share of 0")],
)  # fmt: skip
def test_the_share_is_the_one_that_the_bounds_were_taken_at(honest, change, said):
    _, path, _ = honest
    stored = read_run(path)
    settings = stored.settings | {"mode_options": stored.settings["mode_options"] | change}
    forged = replace(stored, settings=settings, run=Run(stored.run.records, settings, stored.guarantee))
    assert said in " ".join(detail for _, ok, detail in recompute(forged) if not ok)


def changed(key, change):
    return lambda body: body["runner_up"].update({key: change(body["runner_up"][key])})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("levels", lambda v: [2 * a for a in v]), "something false is said"),
        (changed("caps", lambda v: [0.4999, *v[1:]]), "something false is said"),
        (changed("caps", lambda v: [0.9, *v[1:]]), "does not lie between"),
        (changed("rivals", lambda a: 10 * a), "other classes' bounds have level"),
        (changed("apart", lambda a: 100 * a), "other classes' bounds have level"),
        (changed("weights", lambda v: [2 * w for w in v]), "more than the whole"),
        (changed("weights", lambda v: v[:-1]), "not those of these looks"),
        (changed("levels", lambda v: [-1.0, *v[1:]]), "between 0 and 1"),
        (lambda body: body.pop("runner_up"), "malformed"),
    ],
)
def test_the_levels_of_both_sides_are_checked_by_their_sum(honest, change, said):
    mode, path, _ = honest
    if mode == "fixed":
        return
    stored = read_run(path)
    body = copy.deepcopy(stored.documents[PLAN])
    change(body)
    forged = replace(stored, documents={**stored.documents, PLAN: body})
    found = " ".join(detail for _, ok, detail in recompute(forged) if not ok)
    if mode == "decide" and body.get("runner_up", {}).get("caps", [1])[0] == 0.4999:
        assert "prove" in found  # its target is higher: a lower cap is sound, but not what was recorded
    else:
        assert said in found


def test_a_class_that_is_not_told_apart_is_not_certified(honest):
    mode, path, records = honest
    if mode == "fixed":
        return
    low = next(r for r in records if r.certified and r.details["target"] == -1)

    def close(r):
        most = max(r.counts)
        return replace(
            r, counts=tuple(most if c == r.label else most - 1 for c in range(3)), samples=r.samples
        )

    found = named(read_run(path), close, low.index)
    assert any(f"input {low.index}:" in detail for detail in found)


def test_two_classes_have_no_runner_up_beside_the_other_one(honest):
    _, path, _ = honest
    stored = read_run(path)
    settings = stored.settings | {"num_classes": 2}
    forged = replace(stored, settings=settings, run=Run(stored.run.records, settings, stored.guarantee))
    assert "more than two classes" in " ".join(detail for _, ok, detail in recompute(forged) if not ok)


# -- with a model ------------------------------------------------------------------------------------


def half_spaces():
    """Three classes of the plane, each in a sector of 120 degrees: the lines between them are known."""

    class Sectors(nn.Module):
        def forward(self, x):
            angles = torch.tensor([math.pi / 2, 7 * math.pi / 6, 11 * math.pi / 6], dtype=torch.float64)
            return x.flatten(1).double() @ torch.stack([angles.cos(), angles.sin()])

    return Sectors().eval()


def smoothed(noise="gaussian", norm="2", **options):
    grid = 2.0**-8 if noise == "lattice" else None
    return certify.Smoothed(
        half_spaces(), 0.5, num_classes=3, noise=noise, norm=norm, bounds=None, grid=grid, batch_size=512,
        **options,
    )  # fmt: skip


POINTS = torch.tensor([[0.0, 0.5], [0.0, 0.25], [0.25, 0.25]])


@pytest.mark.parametrize(
    ("noise", "norm"),
    [("gaussian", "2"), ("lattice", "2"), ("lattice", "inf"), ("uniform", "1"), ("laplace", "1")],
)
def test_a_run_holds_and_proves_more_than_one_bound_does(noise, norm, tmp_path):
    g = smoothed(noise, norm)
    both = g.certify(POINTS, mode="fixed", n=3000, seed=3, store=tmp_path / "both")
    alone = g.certify(POINTS, mode="fixed", n=3000, seed=3, runner_up=False, store=tmp_path / "alone")
    assert share_of(both.settings) == SHARE
    assert "from above" in both.guarantee
    assert "or another's too small" in both.guarantee
    assert share_of(alone.settings) == 0
    for two, one in zip(both, alone, strict=True):
        assert two.counts == one.counts
        assert two.radius > one.radius
        assert two.details["one_sided"] == pytest.approx(one.radius, abs=0.001)
        assert "one_sided" not in one.details
    for place in ("both", "alone"):
        result = verify(tmp_path / place, level=2)
        assert result.ok, [(c.name, c.detail) for c in result.failures]


def test_no_radius_reaches_the_line_between_two_classes():
    """(0, 0.5) is 0.5 cos 30 from the lines on which two smoothed classes are equal, by symmetry."""
    run = smoothed().certify(POINTS[:1].expand(20, 2).contiguous(), mode="fixed", n=3000, seed=5)
    assert all(0.1 < r.radius < 0.5 * math.cos(math.pi / 6) for r in run)


def test_a_run_goes_on_as_it_began(tmp_path):
    g = smoothed()
    g.certify(POINTS[:1], mode="fixed", n=300, seed=3, runner_up=False, store=tmp_path)
    whole = g.certify(POINTS, mode="fixed", n=300, seed=3, store=tmp_path)
    assert len(whole) == 3
    assert share_of(whole.settings) == 0
    with pytest.raises(RunConflict, match="runner_up"):
        g.certify(POINTS, mode="fixed", n=300, seed=3, runner_up=True, store=tmp_path)


def test_all_inputs_together():
    run = smoothed().certify(POINTS, mode="fixed", n=3000, seed=3)
    label, n, how = run[0].label, 3000, {"alpha": 0.001 / 3, "tv": 0.0}
    counts = np.array(run[0].counts)
    bounds = (
        leader_lower(run[0].counts[label], n, **how),
        rivals_upper(rival_votes(counts, n, label), n, **how),
    )
    joint = run.simultaneous()
    assert joint[0] == radius_between(*bounds, 0.5)
    assert all(0 < j < r.radius for j, r in zip(joint, run, strict=True))


@pytest.mark.parametrize(
    ("mode", "options"), [("radius", {}), ("grid", {"step": 0.05}), ("decide", {"radius": 0.1})]
)
def test_sequential_modes_with_a_model(mode, options, tmp_path):
    g, shared = smoothed("lattice"), {"mode": mode, "n_max": 4000, "seed": 3, **options}
    both = g.certify(POINTS, store=tmp_path / "both", **shared)
    alone = g.certify(POINTS, store=tmp_path / "alone", runner_up=False, **shared)
    assert share_of(both.settings) == SHARE
    assert "every other class" in both.guarantee
    gained = [two.radius - one.radius for two, one in zip(both, alone, strict=True)]
    assert min(gained) >= 0
    assert sum(gained) > 0 or mode == "decide"
    if mode != "decide":
        joint = both.simultaneous()
        assert all(0 <= j <= r.radius for j, r in zip(joint, both, strict=True))
        assert sum(joint) > sum(alone.simultaneous())
    for place in ("both", "alone"):
        result = verify(tmp_path / place, level=2)
        assert result.ok, [(c.name, c.detail) for c in result.failures]


def test_a_transfer_moves_both_bounds(tmp_path):
    g, other = smoothed(), smoothed(dtype="bf16")
    g.certify(POINTS, mode="fixed", n=3000, seed=3, store=tmp_path / "run")
    carried = transfer(
        read_run(tmp_path / "run"), g, other, POINTS, samples=2000, seed=4, store=tmp_path / "there"
    )
    for before, after in zip(read_run(tmp_path / "run").run, carried, strict=True):
        q = after.details["flip_bound"]
        assert after.pb_upper == pytest.approx(min(before.pb_upper + q, 1 - after.p_lower), abs=1e-12)
        assert after.radius == radius_between(after.p_lower, after.pb_upper, 0.5) < before.radius
        assert after.details["one_sided"] <= before.details["one_sided"]
    result = verify(tmp_path / "there", level=2)
    assert result.ok, [(c.name, c.detail) for c in result.failures]
    stored = read_run(tmp_path / "there")
    for forged in (
        lambda r: replace(r, pb_upper=r.pb_upper - 1e-4),
        lambda r: replace(r, details={**r.details, "one_sided": r.radius + 0.05}),
        lambda r: replace(r, details={**r.details, "source": {**r.details["source"], "pb_upper": 0.01}}),
    ):
        assert named(stored, forged, 0)
