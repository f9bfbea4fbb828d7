"""Segmentation runs on disk: resumed, merged, exported, verified; forged ones are named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import certify
from certify.dense.maps import DIGEST, PixelMaps, arrays_name
from certify.dense.procedure import PixelTests
from certify.errors import CorruptRun, InvalidInput, InvalidSetting, RunConflict
from certify.geometry import GaussianBall
from certify.records import Status
from certify.store import open_run, read_run, records_digest
from certify.store.exports import export
from certify.store.merge import merge
from certify.verification import verify
from tests.certify.pixel_half_spaces import PixelHalfSpaces

DISTANCES = [[0.05, 0.5, 1.5], [-2.0, -0.9, 3.0]]
N0, N = 20, 400


def smoothed(**options):
    model = PixelHalfSpaces(DISTANCES)
    defaults = {"num_classes": 2, "noise": "gaussian", "bounds": None, "batch_size": 50}
    return certify.SmoothedSegmentation(model, 1.0, **(defaults | options))


def certified(path, *, ids=(0, 1, 2, 3), smoothed_by=None, **options):
    x = torch.arange(4.0)[list(ids)].reshape(-1, 1, 1, 1).expand(-1, 1, 2, 3) / 100
    y = torch.zeros(len(ids), 2, 3, dtype=torch.int64)
    g = smoothed_by or smoothed()
    return g.certify(x, y, ids=list(ids), n0=N0, n=N, seed=8, store=path, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("dense")
    certified(place / "bonferroni")
    certified(place / "holm", radius=0.4)
    certified(place / "step-down", radius=0.4, tolerate=0.34)
    certified(place / "most bounds", tolerate=0.34)
    return place


def whole(runs):
    """The digest of the uninterrupted run."""
    return records_digest(read_run(runs / "bonferroni").run)


def failed(path, **options):
    return {c.name: c.detail for c in verify(path, **options).failures}


KINDS = ["bonferroni", "holm", "step-down", "most bounds"]


@pytest.mark.parametrize("name", KINDS)
def test_an_honest_run_is_verified_and_read_again(runs, name):
    assert failed(runs / name) == {}
    run = certify.SegmentationRun.open(runs / name)
    assert len(run) == 4
    assert 0 < run.score().abstained < 1
    assert all(image.record.details[DIGEST] == image.maps.digest() for image in run)
    assert all(image.record.radius == image.maps.radius[image.maps.certified].min() for image in run)


def test_a_run_goes_on_where_it_was_interrupted(runs, tmp_path):
    class Stop(Exception):
        pass

    seen = []

    def stop(record):
        seen.append(record.index)
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        certified(tmp_path / "run", on_record=stop)
    again = []
    certified(tmp_path / "run", on_record=lambda r: again.append(r.index))
    assert (seen, again) == ([0, 1], [2, 3])
    assert records_digest(read_run(tmp_path / "run").run) == whole(runs)
    assert failed(tmp_path / "run") == {}


def test_a_kill_between_an_images_maps_and_its_record_does_no_harm(runs, tmp_path, monkeypatch):
    from certify.store import RunStore

    class Killed(BaseException):
        pass

    def die(self, record):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "add", die)
        with pytest.raises(Killed):
            certified(tmp_path / "run")
    assert (tmp_path / "run" / "pixels-0.npz").exists()
    certified(tmp_path / "run")
    assert records_digest(read_run(tmp_path / "run").run) == whole(runs)
    assert failed(tmp_path / "run") == {}


def test_maps_that_are_gone_are_made_again_and_others_in_their_place_refused(runs, tmp_path):
    place = tmp_path / "run"
    certified(place)
    before = (place / "pixels-1.npz").read_bytes()
    (place / "pixels-1.npz").unlink()
    again = []
    certified(place, on_record=lambda r: again.append(r.index))
    assert again == [1]
    assert failed(place) == {}
    assert records_digest(read_run(place).run) == whole(runs)
    (place / "pixels-1.npz").write_bytes((place / "pixels-0.npz").read_bytes())
    with pytest.raises(CorruptRun, match="damaged"):
        certified(place)
    (place / "pixels-1.npz").write_bytes(before)
    assert len(certified(place)) == 4


def test_another_plan_or_model_does_not_go_on_with_a_run(runs):
    with pytest.raises(RunConflict, match="radius"):
        certified(runs / "bonferroni", radius=0.4)
    other = certify.SmoothedSegmentation(
        PixelHalfSpaces(DISTANCES, seed=1), 1.0, num_classes=2, noise="gaussian", bounds=None
    )
    with pytest.raises(RunConflict, match="labels"):
        certified(runs / "bonferroni", smoothed_by=other)


def test_merged_shards_are_the_whole_run(runs, tmp_path):
    for i, ids in enumerate([(0, 2), (1, 3)]):
        certified(tmp_path / f"s{i}", ids=ids)
    merge([tmp_path / "s0", tmp_path / "s1"], tmp_path / "whole")
    assert records_digest(read_run(tmp_path / "whole").run) == records_digest(
        read_run(runs / "bonferroni").run
    )
    assert failed(tmp_path / "whole") == {}
    assert certify.SegmentationRun.open(tmp_path / "whole").score() == (
        certify.SegmentationRun.open(runs / "bonferroni").score()
    )


def test_exports_name_pixels(runs):
    run = read_run(runs / "holm").run
    rows = export(run, "csv").splitlines()
    assert rows[0] == "index,status,pixels,certified,labelled,correct,radius,samples,seconds"
    assert rows[1].startswith("0,certified,6,")
    assert len(json.loads(export(run, "json"))["records"]) == 4
    with pytest.raises(InvalidInput, match="segmentation"):
        export(run, "locuslab")


def test_a_run_of_classifiers_is_no_segmentation(tmp_path):
    from tests.certify.simulated_run import write

    write(tmp_path, "fixed")
    with pytest.raises(InvalidSetting, match="no segmentation run"):
        certify.SegmentationRun.open(tmp_path)


# -- forgeries: every hash is right, the numbers are not ------------------------------------


def forge(source, place, *, maps=None, record=None, settings=None):
    """A run directory with honest hashes and summaries over dishonest maps, records or settings."""
    stored = read_run(source)
    said = json.loads(json.dumps(stored.settings))
    if settings:
        settings(said)
    with open_run(place, said, stored.guarantee) as store:
        for r in stored.run:
            m = PixelMaps.of(stored.arrays(arrays_name(r.index)))
            if maps:
                m = maps(m)
                some = m.certified.any()
                counts = {"certified": int(m.certified.sum()), "correct": int(m.correct.sum())}
                r = replace(
                    r,
                    status=Status.CERTIFIED if some else Status.ABSTAINED,
                    radius=float(np.nan_to_num(m.radius[m.certified]).min()) if some else 0.0,
                    details={**r.details, DIGEST: m.digest(), **counts},
                )
            if record:
                r = record(r)
            store.put_arrays(arrays_name(r.index), m.arrays())
            store.add(r)
    return place


def test_a_faithful_copy_is_verified(runs, tmp_path):
    assert failed(forge(runs / "holm", tmp_path / "copy", maps=lambda m: m)) == {}


def with_more_certified(m):
    return replace(m, certified=np.ones_like(m.certified), radius=np.maximum(m.radius, 0.4))


def with_larger_radii(m):
    return replace(m, radius=np.where(m.certified, m.radius + 0.01, 0.0))


def with_fewer_votes(m):
    return replace(m, votes=np.where(m.votes > 300, m.votes - 90, m.votes).astype(np.uint32))


def with_too_many_votes(m):
    return replace(m, votes=(m.votes + N).astype(np.uint32))


@pytest.mark.parametrize("name", ["bonferroni", "holm"])
@pytest.mark.parametrize(
    ("change", "check"),
    [
        (with_more_certified, "pixels"),
        (with_larger_radii, "pixels"),
        (with_fewer_votes, "pixels"),
        (with_too_many_votes, "maps"),
        (lambda m: replace(m, selected=(m.selected + 7).astype(np.uint16)), "maps"),
        (lambda m: replace(m, radius=np.where(m.radius == m.radius.max(), np.nan, m.radius)), "maps"),
    ],
)
def test_maps_that_do_not_follow_from_the_votes_are_named(runs, tmp_path, name, change, check):
    assert check in failed(forge(runs / name, tmp_path / "forged", maps=change))


@pytest.mark.parametrize("name", KINDS)
def test_the_verifier_corrects_for_many_pixels_as_the_certifier_does(runs, tmp_path, name):
    """Votes that prove a pixel alone but not one of six; and votes at every step of Holm's ladder."""
    plan = {k: v for k, v in read_run(runs / name).settings["mode_options"].items() if k != "name"}
    plan, geometry = PixelTests(**plan), GaussianBall(1.0, 2.0, 6)
    alone = replace(plan, alpha=min(0.49, 6 * plan.alpha))
    edge = next(k for k in range(N) if alone.judge(np.full((2, 3), k))[0].all())
    ladder = edge + np.arange(6).reshape(2, 3)

    def judged(votes, by):
        def change(m):
            certified, lower = by.judge(votes)
            radius = np.vectorize(lambda p: geometry.radius(float(p)))(lower)
            radius = np.where(certified, radius if plan.radius is None else plan.radius, 0.0)
            return replace(m, votes=votes.astype(np.uint32), certified=certified, radius=radius)

        return change

    def bound(r):
        # Level 2 asks no more of p_lower than that it is proved.
        return replace(r, p_lower=0.0, pb_upper=1.0)

    for i, votes in enumerate((np.full((2, 3), edge), ladder)):
        right, wrong = (judged(votes, by) for by in (plan, alone))
        assert failed(forge(runs / name, tmp_path / f"right{i}", maps=right, record=bound)) == {}
        assert "pixels" in failed(forge(runs / name, tmp_path / f"wrong{i}", maps=wrong, record=bound))

    def noisier(said):
        said["mode_options"]["tv"] = 0.02

    for i, by in enumerate((plan, replace(plan, tv=0.02))):
        place = forge(
            runs / name, tmp_path / f"tv{i}", maps=judged(ladder + 3, by), record=bound, settings=noisier
        )
        assert ("pixels" in failed(place)) == (i == 0), "the noise's own error is part of the test"


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, radius=r.radius + 0.1),
        lambda r: replace(r, p_lower=0.999999, pb_upper=1e-6),
        lambda r: replace(r, samples=10),
        lambda r: replace(r, label=1),
        lambda r: replace(r, details={**r.details, "correct": 6}),
        lambda r: replace(r, details={**r.details, "pixels": 60}),
        lambda r: replace(r, status=Status.ABSTAINED),
        lambda r: replace(r, status=Status.FAILED),
    ],
)
def test_summaries_that_do_not_follow_from_the_maps_are_named(runs, tmp_path, change):
    assert "summaries" in failed(forge(runs / "bonferroni", tmp_path / "forged", record=change))


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("holm", lambda s: s["mode_options"].update(threshold=0.55), "terms"),
        ("holm", lambda s: s["mode_options"].update(radius=0.9), "terms"),
        ("holm", lambda s: s["mode_options"].update(correction="none"), "terms"),
        ("holm", lambda s: s["mode_options"].update(correction="bonferroni"), "pixels"),
        ("holm", lambda s: s.update(mode="radius"), "terms"),
        ("holm", lambda s: s["mode_options"].update(n=200), "maps"),
        ("bonferroni", lambda s: s["mode_options"].update(n=N + 400), "pixels"),
        ("bonferroni", lambda s: s["mode_options"].update(tv=-0.1), "settings"),
        ("bonferroni", lambda s: s["mode_options"].update(alpha=0.01), "settings"),
        ("bonferroni", lambda s: s.pop("task"), "outcomes"),
        ("bonferroni", lambda s: s.update(sigma=2.0), "settings"),
        ("holm", lambda s: s["mode_options"].update(tolerate=0.34), "terms"),
        ("bonferroni", lambda s: s["mode_options"].update(tolerate=0.34), "terms"),
        ("step-down", lambda s: s["mode_options"].pop("tolerate"), "terms"),
        ("step-down", lambda s: s["mode_options"].update(tolerate=0.17), "terms"),
        ("most bounds", lambda s: s["mode_options"].update(tolerate=0.5), "terms"),
    ],
)
def test_settings_that_do_not_fit_are_named(runs, tmp_path, name, change, check):
    assert check in failed(forge(runs / name, tmp_path / "forged", settings=change))


def test_a_scalar_run_that_calls_itself_a_segmentation_is_named(tmp_path):
    from tests.certify.simulated_run import write

    with pytest.raises(CorruptRun, match="pixels is missing"):  # what was written is read again at the end
        write(tmp_path, "fixed", task="segmentation", input_shape=[1, 1, 2])
    assert "pixels is missing" in failed(tmp_path)["records"]


def test_a_file_that_is_edited_or_gone_is_named(runs, tmp_path):
    place = forge(runs / "holm", tmp_path / "copy")
    file = place / "pixels-2.npz"
    body = bytearray(file.read_bytes())
    body[-30] ^= 1
    file.write_bytes(bytes(body))
    found = failed(place)
    assert "arrays" in found
    assert "image 2" in found["maps"]
    with pytest.raises(CorruptRun):
        certify.SegmentationRun.open(place)[2]
    file.unlink()
    assert "image 2" in failed(place)["maps"]


# -- level 3 --------------------------------------------------------------------------------


def replay_with(g, seed=99):
    def replay(records):
        x = torch.stack([torch.full((1, 2, 3), r.index / 100) for r in records])
        votes = g.votes(x, n=300, seed=seed, ids=[r.index for r in records])
        return {r.index: (v, 300) for r, v in zip(records, votes, strict=True)}

    return replay


@pytest.mark.parametrize("name", ["bonferroni", "holm"])
def test_fresh_votes_agree_with_an_honest_run_and_not_with_another_model(runs, name):
    """An honest run fails with probability 1e-4."""
    assert failed(runs / name, level=3, replay=replay_with(smoothed()), seed=1) == {}
    other = certify.SmoothedSegmentation(
        PixelHalfSpaces(-np.array(DISTANCES)), 1.0, num_classes=2, noise="gaussian", bounds=None
    )
    found = failed(runs / name, level=3, replay=replay_with(other), seed=1)
    assert "pixel (" in found["replay"]


def test_an_honest_run_is_hardly_ever_called_faulty(runs):
    """Each of 10 replays fails with probability at most 1e-4."""
    for seed in range(10):
        replay = replay_with(smoothed(), seed)
        assert failed(runs / "bonferroni", level=3, replay=replay, seed=seed) == {}
