"""Merged shards are the unsharded run, or nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from certify.errors import InvalidInput, RunConflict
from certify.store import open_run, read_run, records_digest
from certify.store.merge import merge
from certify.verification.witness import PLAN
from tests.certify.sample_run import GUARANTEE, fill, record, settings


def test_merged_shards_are_the_run_itself(tmp_path):
    whole = fill(tmp_path / "whole", range(9))
    for i in range(3):
        fill(tmp_path / f"s{i}", range(i, 9, 3), environment={"shard": f"{i + 1}/3", "batch_size": i + 1})
    shards = [tmp_path / f"s{i}" for i in random.Random(1).sample(range(3), 3)]
    run = merge(shards, tmp_path / "out")
    assert records_digest(run) == whole == records_digest(read_run(tmp_path / "out").run)
    assert records_digest(merge(shards, tmp_path / "out")) == whole
    with pytest.raises(RunConflict, match="only 2 of 3 shards"):
        merge(shards[:2], tmp_path / "less")
    assert not (tmp_path / "less").exists()


def test_a_whole_run_beside_one_of_its_shards_lacks_nothing(tmp_path):
    whole = fill(tmp_path / "whole", range(6))
    fill(tmp_path / "s0", range(0, 6, 2), environment={"shard": "1/2"})
    assert records_digest(merge([tmp_path / "whole", tmp_path / "s0"], tmp_path / "out")) == whole
    fill(tmp_path / "part", range(1, 6))
    for other in ("part", "s0"):
        with pytest.raises(RunConflict, match="only 1 of 2 shards"):
            merge([tmp_path / "s0", tmp_path / other], tmp_path / "less")


def test_merge_refuses_what_does_not_belong_together(tmp_path):
    fill(tmp_path / "a", [0, 1])
    fill(tmp_path / "b", [2], alpha=0.01)
    with pytest.raises(RunConflict, match="other settings") as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert "alpha" in caught.value.why
    with open_run(tmp_path / "c", settings(), GUARANTEE) as store:
        store.add(replace(record(1), radius=0.0123))
    with pytest.raises(RunConflict, match="input 1 has different results"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "out")
    store = open_run(tmp_path / "d", settings(), GUARANTEE)
    store.add(record(5))
    store.close()
    with pytest.raises(RunConflict, match="did not finish"):
        merge([tmp_path / "a", tmp_path / "d"], tmp_path / "out")
    with pytest.raises(InvalidInput, match="nothing to merge"):
        merge([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merge_keeps_the_boundaries_and_refuses_two_kinds(tmp_path):
    for name, looks in (("a", [8]), ("b", [8]), ("c", [9])):
        with open_run(tmp_path / name, settings(), GUARANTEE) as store:
            store.put_document(PLAN, {"looks": looks})
            store.add(record(ord(name)))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert read_run(tmp_path / "out").documents == {PLAN: {"looks": [8]}}
    with pytest.raises(RunConflict, match="other boundaries"):
        merge([tmp_path / "a", tmp_path / "c"], tmp_path / "two")


@pytest.mark.parametrize("part", ["1/²", "²/2", "3/2", "1", "0/2", "-1/2", "x/y", "1/2/2", 12])
def test_a_part_that_is_no_shard_is_refused_by_name(tmp_path, part):
    fill(tmp_path / "a", [0, 1], environment={"shard": part})
    with pytest.raises(RunConflict, match="says that it is shard"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
