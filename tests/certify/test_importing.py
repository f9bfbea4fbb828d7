"""Importing published logs: what is read, what is refused, and that nothing passes as verified."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import special

from certify.bounds import binomial_lower
from certify.errors import InvalidInput, InvalidSetting, RunConflict, UnreadableFile
from certify.radii import radius_down
from certify.records import Status
from certify.store import records_digest
from certify.store.exports import to_locuslab
from certify.store.importing import import_locuslab
from certify.verification import verify

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
LINES = (
    "0\t3\t3\t0.512\t1\t0:00:14.250000\n20\t8\t5\t0.101\t0\t0:00:13\n40\t1\t-1\t0.0\t0\t1 day, 1:01:01.5\n"
)
SETTINGS = {"sigma": 0.25, "alpha": 0.001, "n": 100_000}


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "published.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_log_becomes_a_run(tmp_path):
    stored = import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "run")
    run = stored.run
    assert [r.index for r in run] == [0, 20, 40]
    assert [r.status for r in run] == [Status.CERTIFIED, Status.CERTIFIED, Status.ABSTAINED]
    assert [r.correct for r in run] == [True, False, False]
    assert [r.radius for r in run] == [0.512, 0.101, 0.0]
    assert [r.seconds for r in run] == [14.25, 13.0, 90061.5]
    assert run[0].p_lower == special.ndtr(0.512 / 0.25)
    assert all(r.counts == () for r in run)
    assert run.accuracy([0.0, 0.5, 0.6])[1].value == pytest.approx(1 / 3)
    assert stored.settings["imported"]["file"] == "published.tsv"
    assert "not verified" in stored.guarantee


def test_export_and_import_return_the_same_log(tmp_path):
    first = import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "a")
    again = tmp_path / "again.tsv"
    again.write_text(to_locuslab(first.run), encoding="utf-8")
    second = import_locuslab(again, **SETTINGS, out=tmp_path / "b")
    assert records_digest(first.run) == records_digest(second.run)


def test_imported_run_never_passes_verification(tmp_path):
    import_locuslab(log(tmp_path, HEAD + LINES), **SETTINGS, out=tmp_path / "run")
    found = verify(tmp_path / "run", level=2)
    assert not found.ok
    assert any("imported" in check.detail for check in found.failures)


def test_importing_again_changes_nothing_and_another_log_is_refused(tmp_path):
    path = log(tmp_path, HEAD + LINES)
    first = import_locuslab(path, **SETTINGS, out=tmp_path / "run")
    second = import_locuslab(path, **SETTINGS, out=tmp_path / "run")
    assert records_digest(first.run) == records_digest(second.run)
    path.write_text(HEAD + LINES.replace("0.512", "0.513"), encoding="utf-8")
    with pytest.raises(RunConflict):
        import_locuslab(path, **SETTINGS, out=tmp_path / "run")


def test_largest_possible_radius_is_accepted_and_a_larger_one_refused(tmp_path):
    best = radius_down(binomial_lower(100_000, 100_000, 0.001), 0.25)
    line = "0\t3\t3\t{}\t1\t0:00:01\n"
    import_locuslab(log(tmp_path, HEAD + line.format(f"{best:.3}")), **SETTINGS, out=tmp_path / "ok")
    with pytest.raises(InvalidInput, match="claims radius"):
        import_locuslab(log(tmp_path, HEAD + line.format(best * 1.02)), **SETTINGS, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(InvalidInput, match="claims radius"):
        import_locuslab(log(tmp_path, HEAD + LINES), sigma=0.12, alpha=0.001, n=100, out=tmp_path / "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0\t3\t3\t0.5\t0\t0:00:01\n", "correct = 0"),
        (HEAD + "0\t3\t-1\t0.5\t1\t0:00:01\n", "correct = 1"),
        (HEAD + "0\t3\t3\tnan\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\t3\t-0.1\t1\t0:00:01\n", "not a radius"),
        (HEAD + "0\t3\tcat\t0.1\t1\t0:00:01\n", "cat"),
        (HEAD + "0\t3\t3\t0.1\t1\n", "5 columns"),
        (HEAD + "0\t3\t3\t0.1\t1\tsoon\n", "not a time"),
        (HEAD + "-1\t3\t3\t0.1\t1\t0:00:01\n", "start at 0"),
        (HEAD + LINES + LINES, "already on line 2"),
        (HEAD, "only its heading"),
    ],
)
def test_lines_that_contradict_themselves_are_refused(tmp_path, text, message):
    with pytest.raises(InvalidInput) as caught:
        import_locuslab(log(tmp_path, text), **SETTINGS, out=tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "index,label\n0,1\n"])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(UnreadableFile):
        import_locuslab(log(tmp_path, text), **SETTINGS, out=tmp_path / "run")


def test_missing_or_binary_files_are_refused(tmp_path):
    with pytest.raises(UnreadableFile):
        import_locuslab(tmp_path / "nothing", **SETTINGS, out=tmp_path / "run")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile):
        import_locuslab(tmp_path / "binary", **SETTINGS, out=tmp_path / "run")


@pytest.mark.parametrize(
    "wrong", [{"sigma": 0.0}, {"sigma": math.nan}, {"n": 0}, {"n": 1.5}, {"alpha": 0.6}, {"alpha": 0.0}]
)
def test_impossible_settings_are_refused(tmp_path, wrong):
    with pytest.raises(InvalidSetting):
        import_locuslab(log(tmp_path, HEAD + LINES), **(SETTINGS | wrong), out=tmp_path / "run")
