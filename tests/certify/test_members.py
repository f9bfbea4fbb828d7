"""The files of a run directory are opened as they are: no link is followed, no pipe waited on."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager

import pytest

import reports
from certify.errors import CertifyError, CorruptRun, RunNotWritable, UnreadableFile
from certify.files import write_atomically
from certify.files.members import fault_of, open_member, read_member, write_inside
from certify.store import open_run, read_run
from certify.store.manifest import read_manifest
from certify.verification import verify
from tests.certify.sample_run import GUARANTEE, fill, settings
from tests.certify.simulated_run import write


@contextmanager
def soon():
    """What waits is wrong."""

    def ring(*_):
        raise AssertionError("it waited")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def replaced(file, thing, tmp_path):
    """``file`` made into something that is no file of its own; what it was is kept outside."""
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    kept = outside / file.name.lstrip(".")
    if file.exists():
        shutil.move(file, kept)
    else:
        kept.write_bytes(b"precious")
    if thing == "link":
        file.symlink_to(kept)
    elif thing == "dangling link":
        file.symlink_to(outside / "nothing")
    elif thing == "endless device":
        file.symlink_to("/dev/zero")
    elif thing == "pipe":
        os.mkfifo(file)
    elif thing == "folder":
        file.mkdir()
    elif thing == "second name":
        os.link(kept, file)
    return kept


THINGS = ("link", "dangling link", "endless device", "pipe", "folder")


@pytest.mark.parametrize("thing", THINGS)
def test_a_member_is_a_file_or_refused(tmp_path, thing):
    file = tmp_path / "a.json"
    file.write_text("text")
    assert read_member(file, "thing") == b"text"
    replaced(file, thing, tmp_path)
    with soon(), pytest.raises(UnreadableFile):
        read_member(file, "thing")
    assert fault_of(file)


def test_more_than_a_text_can_have_is_not_read(tmp_path):
    sparse = tmp_path / "a.json"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnreadableFile, match="more than 1,000 bytes"):
        read_member(sparse, "thing", most=1000)
    with soon(), open_member(sparse, "thing") as file:
        assert file.read(3) == b"\0\0\0"


@pytest.mark.parametrize("thing", [*THINGS, "second name"])
@pytest.mark.parametrize("name", [".lock", "records.sqlite", "records.sqlite-wal", "records.sqlite-journal"])
def test_a_writer_touches_nothing_outside_its_directory(tmp_path, name, thing):
    place = tmp_path / "run"
    fill(place, range(3))
    kept = replaced(place / name, thing, tmp_path)
    before = kept.read_bytes()
    with soon(), pytest.raises(CertifyError):
        open_run(place, settings(), GUARANTEE)
    assert kept.read_bytes() == before


def test_a_lock_that_is_a_link_is_named_with_the_remedy(tmp_path):
    fill(tmp_path / "run", [0])
    replaced(tmp_path / "run" / ".lock", "link", tmp_path)
    with pytest.raises(RunNotWritable, match="is a link") as caught:
        open_run(tmp_path / "run", settings(), GUARANTEE)
    assert "remove .lock" in caught.value.remedy
    (tmp_path / "run" / ".lock").unlink()
    assert fill(tmp_path / "run", [0, 1])


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize(
    "name", ["manifest.json", "certificates.csv", "records.sqlite", "records.sqlite-shm"]
)
def test_verification_names_what_is_no_file(tmp_path, name, thing):
    place = tmp_path / "run"
    write(place, "fixed")
    replaced(place / name, thing, tmp_path)
    with soon():
        found = verify(place)
    assert found.outcome == "fails"
    if name == "manifest.json":
        with soon(), pytest.raises(UnreadableFile):
            read_manifest(place)


def test_reading_through_a_second_name_is_fine_and_writing_is_not(tmp_path):
    """A backup that shares its files (cp -al) can be read; writing would change both."""
    fill(tmp_path / "run", range(3))
    (tmp_path / "backup").mkdir()
    os.link(tmp_path / "run" / "records.sqlite", tmp_path / "backup" / "records.sqlite")
    assert len(read_run(tmp_path / "backup").run) == 3
    with pytest.raises(CorruptRun, match="hard links"):
        open_run(tmp_path / "backup", settings(), GUARANTEE)


def test_scratch_names_that_are_no_scratch_files_stop_nobody(tmp_path):
    fill(tmp_path / "run", [0])
    (tmp_path / "run" / ".report.html.1.tmp").mkdir()
    (tmp_path / "run" / ".old.tmp").symlink_to(tmp_path)
    fill(tmp_path / "run", [1])
    assert (tmp_path / "run" / ".report.html.1.tmp").is_dir()
    assert tmp_path.is_dir()


def test_what_is_written_beside_a_run_replaces_links_and_does_not_follow_them(tmp_path):
    write(tmp_path / "run", "fixed")
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    for name in ("report.html", "table.tex"):
        (tmp_path / "run" / name).symlink_to(precious)
    os.link(precious, tmp_path / "run" / "card.md")
    os.mkfifo(tmp_path / "run" / "manifest.json.new")
    with soon():
        written = reports.build(tmp_path / "run")
    assert precious.read_text() == "precious"
    assert written.html.is_file()
    assert not written.html.is_symlink()


@pytest.mark.parametrize("thing", ["link", "dangling link", "file"])
def test_a_folder_of_figures_that_lies_elsewhere_is_refused(tmp_path, thing):
    write(tmp_path / "run", "fixed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "accuracy.svg").write_text("mine")
    plots = tmp_path / "run" / "plots"
    if thing == "file":
        plots.write_text("x")
    else:
        plots.symlink_to(elsewhere if thing == "link" else tmp_path / "nothing")
    with pytest.raises(RunNotWritable, match="is not a folder"):
        reports.build(tmp_path / "run")
    assert (elsewhere / "accuracy.svg").read_text() == "mine"
    assert [p.name for p in elsewhere.iterdir()] == ["accuracy.svg"]
    with pytest.raises(RunNotWritable):
        write_inside(tmp_path / "run", "plots/deeper/a.svg", "x")


def test_scratch_files_cannot_be_laid_out_beforehand(tmp_path, monkeypatch):
    """The name of the file that is written first is drawn, and must be new."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("certify.files.secrets.token_hex", lambda _: "known")
    os.link(victim, tmp_path / ".report.html.known.tmp")
    with pytest.raises(RunNotWritable):
        write_atomically(tmp_path / "report.html", "page")
    assert victim.read_text() == "precious"
    assert (tmp_path / ".report.html.known.tmp").exists(), "what was there is not removed"


def test_text_that_is_none_costs_no_file(tmp_path):
    assert (
        write_atomically(tmp_path / "a.html", "a file name: \udcff").read_bytes() == b"a file name: \\udcff"
    )
