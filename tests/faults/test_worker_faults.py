"""Workers that die: the run is the same run, or names the input that killed them."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import threading
from pathlib import Path

import pytest
import torch

from certify import Smoothed, Status
from certify.sampling.ray import RayEngine, _connect, _import_ray
from certify.store import records_digest

if importlib.util.find_spec("ray") is None:
    pytest.skip("the ray extra is not installed", allow_module_level=True)
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

INPUTS, POISON = 12, 10


class Deadly(torch.nn.Module):
    """A healthy network, except that one input's mark kills the process that sees it."""

    def __init__(self, armed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 4)
        self.layers = torch.nn.Sequential(*layers)
        self.armed = armed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Two pixels, so that no point the driver tries by itself bears the mark.
        if self.armed and bool(((x[:, 0, 0, :2] - 64).abs() < 2).all(dim=1).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(x)


def certify(engine=None, *, armed=False, seed=0, n=1000, **options):
    x = torch.randint(0, 17, (INPUTS, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 16
    x[POISON, 0, 0, :2] = 64.0
    model = Deadly(armed).eval()
    smoothed = Smoothed(model, 0.25, num_classes=4, grid=1 / 16, bounds=(0.0, 100.0), batch_size=100)
    if engine is not None:
        options["engine"] = engine
    return smoothed.certify(x, mode="fixed", n0=100, n=n, seed=seed, **options)


@pytest.fixture(scope="module")
def cluster():
    """One small cluster for the module, started as the engine starts it: that is most of the time."""
    ray = _import_ray(None)
    assert _connect(ray, RayEngine(workers=2))
    yield
    ray.shutdown()


def family() -> dict[int, str]:
    """This process and everything below it, by id: nobody else's may be touched."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return {pid: title for pid, title in titles.items() if ours(pid)}


def own_workers() -> list[int]:
    return [pid for pid, title in family().items() if title.startswith("ray::_Worker")]


def open_doors() -> set[str]:
    """Addresses (hexadecimal, as the kernel writes them) on which this process family listens."""
    sockets = set()
    for pid in family():
        try:
            links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in sockets:
                found.add(columns[1].split(":")[0])
    return found


class Assassin(threading.Thread):
    """Kills a random worker every so often until it is stopped or has killed enough."""

    def __init__(self, limit: int, pause: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.limit, self.pause, self.rng = limit, pause, random.Random(seed)
        self.kills, self.stop = 0, threading.Event()

    def run(self) -> None:
        while self.kills < self.limit and not self.stop.wait(self.pause * (0.5 + self.rng.random())):
            if workers := own_workers():
                try:
                    os.kill(self.rng.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()


def test_a_private_cluster_listens_on_loopback_only(cluster):
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert open_doors(), "a running cluster listens somewhere"
    assert open_doors() <= loopback


def test_killed_workers_change_nothing(cluster):
    expected = records_digest(certify(n=4000))
    with Assassin(limit=1, pause=0.2, seed=1) as assassin:
        run = certify(RayEngine(workers=2), n=4000)
    assert assassin.kills, "the run was over before a worker could be killed"
    assert all(r.status is not Status.FAILED for r in run)
    assert records_digest(run) == expected


@pytest.mark.slow
def test_an_input_that_kills_its_workers_fails_alone_and_is_tried_again(cluster, tmp_path):
    whole = certify()
    run = certify(RayEngine(workers=2), armed=True, store=tmp_path)
    assert run[POISON].status is Status.FAILED
    assert "died" in run[POISON].details["reason"]
    others = [i for i in range(INPUTS) if i != POISON]
    assert records_digest(run[i] for i in others) == records_digest(whole[i] for i in others)
    mended = certify(RayEngine(workers=2), store=tmp_path)
    assert records_digest(mended) == records_digest(whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_serial_digest(workers):
    ray = _import_ray(None)
    ray.shutdown()
    assert records_digest(certify(RayEngine(workers=workers))) == records_digest(certify())
    assert not ray.is_initialized(), "the engine leaves a cluster behind"


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_worker_kills_by_the_hundred(cluster, tmp_path):
    kills, seed = 0, 0
    while kills < 100:
        expected = records_digest(certify(n=20_000, seed=seed))
        path = tmp_path / str(seed)
        for _ in range(5):  # an input whose workers died too often is tried again by resuming
            with Assassin(limit=100 - kills, pause=1.0, seed=seed) as assassin:
                run = certify(RayEngine(workers=2), n=20_000, seed=seed, store=path)
            kills += assassin.kills
            if all(r.status is not Status.FAILED for r in run):
                break
        assert records_digest(run) == expected
        seed += 1
    assert kills >= 100
