"""Runs about a population: what is counted, stated, stored, resumed, merged, verified and refused."""

from __future__ import annotations

import copy
import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch

import certify
import reports
from certify.canonical import canonical, sha256_text
from certify.errors import CorruptRun, InvalidInput, InvalidSetting, RunConflict
from certify.population.plan import Plan, make_plan
from certify.population.rules import design
from certify.population.run import count_population
from certify.population.statements import DOCUMENT, missing, right_counts, state, stated
from certify.records import Record, Run, Status
from certify.store import read_run, records_digest
from certify.store.merge import merge
from certify.verification import verify
from certify.verification.bounds import recompute
from certify.verification.population import drawn

SIGMA, N, COPIES = 0.5, 400, 20
#: Distances to the hyperplane in units of sigma; two classes, one input in ten on the wrong side.
rng = np.random.default_rng(0)
DEPTH = np.where(rng.random(N) < 0.1, -rng.random(N), 0.4 + 2.5 * rng.random(N))
RADII = (0.25, 0.5)


class HalfLine(torch.nn.Module):
    def forward(self, x):
        return torch.cat([-x, x], dim=1)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(N) % 2
    sign = torch.where(y == 1, 1.0, -1.0)
    return (torch.tensor(DEPTH, dtype=torch.float32) * SIGMA * sign)[:, None], y


def smoothed() -> certify.Smoothed:
    return certify.Smoothed(
        HalfLine().eval(), SIGMA, num_classes=2, noise="gaussian", bounds=None, batch_size=100, reduce=False
    )


def count(path, **options) -> Run:
    x, y = inputs()
    how = {"radii": RADII, "samples": COPIES, "one_pass": True, "shift": 0.1, "confidence": 0.99, "seed": 0}
    how |= options
    return count_population(smoothed(), x, y, store=path, **how)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("population") / "run"
    count(path)
    return path


def test_the_statements_hold_the_true_shares(made):
    """The share with p > Phi(r / sigma) is the share of inputs deeper than r; the attack is exact."""
    found = stated(read_run(made).documents[DOCUMENT]).statements
    for s, radius in zip(found, RADII, strict=True):
        true = float((radius < DEPTH * SIGMA).mean())
        assert s.lower < true < s.upper
        assert s.lower > true - 0.35
        from scipy import stats

        assert s.one_pass is not None
        assert s.one_pass < stats.norm.cdf(DEPTH - radius / SIGMA).mean()
        assert (s.inputs, s.pilot, s.counted, s.passes) == (N, 40, 360, N * COPIES)
        assert f"{s.radius:g}" in s.statement
        assert "used for training" in s.statement
    assert found[0].lower > found[1].lower
    assert found[0].shifted == found[1].shifted is not None


def test_the_pilot_is_drawn_by_the_seed_and_not_counted(made):
    run = read_run(made).run
    plan = Plan.of_settings(run.settings)
    order = plan.order(run.settings["seed"])
    assert sorted(order) == list(range(N))
    assert order[:40] != list(range(40))
    pilot, counted = right_counts(run)
    by_id = {r.index: r.counts[r.target] for r in run}
    assert pilot.tolist() == [by_id[i] for i in order[:40]]
    assert len(counted) == N - 40
    target = plan.targets(RADII[0])[0]
    assert state(run).statements[0].lower == (
        design(pilot, COPIES, target, 360, plan.alpha / 3).lower(counted)
    )
    assert order == drawn(N, N, run.settings["seed"])


def test_the_level_is_shared_by_all_that_is_stated(made, tmp_path):
    one = Plan.of_settings(read_run(made).settings)
    assert one.share == pytest.approx(0.01 / 3)
    assert make_plan([0.5], sigma=1, tv=0, of=100, samples=25).share == pytest.approx(0.001)
    # From one copy of each input all statements follow from one bound.
    assert make_plan([0.5, 0.2], sigma=1, tv=0, of=100, one_pass=True).share == pytest.approx(0.001)
    assert make_plan([0.5, 0.2], sigma=1, tv=0, of=100, one_pass=True).pilot == 0


def test_a_run_goes_on_and_is_the_same_run(made, tmp_path, monkeypatch):
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count(tmp_path / "run", on_samples=stop)
    half = read_run(tmp_path / "run")
    assert 0 < len(half.run) < N
    assert missing(half.run) == N - len(half.run)
    assert DOCUMENT not in half.documents
    with pytest.raises(InvalidSetting, match="no counts"):
        state(half.run)
    fresh = []
    again = count(tmp_path / "run", on_samples=lambda inputs, _: fresh.append(inputs))
    assert sum(fresh) == N - len(half.run)
    whole = read_run(made)
    assert records_digest(again) == records_digest(whole.run)
    assert read_run(tmp_path / "run").documents == whole.documents
    fresh.clear()
    count(tmp_path / "run", on_samples=lambda inputs, _: fresh.append(inputs))
    assert fresh == []


def test_shards_merge_into_the_same_run(made, tmp_path):
    for i in (1, 2, 3):
        where = {"environment": {"shard": f"{i}/3"}}
        part = count(tmp_path / f"{i}", part=(i, 3), settings=where)
        assert missing(part) == N - len(part)
        assert DOCUMENT not in read_run(tmp_path / f"{i}").documents
    merged = merge([tmp_path / "1", tmp_path / "2", tmp_path / "3"], tmp_path / "whole")
    assert records_digest(merged) == records_digest(read_run(made).run)
    assert read_run(tmp_path / "whole").documents == read_run(made).documents
    assert verify(tmp_path / "whole").ok


@pytest.mark.parametrize(
    "other",
    [{"radii": (0.25, 0.6)}, {"samples": 30}, {"inputs": 300}, {"pilot": 0.2}, {"confidence": 0.9},
     {"seed": 1}, {"about": "set"}, {"one_pass": False, "shift": None}],
)  # fmt: skip
def test_other_settings_are_another_run(made, tmp_path, other):
    shutil.copytree(made, tmp_path / "run")
    with pytest.raises(RunConflict):
        count(tmp_path / "run", **other)


def test_other_inputs_under_the_same_ids_are_refused(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    x, y = inputs()
    with pytest.raises(certify.errors.EvidenceFails, match="is not the one"):
        count_population(
            smoothed(), x + 0.01, y, store=tmp_path / "run", radii=RADII, samples=COPIES, one_pass=True,
            shift=0.1, confidence=0.99,
        )  # fmt: skip


def test_a_part_of_a_split_is_drawn_at_random(tmp_path):
    run = count(tmp_path / "run", inputs=100)
    ids = [r.index for r in run]
    assert len(ids) == 100
    assert max(ids) > 200
    assert read_run(tmp_path / "run").documents[DOCUMENT]["statements"][0]["inputs"] == 100
    assert verify(tmp_path / "run").ok


def test_a_statement_about_the_set_itself_is_lower_and_verified(made, tmp_path):
    count(tmp_path / "set", about="set")
    held = verify(tmp_path / "set")
    assert held.ok, held.failures
    ours = read_run(tmp_path / "set").documents[DOCUMENT]["statements"]
    theirs = read_run(made).documents[DOCUMENT]["statements"]
    assert 0 < ours[0]["lower"] < theirs[0]["lower"]
    assert "360 inputs that the counted ones were drawn from" in ours[0]["statement"]


def test_one_copy_of_each_input_is_enough_for_a_statement(tmp_path):
    run = count(tmp_path / "one", samples=None, radii=(0.1, 0.2), shift=None)
    [first, second] = state(run).statements
    assert first.samples_per_input == 1
    assert first.pilot == 0
    assert first.method == "threshold"
    assert 0.5 < first.one_pass < 0.8
    assert second.one_pass < first.one_pass
    assert verify(tmp_path / "one").ok


def test_a_lost_worker_leaves_nothing_stated(tmp_path):
    from contextlib import contextmanager

    class Losing:
        def __init__(self, sampler):
            self.audit, self.alone, self.batch_size = sampler.audit, sampler.alone, sampler.batch_size
            self.sampler = sampler

        def draw(self, requests):
            found = self.sampler.draw(requests)
            found.counts[0] = -1
            return found

    @contextmanager
    def losing(sampler):
        yield Losing(sampler)

    run = count(tmp_path / "run", engine=losing)
    lost = [r for r in run if r.status is Status.FAILED]
    assert lost
    assert missing(run) == len(lost)
    assert DOCUMENT not in read_run(tmp_path / "run").documents
    again = count(tmp_path / "run")
    assert missing(again) == 0


def test_a_model_that_answers_otherwise_in_a_batch_ends_the_run(tmp_path):
    """A noisy copy of every input is evaluated again by itself."""

    class Crowded(torch.nn.Module):
        def forward(self, x):
            if len(x) > 40:  # the probe sees smaller batches
                x = x.roll(1, 0)
            return torch.cat([-x, x], dim=1)

    x, y = inputs()
    g = certify.Smoothed(
        Crowded().eval(), SIGMA, num_classes=2, noise="gaussian", bounds=None, batch_size=100
    )
    with pytest.raises(certify.errors.NondeterministicModel):
        count_population(g, x, y, radii=[0.2], samples=COPIES, store=tmp_path / "run", seed=1)


def test_every_input_was_audited_or_the_run_does_not_hold(made):
    stored = read_run(made)
    assert all(r.details["audit"] == {"rows": 1, "disagreements": 0} for r in stored.run)
    found = faults(stored, record=lambda r: replace(r, details={"input": r.details["input"]}))
    assert "audit" in found
    assert "audit" in faults(stored, settings=lambda said: said.pop("audit"))


# -- what is no sample, or cannot be stated ---------------------------------------------------------


def test_inputs_without_labels_or_with_many_copies_are_refused(tmp_path):
    x, y = inputs()
    with pytest.raises(InvalidInput, match="labels"):
        count_population(smoothed(), x, store=tmp_path / "a", radii=[0.2])
    x[200:] = x[0]
    with pytest.raises(InvalidInput, match="repeat others"):
        count_population(smoothed(), x, y, store=tmp_path / "b", radii=[0.2])
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"radii": []}, {"radii": [0.2, 0.2]}, {"radii": [-1]}, {"radii": [float("nan")]}, {"samples": 0},
     {"samples": 5000}, {"inputs": 1}, {"inputs": 500}, {"confidence": 1.0}, {"pilot": 0.9}, {"about": "me"},
     {"shift": -1.0}, {"one_pass": False, "shift": 0.1}, {"radii": [9.0], "one_pass": False, "shift": None}],
)  # fmt: skip
def test_what_cannot_be_stated_is_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(InvalidSetting):
        count(tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_noise_and_norms_without_the_theorem_are_refused(tmp_path):
    x, y = inputs()
    for how in ({"noise": "laplace", "norm": "1"}, {"noise": "gaussian", "norm": "inf"}):
        other = certify.Smoothed(HalfLine().eval(), SIGMA, num_classes=2, bounds=None, batch_size=500, **how)
        with pytest.raises(InvalidSetting, match="nothing is stated"):
            count_population(other, x, y, store=tmp_path / "run", radii=[0.2])


def test_what_needs_certified_inputs_refuses_such_a_run(made, tmp_path):
    from certify.simultaneous import simultaneous
    from certify.store.exports import export

    run = read_run(made).run
    for ask in (run.accuracy, lambda: simultaneous(run)):
        with pytest.raises(InvalidSetting, match="certified none"):
            ask()
    with pytest.raises(InvalidSetting, match="no comparison"):
        reports.compare([made, made], out=tmp_path)
    with pytest.raises(InvalidInput, match="locuslab"):
        export(run, "locuslab")
    assert export(run, "csv").count("counted") == N


# -- forgeries --------------------------------------------------------------------------------------


def faults(stored, *, record=None, document=None, settings=None) -> dict[str, str]:
    """What level 2 names in the run with other records, statements or settings."""
    said, body = copy.deepcopy(stored.settings), copy.deepcopy(stored.documents[DOCUMENT])
    if settings:
        settings(said)
    if document:
        document(body)
    records = [record(r) if record else r for r in stored.run]
    forged = replace(
        stored, settings=said, documents={DOCUMENT: body},
        run=Run([r for r in records if r is not None], said, stored.guarantee),
    )  # fmt: skip
    return {name: detail for name, ok, detail in recompute(forged) if not ok}


def concluded(stored, record):
    """The document that the forged records would have given."""
    said = Run([record(r) for r in stored.run], stored.settings, stored.guarantee)
    return state(said).to_json()


def better(r: Record) -> Record:
    """All copies right, whatever they were."""
    votes = [0, 0]
    votes[r.target or 0] = COPIES
    return replace(r, counts=tuple(votes))


def test_an_honest_run_holds_at_every_level(made):
    fresh_of = smoothed()
    x, _ = inputs()

    def replay(records):
        ids = [r.index for r in records]
        found = fresh_of.predict(x[ids], n=100, seed=99, ids=ids)
        return {i: [*p.counts, p.samples - sum(p.counts)] for i, p in zip(ids, found, strict=True)}

    held = verify(made, level=3, replay=replay, subset=50, seed=3)
    assert held.ok, held.failures


def test_forged_counts_fail_against_fresh_noise(made, tmp_path):
    """Numbers that follow from forged counts pass the arithmetic; noise tells them apart."""
    stored = read_run(made)
    forged = {r.index: better(r) for r in stored.run}
    document = concluded(stored, lambda r: forged[r.index])
    assert document["statements"][0]["lower"] > stored.documents[DOCUMENT]["statements"][0]["lower"]
    shutil.copytree(made, tmp_path / "run")
    rewrite(tmp_path / "run", forged, document)
    x, _ = inputs()
    fresh_of = smoothed()

    def replay(records):
        ids = [r.index for r in records]
        found = fresh_of.predict(x[ids], n=100, seed=99, ids=ids)
        return {i: [*p.counts, p.samples - sum(p.counts)] for i, p in zip(ids, found, strict=True)}

    held = verify(tmp_path / "run", level=3, replay=replay, subset=40, seed=1)
    assert [c.name for c in held.failures] == ["replay"], "the arithmetic alone holds"


def test_a_little_more_of_every_input_fails_against_fresh_noise(made):
    from certify.verification.replay import counts_consistent

    stored = read_run(made)
    x, _ = inputs()
    picked = list(stored.run)[::2]
    ids = [r.index for r in picked]
    fresh = {
        i: [*p.counts, 0]
        for i, p in zip(ids, smoothed().predict(x[ids], n=200, seed=5, ids=ids), strict=True)
    }

    def lifted(r: Record) -> Record:
        votes = list(r.counts)
        move = min(3, votes[1 - (r.target or 0)])
        votes[r.target or 0] += move
        votes[1 - (r.target or 0)] -= move
        return replace(r, counts=tuple(votes))

    assert counts_consistent(picked, fresh, inputs=N) is None
    assert "more often" in (counts_consistent([lifted(r) for r in picked], fresh, inputs=N) or "")


def rewrite(path, records, document) -> None:
    """Forge a run's database, hashes and all, and present it again."""
    from certify.store import _text
    from certify.store.database import seal
    from certify.store.manifest import write_evidence

    db = sqlite3.connect(path / "records.sqlite")
    [run] = db.execute("SELECT id FROM run").fetchone()
    with db:
        for index, record in records.items():
            text = _text(record)
            row = (
                run,
                index,
                text,
                record.seconds,
                sha256_text(text),
                seal(run, index, text, record.seconds),
            )
            db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
        body = canonical(document)
        db.execute("UPDATE documents SET body = ?, sha256 = ?", (body, sha256_text(body)))
    db.close()
    write_evidence(path)


def changed(path: str, value):
    """A change of one number of the document: "statements.0.lower"."""

    def change(body):
        *parents, leaf = path.split("/")
        for name in parents:
            body = body[int(name)] if isinstance(body, list) else body[name]
        body[leaf if not isinstance(body, list) else int(leaf)] = value(
            body[leaf if not isinstance(body, list) else int(leaf)]
        )

    return change


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("statements/0/lower", lambda v: v + 0.01, "bounds"),
        ("statements/0/lower", lambda v: v - 0.01, "bounds"),
        ("statements/1/upper", lambda v: v - 0.01, "bounds"),
        ("statements/0/one_pass", lambda v: v + 0.01, "statements"),
        ("statements/0/one_pass", lambda v: None, "statements"),
        ("statements/0/shifted", lambda v: v + 0.01, "statements"),
        ("statements/0/confidence", lambda v: 0.9999, "statements"),
        ("statements/0/pilot", lambda v: 0, "statements"),
        ("statements/0/passes", lambda v: 10, "statements"),
        ("statements/0/statement", lambda v: v.replace("at least", "more than"), "statements"),
        ("rules/lower 0.25/weights/18", lambda v: v + 0.05, "rules"),
        ("rules/lower 0.25/weights/3", lambda v: 0.9, "rules"),
        ("rules/lower 0.25/p_target", lambda v: v - 1e-4, "rules"),
        ("rules/lower 0.25/alpha", lambda v: 0.01, "rules"),
        ("rules/lower 0.25/inputs", lambda v: 400, "rules"),
        ("rules/lower 0.25/anticipated", lambda v: v + 0.01, "pilot"),
        ("rules/lower 0.25/variance", lambda v: v / 2, "pilot"),
        ("rules/one_pass/weights/3", lambda v: v + 0.1, "rules"),
    ],
)  # fmt: skip
def test_a_forged_number_is_named(made, path, value, name):
    assert name in faults(read_run(made), document=changed(path, value))


def test_weights_that_fit_the_counted_inputs_better_than_the_pilot_are_named(made):
    """They are proved like any others, and would prove more than they may: the counts chose them."""
    stored = read_run(made)
    plan = Plan.of_settings(stored.settings)
    _pilot, counted = right_counts(stored.run)
    target = plan.targets(0.25)[0]
    fitted = design(np.concatenate([counted] * 9), COPIES, target, len(counted), plan.share)

    def change(body):
        body["rules"]["lower 0.25"] = fitted.to_json()

    assert "pilot" in faults(stored, document=change)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (lambda r: replace(r, counts=(COPIES, COPIES)), "do not come from"),
        (lambda r: replace(r, samples=COPIES + 1), "do not come from"),
        (lambda r: replace(r, target=None), "true class"),
        (lambda r: replace(r, target=7), "true class"),
        (lambda r: replace(r, details={}), "by a hash"),
        (lambda r: replace(r, details={"input": "same"}), "repeat others"),
        (lambda r: replace(r, status=Status.ABSTAINED), "abstained"),
        (lambda r: replace(r, label=1), "of its own"),
        (lambda r: None if r.index == 17 else r, "no counts"),
        (lambda r: replace(r, status=Status.FAILED) if r.index == 17 else r, "no counts"),
        (lambda r: replace(r, index=r.index + N) if r.index == 17 else r, "not among those"),
    ],
)  # fmt: skip
def test_forged_records_are_named(made, record, said):
    assert said in faults(read_run(made), record=record)["inputs"]


def test_wrong_inputs_cannot_be_left_out_by_another_size_of_the_split(made):
    """Fewer inputs than the plan says, with a plan that says fewer: the seed draws others then."""
    stored = read_run(made)

    def fewer(said):
        said["mode_options"] |= {"inputs": 300, "pilot": 40}

    best = sorted(stored.run, key=lambda r: -r.counts[r.target or 0])[:300]
    keep = {r.index for r in best}
    found = faults(stored, settings=fewer, record=lambda r: r if r.index in keep else None)
    assert "inputs" in found


def test_a_run_that_lost_its_statements_says_so(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    db = sqlite3.connect(tmp_path / "run" / "records.sqlite")
    with db:
        db.execute("DELETE FROM documents")
    db.close()
    assert "inputs" in {c.name for c in verify(tmp_path / "run").failures}
    with pytest.raises(InvalidSetting, match="states nothing"):
        reports.build(tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [{"of": 10**12}, {"n": 10**9}, {"inputs": 0}, {"radii": []}, {"radii": [1.0] * 100}, {"about": 3}],
)  # fmt: skip
def test_settings_that_no_run_has_are_refused_when_read(made, tmp_path, change):
    shutil.copytree(made, tmp_path / "run")
    db = sqlite3.connect(tmp_path / "run" / "records.sqlite")
    _run, text, guarantee = db.execute("SELECT id, binding, guarantee FROM run").fetchone()
    body = json.loads(text)
    body["mode_options"] |= change
    text = canonical(body)
    from certify.store.database import run_hash

    with db:
        db.execute("UPDATE run SET binding = ?, sha256 = ?", (text, run_hash(text, guarantee)))
    db.close()
    with pytest.raises(CorruptRun, match="mode_options"):
        read_run(tmp_path / "run")


def test_the_report_says_what_is_stated_and_what_is_not(made, tmp_path):
    files = reports.build(made, out=tmp_path)
    page, card, table = (f.read_text() for f in (files.html, files.card, files.table))
    first = stated(read_run(made).documents[DOCUMENT]).statements[0]
    for text in (page, card):
        assert "No input is certified by itself." in text
        assert "chosen, filtered or made up" in text
        assert first.statement.split(",")[0] in text
    assert table.count("\\\\") >= 3
    assert {p.name for p in files.plots} == {"population.svg", "counts.svg"}
    assert reports.build(made, out=tmp_path).html.read_text() == page
