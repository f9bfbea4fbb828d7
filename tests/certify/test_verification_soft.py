"""Level 2 on soft scores: simulated honest runs pass, forged ones are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.procedures import make_procedure
from certify.radii import radius_down
from certify.records import Record, Run, Status
from certify.scores.distribution import score_thresholds
from certify.scores.means import kelly_grid_histogram
from certify.scores.timed import block_after
from certify.sequential.boundaries import plan_looks
from certify.store import open_run, read_run
from certify.verification import verify
from certify.verification.bounds import recompute
from certify.verification.plan import looks_of
from certify.verification.soft import soft_fault
from tests.certify.sample_run import GUARANTEE, settings

SIGMA = 0.5
PLANS = {
    "mean, real radius": ("soft", "radius", {"slack": 0.1, "n_max": 3000}),
    "mean, one radius": ("soft", "decide", {"radius": 0.1, "n_max": 3000}),
    "mean, fixed": ("soft", "fixed", {"n": 2000}),
    "distribution": ("distribution", "fixed", {"n": 2000}),
}


LEANS = (0.3, 0.55, 0.75, 0.97)


def simulate(plan, leans=LEANS) -> list[Record]:
    """Input i: class i % 3 has margin scores Beta-distributed with the given mean."""
    rng, records = np.random.default_rng(2), []
    for index, lean in enumerate(leans):
        progress = plan.start()
        histogram = np.zeros((3, len(plan.thresholds) + 1), dtype=np.int64)
        drawn = 0
        while (wanted := progress.wanted()) is not None:
            for c in range(3):
                mean = lean if c == index % 3 else (1 - lean) / 2
                scores = rng.beta(8 * mean, 8 * (1 - mean), wanted - drawn)
                bins = np.searchsorted(plan.thresholds, scores, side="right")
                histogram[c] += np.bincount(bins, minlength=histogram.shape[1])
            drawn = wanted
            progress.look(histogram.copy())
        o = progress.outcome()
        certified = o.status is Status.CERTIFIED
        proved = o.proved_radius if o.proved_radius is not None else radius_down(o.p_lower, SIGMA)
        records.append(
            Record(
                index=index,
                status=o.status,
                label=o.label,
                target=index % 3,
                radius=proved if certified else 0.0,
                radius_upper=radius_down(o.p_upper, SIGMA),
                p_lower=o.p_lower,
                p_upper=o.p_upper,
                pb_lower=o.pb_lower,
                pb_upper=o.pb_upper,
                samples=o.samples,
                details=o.details,
            )
        )
    return records


@pytest.fixture(scope="module", params=PLANS)
def honest(request, tmp_path_factory):
    scores, mode, options = PLANS[request.param]
    plan = make_procedure(mode, scores=scores, sigma=SIGMA, tv=1e-9, **options)
    records = simulate(plan)
    path = tmp_path_factory.mktemp(scores + mode)
    described = settings(scores=scores, mode=mode, sigma=SIGMA, mode_options=plan.settings())
    with open_run(path, described, f"{GUARANTEE} {plan.guarantee()}") as store:
        for record in records:
            store.add(record)
    return path, records


def test_an_honest_run_passes(honest):
    path, records = honest
    result = verify(path)
    assert result.ok, result.failures
    assert {r.status for r in records} == {Status.CERTIFIED, Status.ABSTAINED}


def shifted(r):
    merged: dict[int, int] = {}
    for b, k in r.details["histogram"]:
        merged[b // 2] = merged.get(b // 2, 0) + k
    return replace(r, details={**r.details, "histogram": [[b, k] for b, k in merged.items()]})


def doubled(r):
    return replace(r, details={**r.details, "histogram": [[b, 2 * k] for b, k in r.details["histogram"]]})


FORGERIES = {
    "a larger p_lower": lambda r: replace(r, p_lower=r.p_lower + 1e-4),
    "a larger radius": lambda r: replace(r, radius=r.radius + 1e-4),
    "a smaller radius": lambda r: replace(r, radius=r.radius - 1e-4),
    "worse scores": shifted,
    "twice the samples": doubled,
    "no histogram": lambda r: replace(r, details={"selected": 0}),
    "a bin that does not exist": lambda r: replace(r, details={**r.details, "histogram": [[9999, 5]]}),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_named(honest, name):
    path, records = honest
    place = next(i for i, r in enumerate(records) if r.certified)
    forged = [FORGERIES[name](r) if i == place else r for i, r in enumerate(records)]
    stored = read_run(path)
    found = list(recompute(replace(stored, run=Run(forged, stored.settings, stored.guarantee))))
    assert any(f"input {place}:" in detail for _, ok, detail in found if not ok), found


def fresh_scores(plan, *, leans=LEANS, n=1000, seed=0):
    """Replays as a caller does: new scores of the certified class, in the plan's bins."""

    def replay(records):
        rng, found = np.random.default_rng(seed), {}
        for r in records:
            mean = leans[r.index] if r.label == r.index % 3 else (1 - leans[r.index]) / 2
            scores = rng.beta(8 * mean, 8 * (1 - mean), n)
            bins = np.searchsorted(plan.thresholds, scores, side="right")
            found[r.index] = np.bincount(bins, minlength=len(plan.thresholds) + 1).tolist()
        return found

    return replay


def plan_of(path):
    said = read_run(path).settings
    scores, mode, options = next(p for p in PLANS.values() if p[:2] == (said["scores"], said["mode"]))
    return make_procedure(mode, scores=scores, sigma=SIGMA, tv=1e-9, **options)


def with_blocks(r, blocks):
    total: dict[int, int] = {}
    for block in blocks:
        for b, k in block:
            total[b] = total.get(b, 0) + k
    summed = [[b, k] for b, k in sorted(total.items()) if k]
    return replace(r, details={**r.details, "blocks": blocks, "histogram": summed})


def later_first(r):
    first, *rest = r.details["blocks"]
    return with_blocks(r, [*rest, first])


def cut_otherwise(r):
    """The same samples, one of them counted a block earlier."""
    blocks = [[list(pair) for pair in block] for block in r.details["blocks"]]
    blocks[1][0][1] -= 1
    blocks[0] = [*blocks[0], [blocks[1][0][0], 1]] if blocks[1][0][0] not in dict(blocks[0]) else blocks[0]
    return with_blocks(r, [[pair for pair in block if pair[1]] for block in blocks])


def borrowed(r):
    """Scores below zero times: more high ones for the same number of samples."""
    *rest, last = r.details["blocks"]
    return with_blocks(r, [*rest, [[0, -40], [512, sum(k for _, k in last) + 40]]])


def other_selection(r):
    return replace(r, details={**r.details, "selection": [[511, 64]]})


BLOCK_FORGERIES = {
    "blocks in another order": later_first,
    "a sample in an earlier block": cut_otherwise,
    "a count below zero": borrowed,
    "a bin counted from the end": lambda r: with_blocks(r, [*r.details["blocks"][:-1], [[-1, 8]]]),
    "a block too few": lambda r: with_blocks(r, r.details["blocks"][1:]),
    "no blocks": lambda r: replace(r, details={**r.details, "blocks": []}),
    "another selection": other_selection,
    "a selection of fewer": lambda r: replace(r, details={**r.details, "selection": [[300, 10]]}),
    "blocks that are none": lambda r: replace(r, details={**r.details, "blocks": [[1]]}),
    "a histogram of other scores": lambda r: replace(r, details={**r.details, "histogram": [[500, 3]]}),
}


@pytest.mark.parametrize("mode", ["radius", "fixed"])
@pytest.mark.parametrize("name", BLOCK_FORGERIES)
def test_blocks_that_were_not_played_are_named(name, mode):
    options = {"radius": {"slack": 0.1, "n_max": 3000}, "fixed": {"n": 2000}}[mode]
    plan = make_procedure(mode, scores="soft", sigma=SIGMA, tv=1e-9, **options)
    said = settings(scores="soft", mode=mode, sigma=SIGMA, mode_options=plan.settings())
    record = next(r for r in simulate(plan) if r.certified)
    assert soft_fault(record, said) is None
    assert soft_fault_of(BLOCK_FORGERIES[name](record), said) is not None


def soft_fault_of(record, said):
    try:
        return soft_fault(record, said)
    except (LookupError, TypeError, ValueError) as refused:  # what level 2 reports as a fault
        return str(refused)


def test_runs_of_fixed_bets_are_still_recomputed():
    """As releases before planned stakes wrote them: bins even in log-odds, one histogram."""
    floors, rng = np.append(0.0, score_thresholds(512)), np.random.default_rng(3)
    values = np.searchsorted(score_thresholds(512), rng.beta(6, 2, 400), side="right")
    counts = np.bincount(values, minlength=513)
    proved = kelly_grid_histogram(floors, counts, 1e-3)
    plan = {"alpha": 1e-3, "n_max": 400, "slack": 0.0, "radius": None, "p_target": None, "n0": 64,
            "bins": 512, "first": 400, "growth": 1.2, "tv": 0.0}  # fmt: skip
    said = settings(scores="soft", mode="fixed", sigma=SIGMA, mode_options=plan)
    kept = {"selected": 0, "look": 0, "histogram": [[int(b), int(counts[b])] for b in np.flatnonzero(counts)]}
    record = Record(
        index=0, status=Status.CERTIFIED, label=0, target=0, radius=radius_down(proved, SIGMA),
        radius_upper=1.0, p_lower=proved, p_upper=1.0, pb_lower=0.0, pb_upper=1 - proved, samples=464,
        details=kept,
    )  # fmt: skip
    assert soft_fault(record, said) is None
    assert "do not refute" in (soft_fault(replace(record, p_lower=proved + 1e-3), said) or "")


@pytest.mark.parametrize("seed", range(5))
def test_fresh_scores_agree_with_an_honest_run(honest, seed):
    path, _ = honest
    done = verify(path, level=3, replay=fresh_scores(plan_of(path), seed=seed), seed=seed)
    assert done.ok, done.failures


@pytest.mark.parametrize("by", [-0.15, 0.15])
def test_fresh_scores_refute_another_classifier(honest, by):
    path, _ = honest
    leans = [min(0.99, lean + by) for lean in LEANS]
    done = verify(path, level=3, replay=fresh_scores(plan_of(path), leans=leans), seed=0)
    assert [c.name for c in done.failures] == ["replay"]
    assert "with fresh noise" in done.failures[0].detail


def test_a_replay_must_answer_for_every_input_in_its_bins(honest):
    path, _ = honest
    for nothing in ({}, {place: [5, 5] for place in range(4)}):
        done = verify(path, level=3, replay=lambda records, answer=nothing: answer, seed=0)
        assert "was not sampled again" in done.failures[0].detail


def test_replays_share_their_level_among_the_looks():
    """As many looks as the procedure plans, or a best look chosen among them would be called a fault."""
    for first, growth, n_max in ((64, 1.2, 3000), (1, 1.05, 200), (500, 2.0, 100), (64, 1.2, 64)):
        said = {"first": first, "growth": growth, "n_max": n_max}
        assert looks_of(said) == plan_looks(first, growth, n_max).tolist()
    assert looks_of({"n": 100}) == [100]
    for n_max in (40, 3000, 100_000):
        for horizon in (32, n_max // 3 + 1, n_max):
            done, ends = 0, 0
            while done < n_max:
                done, ends = done + block_after(done, horizon, n_max)[0], ends + 1
            assert ends <= len(looks_of({"bets": "timed", "n_max": n_max}))
