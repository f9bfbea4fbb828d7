"""A run is bound to the inputs and labels that it was started on, row by row and as a whole."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest
import torch

from certify import Smoothed, SmoothedSegmentation
from certify.canonical import canonical, sha256_text
from certify.errors import EvidenceFails, RunConflict
from certify.inputs import Rows, inputs_digest, interval_notes, label_name, labels_digest
from certify.records import Record, Status
from certify.store import open_run, read_run, records_digest
from certify.store.manifest import read_manifest, write_evidence
from certify.store.merge import merge
from certify.verification import verify
from tests.certify.sample_run import GUARANTEE, fill, record, settings

X = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1))
Y = (X.flatten(1).sum(1) > 2).long()


def smoothed():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0, -1, -1, -1], [1, 1, 1, 1]]))
        model[1].bias.copy_(torch.tensor([4.0, -4.0]))
    return Smoothed(model, sigma=0.25, num_classes=2, noise="gaussian", bounds=None, batch_size=32)


def certify(place, x=X, y=Y, **more):
    return smoothed().certify(x, y, mode="fixed", n0=10, n=100, store=place, **more)


def content(place):
    stored = read_run(place)
    return stored.sessions, stored.settings, stored.run.records, (place / "manifest.json").read_bytes()


def flip_one(y):
    y = y.clone()
    y[1] = 1 - y[1]
    return y


OTHER = {
    "all labels": (X, 1 - Y),
    "one label": (X, flip_one(Y)),
    "labels in another order": (X, Y.roll(1)),
    "no labels": (X, None),
    "one value by one unit in the last place": (torch.nextafter(X, torch.ones(1)), Y),
    "inputs in another order": (X.roll(1, 0), Y),
    "another shape of the same numbers": (X.reshape(6, 2, 2, 1), Y),
}


@pytest.mark.parametrize("case", OTHER)
@pytest.mark.parametrize("rows", [3, 6])
def test_a_resumed_run_refuses_other_data_and_stays_as_it_was(tmp_path, case, rows):
    certify(tmp_path, X[:rows], Y[:rows])
    before = content(tmp_path)
    x, y = OTHER[case]
    with pytest.raises((EvidenceFails, RunConflict)):
        certify(tmp_path, x, y)
    assert content(tmp_path) == before, "not even the session is written down"
    assert len(certify(tmp_path)) == 6


def test_a_store_that_was_opened_before_refuses_other_labels_too(tmp_path):
    certify(tmp_path)
    stored = read_run(tmp_path)
    with (
        open_run(tmp_path, stored.settings, stored.guarantee) as store,
        pytest.raises(EvidenceFails, match=r"label of input 0.*\n.*recorded: 1, given: 0"),
    ):
        certify(store, y=1 - Y)


def test_a_run_without_labels_stays_without_them(tmp_path):
    certify(tmp_path, X[:2], None)
    with pytest.raises(EvidenceFails, match=r"recorded: none, given: 1"):
        certify(tmp_path)
    assert len(certify(tmp_path, X, None)) == 6


def test_rows_that_no_record_is_about_may_be_mended_until_the_run_has_seen_the_whole(tmp_path):
    certify(tmp_path, X[:3], Y[:3])
    mended = Y.clone()
    mended[4] = 1 - mended[4]
    assert [r.target for r in certify(tmp_path, y=mended)] == mended.tolist()
    with pytest.raises(EvidenceFails, match="label of input 4"):
        certify(tmp_path)


def test_the_whole_set_is_compared_where_its_ids_are_the_same(tmp_path):
    """A shard of other data is refused although the rows of its own part are the same."""
    whole = Rows.of(range(6), X, Y)
    part = slice(0, None, 2)
    shard = {"environment": {"shard": "1/2"}, "data": {"name": "d", "split": "test", **whole.named()}}
    certify(tmp_path, X[part], Y[part], ids=range(0, 6, 2), settings=shard)
    other = Rows.of(range(6), X, flip_one(Y))  # input 1 belongs to the other shard
    changed = shard | {"data": {"name": "d", "split": "test", **other.named()}}
    with pytest.raises(EvidenceFails, match="started on other data"):
        certify(tmp_path, X[part], Y[part], ids=range(0, 6, 2), settings=changed)
    assert len(certify(tmp_path, X[part], Y[part], ids=range(0, 6, 2), settings=shard)) == 3


def shards(tmp_path, second=(X, Y), names=True, divided=True):
    """Two halves of one data set, the second one of ``second``: every other row, or one after the other."""
    for number, (x, y) in enumerate([(X, Y), second]):
        part = slice(number, None, 2) if divided else slice(3 * number, 3 * number + 3)
        rows = Rows.of(range(6), x, y) if divided else Rows.of(range(6)[part], x[part], y[part])
        data = {"name": "d", "split": "test"} if names else {}
        said = {"data": data | rows.named()}
        if divided:
            said["environment"] = {"shard": f"{number + 1}/2"}
        certify(tmp_path / f"s{number}", x[part], y[part], ids=range(6)[part], settings=said)
    return [tmp_path / "s0", tmp_path / "s1"]


@pytest.mark.parametrize("second", [(X, 1 - Y), (1 - X, Y), (X, flip_one(Y))])
def test_shards_of_other_data_are_not_merged(tmp_path, second):
    with pytest.raises(EvidenceFails, match="certified different data"):
        merge(shards(tmp_path, second), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_one_data_set_are_the_run_itself(tmp_path):
    whole = certify(tmp_path / "whole", settings={"data": {"name": "d", "split": "test"}})
    merged = merge(shards(tmp_path), tmp_path / "out")
    assert records_digest(merged) == records_digest(whole)
    assert {k: merged.settings["data"][k] for k in ("ids", "inputs", "labels", "count")} == Rows.of(
        range(6), X, Y
    ).named()
    assert verify(tmp_path / "out", level=1).ok


def test_parts_that_share_no_session_are_compared_with_the_data_or_refused(tmp_path):
    parts = shards(tmp_path, divided=False)
    with pytest.raises(RunConflict, match="nothing shows"):
        merge(parts, tmp_path / "out")

    def opened(y):
        return lambda ids: Rows.of(ids, X[list(ids)], y[list(ids)])

    with pytest.raises(EvidenceFails, match="label of input 1"):
        merge(parts, tmp_path / "out", rows=opened(flip_one(Y)))
    assert not (tmp_path / "out").exists()
    merged = merge(parts, tmp_path / "out", rows=opened(Y))
    assert (
        merged.settings["data"]["inputs"]
        == inputs_digest(merged)
        == Rows.of(range(6), X, Y).named()["inputs"]
    )


def test_a_shard_that_does_not_name_its_data_is_not_believed_beside_one_that_does(tmp_path):
    first, second = shards(tmp_path, (X, 1 - Y))
    db = sqlite3.connect(second / "records.sqlite")
    for number, body in db.execute("SELECT number, body FROM sessions").fetchall():
        said = json.loads(body)
        said["data"] = {
            k: v for k, v in said["data"].items() if k not in ("ids", "inputs", "labels", "count")
        }
        text = canonical(said)
        db.execute(
            "UPDATE sessions SET body = ?, sha256 = ? WHERE number = ?", (text, sha256_text(text), number)
        )
    db.commit()
    db.close()
    write_evidence(second)
    for parts in ([first, second], [second, first]):
        with pytest.raises(RunConflict, match="nothing shows"):
            merge(parts, tmp_path / "out")
        with pytest.raises(EvidenceFails, match="label of input 1"):
            merge(parts, tmp_path / "out", rows=lambda ids: Rows.of(ids, X[list(ids)], Y[list(ids)]))


def test_parts_of_arrays_without_a_name_are_merged_as_they_are(tmp_path):
    assert len(merge(shards(tmp_path, names=False, divided=False), tmp_path / "out")) == 6


def test_runs_of_before_data_sets_were_named_resume_and_merge(tmp_path):
    fill(tmp_path / "a", [0, 1])
    fill(tmp_path / "b", [2])
    assert len(merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")) == 3
    assert "labels" not in {s["name"] for s in read_manifest(tmp_path / "out")["subject"]}
    assert len(fill(tmp_path / "a", [0, 1, 2])) == 64


def test_the_manifest_names_inputs_and_labels(tmp_path):
    run = certify(tmp_path)
    subjects = {s["name"]: s["digest"]["sha256"] for s in read_manifest(tmp_path)["subject"]}
    said = Rows.of(range(6), X, Y).named()
    assert subjects["data"] == said["inputs"] == inputs_digest(run)
    assert subjects["labels"] == said["labels"] == labels_digest(run)
    certify(tmp_path / "unlabelled", y=None)
    assert "labels" not in {s["name"] for s in read_manifest(tmp_path / "unlabelled")["subject"]}


def rewrite(place, change):
    """Change every record and make all hashes agree again."""
    from certify.store.database import seal

    db = sqlite3.connect(place / "records.sqlite")
    for run, i, text, seconds in db.execute("SELECT run, idx, record, seconds FROM records").fetchall():
        body = json.loads(text)
        change(body)
        text = canonical(body)
        values = (text, sha256_text(text), seal(run, i, text, seconds), i)
        db.execute("UPDATE records SET record = ?, sha256 = ?, seal = ? WHERE idx = ?", values)
    db.commit()
    db.close()
    write_evidence(place)


def replayed(records):
    return {r.index: [*r.counts, 0] for r in records}


def test_level_3_compares_every_label_with_the_data(tmp_path):
    def rows(ids):
        return Rows.of(ids, X[list(ids)], 1 - Y[list(ids)])

    certify(tmp_path, y=1 - Y)
    assert verify(tmp_path, level=3, replay=replayed, rows=rows).ok
    rewrite(tmp_path, lambda body: body.update(target=body["label"] or 0))
    assert verify(tmp_path, level=2).ok, "nothing but the data can tell"
    found = verify(tmp_path, level=3, replay=replayed, rows=rows)
    assert found.failures[0].name == "data"
    assert "label of input" in found.failures[0].detail


def test_level_3_compares_the_labels_of_abstentions_too(tmp_path):
    certify(tmp_path)
    rewrite(tmp_path, lambda body: body.update(status="abstained", label=None, radius=0.0, p_lower=0.0))
    wrong = verify(tmp_path, level=3, replay=replayed, rows=lambda ids: Rows.of(ids, X, 1 - Y))
    assert any("label of input 0" in c.detail for c in wrong.failures)


class Segmenter(torch.nn.Module):
    def forward(self, x):
        return torch.cat([0.5 - x, x - 0.5], 1) * 20


def segmented(place, x, y):
    g = SmoothedSegmentation(Segmenter().eval(), sigma=0.1, num_classes=2, grid=1 / 255, bounds=(0.0, 1.0))
    return g.certify(x, y, n0=5, n=30, alpha=0.05, store=place)


def test_label_maps_are_bound_too(tmp_path):
    x = torch.round(torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2)) * 255) / 255
    y = (x[:, 0] > 0.5).long()
    segmented(tmp_path, x[:1], y[:1])
    other = y.clone()
    other[0, 2, 2] = 1 - other[0, 2, 2]
    for wrong in (other, None, y * 0 - 100):
        with pytest.raises(EvidenceFails, match="label of input 0"):
            segmented(tmp_path, x, wrong)
    run = segmented(tmp_path, x, y)
    assert run[0].record.details["labels"] == label_name(y[0]) == label_name(y[0].numpy().astype(np.int32))

    def sampled(records):
        return {
            r.index: (np.stack([30 - run[r.index].maps.votes, run[r.index].maps.votes]), 30) for r in records
        }

    result = verify(tmp_path, level=3, replay=sampled, rows=lambda ids: Rows.of(ids, x, other))
    assert any("label of input 0" in c.detail for c in result.failures)
    rewrite(tmp_path, lambda body: body["details"].pop("labels"))
    old = verify(tmp_path, level=3, replay=sampled, rows=lambda ids: Rows.of(ids, x, other))
    assert any("label map of image 0" in c.detail for c in old.failures), (
        "maps of old runs are compared as well"
    )


def test_a_run_knows_that_inputs_were_added_after_results(tmp_path):
    first = certify(tmp_path, X[:4], Y[:4])
    assert "extended" not in first.settings["data"]
    assert certify(tmp_path, X[:4], Y[:4]).settings == first.settings
    assert interval_notes(first.records, first.settings) == []
    grown = certify(tmp_path)
    assert grown.settings["data"]["extended"] == [4]
    (note,) = interval_notes(grown.records, grown.settings)
    assert "4 results were there" in note
    again = certify(tmp_path, X[:4], Y[:4])
    assert again.settings["data"]["extended"] == [4], "fewer inputs add none"
    stored = read_run(tmp_path)
    with open_run(tmp_path, stored.settings, stored.guarantee) as store:  # as an attack opens it
        assert store.settings == stored.settings
    assert verify(tmp_path, level=1).ok


def test_a_killed_run_that_goes_on_was_not_extended(tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        certify(tmp_path, on_record=stop)
    assert len(read_run(tmp_path).run) == 1
    assert "extended" not in certify(tmp_path).settings["data"]


def test_repeated_inputs_are_named_beside_the_interval():
    rows = [Record(i, Status.ABSTAINED, target=0, details={"input": "ab"[i > 0]}) for i in range(4)]
    (note,) = interval_notes(rows, {})
    assert note.startswith("2 of 4 inputs repeat another")
    assert interval_notes(rows[:2], {"data": {"extended": ["<b>", None]}}) == []
    assert interval_notes([record(0), record(1)], settings()) == []
    assert GUARANTEE
