"""Kill the writer, fill the disk, start two writers: the run that results is always the same run."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from certify.store import read_run, records_digest
from certify.store.manifest import read_manifest
from tests.faults.driver import expected

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]


def start(path, rows, **options):
    command = [sys.executable, "-m", "tests.faults.driver", str(path), str(rows)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(path, rows):
    """Let the driver end by itself; its digest."""
    out, err = start(path, rows).communicate(timeout=120)
    assert err == ""
    return out.split()[-1]


def check_whole(path, rows):
    stored = read_run(path)
    assert [r.index for r in stored.run] == list(range(rows))
    assert records_digest(stored.run) == expected(rows)
    assert stored.documents == {"notes": {"rows": rows}}
    subjects = {s["name"]: s["digest"]["sha256"] for s in read_manifest(path)["subject"]}
    assert subjects["records"] == expected(rows)
    assert not list(path.glob(".*.tmp")), "a killed writer's scratch file was left behind"


def kill_until_done(path, rows, kills, seed):
    """Kill the driver ``kills`` times, at startup or in the middle of a row; check every survivor."""
    rng = random.Random(seed)
    durable: set[int] = set()
    done = 0
    while done < kills:
        process = start(path, rows)
        assert process.stdout is not None
        patience = rng.choice([0, rng.randrange(1, 12)])
        for _ in range(patience):
            line = process.stdout.readline().strip()
            if line.isdigit():
                durable.add(int(line))
        time.sleep(rng.random() * (0.003 if patience else 0.15))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        durable |= {int(word) for word in rest.split() if word.isdigit() and len(word) < 10}
        assert process.returncode == -signal.SIGKILL, "the run is too short for this many kills"
        done += 1
        if (path / "records.sqlite").exists() and durable:
            assert durable <= {r.index for r in read_run(path).run}, "a row that was stored is gone"
    return done


def test_driver_kills_lose_and_double_nothing(tmp_path):
    kill_until_done(tmp_path / "run", 400, 8, seed=1)
    assert finish(tmp_path / "run", 400) == expected(400)
    check_whole(tmp_path / "run", 400)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_driver_kills_by_the_hundred(tmp_path):
    assert kill_until_done(tmp_path / "run", 4000, 120, seed=2) == 120
    assert finish(tmp_path / "run", 4000) == expected(4000)
    check_whole(tmp_path / "run", 4000)


@pytest.mark.parametrize("kilobytes", [0, 3, 40, 90])
def test_a_full_disk_is_named_and_the_run_resumes(tmp_path, kilobytes):
    """A file-size limit makes every write past it fail, wherever the database then is."""
    path = tmp_path / "run"

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    process = start(path, 300, preexec_fn=limited)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "do:" in err
    durable = {int(word) for word in out.split() if word.isdigit()}
    assert len(durable) < 300
    if durable:
        assert durable <= {r.index for r in read_run(path).run}
    assert finish(path, 300) == expected(300)
    check_whole(path, 300)


def test_a_small_disk_that_is_enlarged(tmp_path):
    """A real file system without space (needs the right to mount one in a namespace of its own)."""
    run = tmp_path / "disk"
    run.mkdir()
    driver = f"{sys.executable} -m tests.faults.driver {run}/run 300"
    script = (
        f"mount -t tmpfs -o size=128k none {run} || exit 77\n"
        f"{driver} > {tmp_path}/first; code=$?\n"
        f"mount -o remount,size=8m {run} || exit 77\n"
        f"{driver} > {tmp_path}/second || exit 1\n"
        "exit $code\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 3, done.stderr
    first, second = (tmp_path / "first").read_text().split(), (tmp_path / "second").read_text().split()
    assert second[-1] == expected(300)
    assert not {w for w in first if w.isdigit()} & set(second), "a durable row was computed again"


def test_writers_that_race_leave_one_run(tmp_path):
    """Four at once, restarted until all have seen it done: one writes, the others are refused by name."""
    path = tmp_path / "run"
    ended, refused = 0, 0
    while ended < 4:
        group = [start(path, 60) for _ in range(4)]
        results = [(p.communicate(timeout=120), p.returncode) for p in group]
        for (out, err), code in results:
            assert code in (0, 4), err
            ended += code == 0
            refused += code == 4
            if code == 4:
                assert "being written by another process" in err
            else:
                assert out.split()[-1] == expected(60)
    assert refused
    check_whole(path, 60)


def test_a_stopped_writer_still_holds_the_run(tmp_path):
    process = start(tmp_path / "run", 100_000)
    assert process.stdout is not None
    try:
        for _ in range(3):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        second = start(tmp_path / "run", 5)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 4
        assert f"pid {process.pid}" in err
    finally:
        process.kill()
        process.communicate()
