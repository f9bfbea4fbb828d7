"""How the distributed engine divides, retries and gives up, against a cluster made of function calls."""

from __future__ import annotations

import builtins
import random
import sys
from types import SimpleNamespace

import pytest
import torch

from certify import Smoothed, Status
from certify.errors import InvalidModel, InvalidSetting, MissingExtra, NondeterministicModel, WorkersLost
from certify.sampling.ray import RETRIES, RayEngine
from certify.store import read_run, records_digest
from certify.verification import verify

INPUTS = 5


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """The handful of Ray calls the engine makes; ``deadly(requests)`` says which calls kill a worker."""

    def __init__(
        self, deadly=lambda requests: False, cpus=8, seed=0, place="127.0.0.1", there=lambda model: model
    ):
        self.place = place
        self.there = there  # what a model is in a worker's process
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.deadly, self.cpus, self.rng = deadly, cpus, random.Random(seed)
        self.calls, self.born, self.killed, self.up = [], 0, 0, False

    def is_initialized(self):
        return self.up

    def init(self, **options):
        self.up, self.options = True, options

    def shutdown(self):
        self.up = False

    def nodes(self):
        return [{"NodeManagerAddress": self.place}]

    def cluster_resources(self):
        return {"CPU": self.cpus}

    def put(self, value):
        return SimpleNamespace(value=value)

    def kill(self, actor):
        self.killed += 1

    def remote(self, **resources):
        return lambda cls: SimpleNamespace(
            remote=lambda model, plan: self._actor(cls(self.there(model.value), plan))
        )

    def _actor(self, worker):
        self.born += 1
        state = SimpleNamespace(dead=False)

        def call(name, *args):
            requests = args[0] if name == "draw" else []
            self.calls.append((name, [(r.id, r.start, r.count) for r in requests]))
            if state.dead or (requests and self.deadly(requests)):
                state.dead = True
                return self._ref(error=RayError("the worker died"))
            try:
                return self._ref(value=getattr(worker, name)(*args))
            except Exception as error:
                return self._ref(error=RayTaskError(error))

        return SimpleNamespace(
            scores=SimpleNamespace(remote=lambda rows: call("scores", rows)),
            draw=SimpleNamespace(remote=lambda requests: call("draw", requests)),
        )

    def _ref(self, **fields):
        return type("Ref", (), fields)()

    def wait(self, refs, num_returns):
        return [self.rng.choice(refs)], None  # answers come in any order

    def get(self, ref):
        if hasattr(ref, "error"):
            raise ref.error
        return ref.value


def certify(engine=None, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 3)).eval()
    x = torch.rand(INPUTS, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    smoothed = Smoothed(
        model, 0.25, num_classes=3, noise="gaussian", bounds=None, batch_size=64, reduce=False
    )
    options = {"mode": "fixed", "n0": 20, "n": 300} | options
    if engine is not None:
        options["engine"] = engine
    return smoothed.certify(x, **options)


def without_ray(real):
    def load(name, *args, **kwargs):
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *args, **kwargs)

    return load


@pytest.fixture
def cluster(monkeypatch):
    def use(**options):
        fake = FakeRay(**options)
        monkeypatch.setattr("certify.sampling.ray._import_ray", lambda address: fake)
        return fake

    return use


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize(
    "mode", [{}, {"mode": "decide", "radius": 0.05, "n_max": 500, "n0": None, "n": None}]
)
def test_records_do_not_depend_on_the_engine(cluster, workers, mode):
    fake = cluster(seed=workers)
    assert records_digest(certify(RayEngine(workers=workers), **mode)) == records_digest(certify(**mode))
    assert fake.born == fake.killed == workers
    assert not fake.up, "a cluster that the engine started ends with the run"
    assert fake.options["_node_ip_address"] == "127.0.0.1"
    assert fake.options["address"] == "local", "never somebody else's cluster"


def test_a_worker_whose_model_is_another_function_is_refused(cluster):
    """Its class is imported there: what was changed in it here stays behind."""

    def turned(model):
        return torch.nn.Sequential(model, Negative()).eval()

    fake = cluster(there=turned)
    with pytest.raises(NondeterministicModel, match="worker"):
        certify(RayEngine(workers=2))
    assert not any(name == "draw" for name, _ in fake.calls)
    assert not fake.up


class Negative(torch.nn.Module):
    def forward(self, x):
        return -x


def test_every_sample_is_drawn_exactly_once(cluster):
    fake = cluster()
    certify(RayEngine(workers=3))
    cells = sorted(cell for name, cells in fake.calls if name == "draw" for cell in cells)
    for id in range(INPUTS):
        drawn = [i for at, start, count in cells if at == id for i in range(start, start + count)]
        assert sorted(drawn) == list(range(320))
    assert max(sum(n for _, _, n in cells) for name, cells in fake.calls) <= 64


def test_workers_that_die_now_and_then_change_nothing(cluster):
    dice = random.Random(5)
    fake = cluster(deadly=lambda requests: dice.random() < 0.2)
    assert records_digest(certify(RayEngine(workers=2))) == records_digest(certify())
    assert fake.born > 2


def test_an_input_that_kills_every_worker_fails_alone(cluster, tmp_path):
    fake = cluster(deadly=lambda requests: any(r.id == 3 for r in requests))
    run = certify(RayEngine(workers=2), store=tmp_path)
    assert [r.status is Status.FAILED for r in run] == [False, False, False, True, False]
    others = [0, 1, 2, 4]
    whole = certify()
    assert records_digest(run[i] for i in others) == records_digest(whole[i] for i in others)
    alone = [c for name, c in fake.calls if name == "draw" and c[0][0] == 3 and len(c) == 1]
    assert len([c for c in alone if c[0][1] == 0]) == RETRIES
    assert verify(tmp_path).ok
    assert records_digest(certify(store=tmp_path)) == records_digest(whole), "a failed input is tried again"


def test_an_error_of_the_model_is_reported_not_retried(cluster, monkeypatch):
    fake = cluster()

    def broken(self, requests):
        raise InvalidModel("no", why="because", remedy="mend it")

    monkeypatch.setattr("certify.sampling.ray._Worker.draw", broken)
    with pytest.raises(InvalidModel, match="mend it"):
        certify(RayEngine(workers=1))
    assert [name for name, _ in fake.calls].count("draw") == 1
    assert not fake.up


def test_workers_that_never_live_end_the_run(cluster, monkeypatch):
    cluster()

    monkeypatch.setattr(FakeRay, "_ref", lambda self, **_: type("Ref", (), {"error": RayError("dead")})())
    with pytest.raises(WorkersLost, match="die as fast as they start"):
        certify(RayEngine(workers=2))


def test_a_cluster_that_was_there_is_left_there(cluster):
    fake = cluster()
    fake.up = True
    certify(RayEngine(workers=1))
    assert fake.up
    assert fake.killed == 1


def test_what_cannot_be_used_is_named_and_writes_nothing(cluster, monkeypatch, tmp_path):
    with pytest.raises(InvalidSetting, match="0 workers"):
        RayEngine(workers=0)
    cluster(cpus=4)
    with pytest.raises(InvalidSetting, match="9 workers do not fit"):
        certify(RayEngine(workers=9), store=tmp_path / "run")
    fake = cluster()
    for address in ("127.0.0.1:1", "nowhere", "127.0.0.1:port"):
        with pytest.raises(InvalidSetting, match=f"reached at {address}"):
            certify(RayEngine(address=address), store=tmp_path / "run")
    monkeypatch.setattr(fake, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("no answer")))
    with pytest.raises(InvalidSetting, match="no answer"):
        certify(RayEngine(), store=tmp_path / "run")
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("builtins.__import__", without_ray(builtins.__import__))
    with pytest.raises(MissingExtra, match=r"certify-robustness\[ray\]"):
        certify(RayEngine(), store=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_distributed_run_resumes_in_any_engine(cluster, tmp_path):
    cluster()

    def stop(record):
        if record.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(RayEngine(workers=2), store=tmp_path, on_record=stop)
    assert 0 < len(read_run(tmp_path).run) < INPUTS
    assert records_digest(certify(store=tmp_path)) == records_digest(certify())


def test_counts_are_integers_of_the_request_shape(cluster):
    cluster()
    run = certify(RayEngine(workers=2))
    assert all(sum(r.counts) == 300 for r in run)


def test_a_cluster_that_would_be_on_the_network_is_ended(cluster, tmp_path):
    fake = cluster(place="10.1.2.3")
    with pytest.raises(InvalidSetting, match=r"address 10\.1\.2\.3"):
        certify(RayEngine(workers=1), store=tmp_path / "run")
    assert not fake.up
    assert fake.born == 0


@pytest.mark.parametrize(("switch", "address", "named"), [(None, None, "off"), ("0", "10.0.0.1:6379", "on")])
def test_ray_imported_for_the_other_purpose_is_refused(monkeypatch, switch, address, named):
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    if switch is not None:
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", switch)
    with pytest.raises(InvalidSetting, match=f"cannot be kept {named} the network"):
        certify(RayEngine(workers=1, address=address))
