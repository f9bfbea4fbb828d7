"""The sampling engine on a Ray cluster: the same counts from any number of machines.

A *cell* is (input id, block of samples). Noise is keyed by (run seed, input id, sample index),
so a cell gives the same counts wherever and however often it is computed; the driver adds them
up and alone decides and stores. Workers are actors that get the model once, from the object
store, and keep it on their device.

A worker that dies costs its cells: they are tried again, each by itself, up to ``RETRIES``
times; then their input has no result and its record says *failed*. It never counts as an
abstention, and resuming the run tries it again.

Whoever reaches a Ray cluster can run code on it; older releases have no authentication at all.
Without an address everything stays on the loopback interface of this machine; a cluster belongs
on a network that only its users reach, with Ray's token authentication switched on.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from certify.contents import model_contents
from certify.errors import InvalidSetting, MissingExtra, NondeterministicModel, WorkersLost
from certify.sampling.audit import Answer
from certify.sampling.engine import Drawn, Request, Sampler
from certify.sampling.tally import Tally

#: How often a cell is tried again after the worker that had it died.
RETRIES = 3
#: Ray's switch for cluster networking (named after the systems on which it is off by default).
_NETWORKING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
#: Deaths in a row, without any result in between, after which the engine gives up.
_HOPELESS = 50


@dataclass(frozen=True)
class RayEngine:
    """``Smoothed.certify(engine=RayEngine(workers=4))``.

    ``workers``: processes (default: one per GPU of the cluster for a model on CUDA, else one
    per CPU). ``address``: "HOST:PORT" of a running cluster's head, or None to start one on this
    machine, bound to 127.0.0.1, that ends with the run.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InvalidSetting(
                f"{self.workers} workers cannot do anything",
                why="the engine needs at least one process",
                remedy="leave --workers out, or give a number >= 1",
            )

    def __call__(self, sampler: Sampler) -> RaySampler:
        """The distributed form of ``sampler``; a context manager."""
        return RaySampler(self, sampler)


class RaySampler:
    """``Sampler`` with its work spread over actors. Use as a context manager."""

    def __init__(self, engine: RayEngine, local: Sampler) -> None:
        self.engine = engine
        self.classifier = local.classifier
        self.local = local
        self.tally = local.tally
        self.audit = local.audit
        self.seed = local.seed
        self._ray: Any = None
        self._make: Any = None
        self._model: Any = None
        self._plan: _Plan | None = None
        self._started = False
        self._actors: list[Any] = []
        self._idle: deque[int] = deque()
        self._flying: dict[Any, tuple[int, list[_Cell]]] = {}
        self._deaths = 0
        self._rows = torch.rand(8, *local.shape, generator=torch.Generator().manual_seed(0))
        self._parts: Mapping[str, str] = {}
        self.batch_size = local.batch_size

    def __enter__(self) -> RaySampler:
        self._ray = _import_ray(self.engine.address)
        self._started = _connect(self._ray, self.engine)
        try:
            self._hire()
        except BaseException:
            self.close()
            raise
        # A round is planned as a number of batches of this size: enough for every worker.
        self.batch_size = self.local.batch_size * len(self._actors)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and the cluster if this engine started it."""
        for actor in self._actors:
            if actor is not None:
                self._ray.kill(actor)
        self._actors, self._flying = [], {}
        if self._started:
            self._ray.shutdown()
            self._started = False

    def counts(self, requests: Sequence[Request]) -> np.ndarray:
        """As ``Sampler.counts``; the counts of an input whose cells were lost too often are all -1."""
        return self.draw(requests).counts

    def alone(self, request: Request, sample: int) -> Answer:
        """As ``Sampler.alone``: the model here, not a worker's copy, audits what the workers counted."""
        return self.local.alone(request, sample)

    def draw(self, requests: Sequence[Request]) -> Drawn:
        """As ``Sampler.draw``; see ``counts`` for inputs that were lost."""
        totals = Drawn(np.zeros((len(requests), *self.tally.shape), dtype=np.int64), [[] for _ in requests])
        queue = deque(_groups(requests, self.local.batch_size))
        lost: set[int] = set()
        while queue or any(group for _, group in self._flying.values()):
            while queue and self._idle:
                if group := [cell for cell in queue.popleft() if cell.position not in lost]:
                    self._submit(group, requests)
            self._collect(totals, queue, lost)
        totals.counts[sorted(lost)] = -1
        return totals

    def _submit(self, group: list[_Cell], requests: Sequence[Request]) -> None:
        worker = self._idle.popleft()
        parts = [c.part_of(requests[c.position]) for c in group]
        self._flying[self._actors[worker].draw.remote(parts)] = (worker, group)

    def _collect(self, totals: Drawn, queue: deque[list[_Cell]], lost: set[int]) -> None:
        """Wait for one answer: counts, a new worker that is up, or a death."""
        [ref], _ = self._ray.wait(list(self._flying), num_returns=1)
        worker, group = self._flying.pop(ref)
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None  # the model's own error: it would only happen again
        except self._ray.exceptions.RayError as death:
            self._mourn(death)
            self._employ(worker)
            for cell in group:
                if cell.attempts < RETRIES:
                    queue.append([replace(cell, attempts=cell.attempts + 1)])
                else:
                    lost.add(cell.position)
            return
        self._deaths = 0
        if not group:
            self._recognise(*answer)
        self._idle.append(worker)
        if group:
            for cell, row, kept in zip(group, answer.counts, answer.kept, strict=True):
                totals.counts[cell.position] += row
                totals.kept[cell.position].extend(kept)

    def _recognise(self, scores: torch.Tensor, parts: Mapping[str, str]) -> None:
        """Raise where a new worker's model is another function: classes and settings are imported there."""
        other = [name for name, digest in self._parts.items() if parts.get(name) != digest]
        if other or not self.classifier.same_function(self._rows, scores):
            raise NondeterministicModel(
                f"a worker's model {f'has another {other[0]}' if other else 'answers otherwise'} than the "
                "model here",
                why="a worker gets its weights and attributes, but imports its class: what was changed there "
                "since, and other code on the worker's machine, make it another function",
                remedy="keep what the forward pass reads in the model itself, or use --engine local",
            )

    def _mourn(self, death: Exception) -> None:
        self._deaths += 1
        if self._deaths > _HOPELESS:
            raise WorkersLost(
                "the workers die as fast as they start",
                why=f"{self._deaths} deaths without a result; the last: {str(death).splitlines()[0]}",
                remedy="look at the workers' memory and at Ray's logs (ray status); what was proved is kept",
            ) from death

    def _hire(self) -> None:
        ray, local = self._ray, self.local
        on_cuda = local.classifier.device.type == "cuda"
        available = ray.cluster_resources().get("GPU" if on_cuda else "CPU", 0)
        wanted = self.engine.workers or int(available)
        if not 1 <= wanted <= available:
            raise InvalidSetting(
                f"{wanted} workers do not fit the cluster",
                why=f"it has {available:g} {'GPUs' if on_cuda else 'CPUs'}, and a worker takes one",
                remedy="give fewer --workers, or add machines to the cluster",
            )
        before = model_contents(local.classifier.model)
        local.classifier.one_by_one(self._rows)
        self._parts = before.constant(model_contents(local.classifier.model)).parts
        # The driver keeps the reference: workers that replace dead ones take the model from it.
        self._model = ray.put(local.classifier.model)
        self._plan = _Plan(
            num_classes=local.classifier.num_classes,
            device=local.classifier.device.type,
            dtype=local.classifier.dtype,
            compiled=local.classifier.compiled,
            tolerance=local.classifier.tolerance,
            usual=local.classifier.usual,
            noise=local.noise,
            seed=local.seed,
            shape=tuple(local.shape),
            batch_size=local.batch_size,
            channels_last=local.classifier.channels_last,
            tally=local.tally,
        )
        self._make = ray.remote(num_cpus=0 if on_cuda else 1, num_gpus=int(on_cuda))(_Worker)
        self._actors = [None] * wanted
        for worker in range(wanted):
            self._employ(worker)

    def _employ(self, worker: int) -> None:
        """Start the process of ``worker``; it is idle once it has answered."""
        self._actors[worker] = self._make.remote(self._model, self._plan)
        self._flying[self._actors[worker].scores.remote(self._rows)] = (worker, [])


@dataclass(frozen=True)
class _Cell:
    """Samples ``start .. start + count`` of the request at ``position``, tried ``attempts`` times before."""

    position: int
    start: int
    count: int
    attempts: int = 0

    def part_of(self, request: Request) -> Request:
        """The samples of this cell, with those of the kept ones that are among them."""
        kept = tuple(k for k in request.kept if self.start <= k < self.start + self.count)
        return replace(request, start=self.start, count=self.count, kept=kept)


@dataclass(frozen=True)
class _Plan:
    """What a worker needs besides the model to be the driver's sampler."""

    num_classes: int
    device: str
    dtype: str
    compiled: bool
    tolerance: float
    usual: float
    noise: Any
    seed: int
    shape: tuple[int, ...]
    batch_size: int
    channels_last: bool
    tally: Tally


class _Worker:
    """One process with one copy of the model."""

    def __init__(self, model: Any, plan: _Plan) -> None:
        from certify.sampling.classifier import BaseClassifier

        torch.set_num_threads(1)
        classifier = BaseClassifier(
            model, num_classes=plan.num_classes, device=plan.device, dtype=plan.dtype, compiled=plan.compiled
        )
        classifier.tolerance, classifier.usual = plan.tolerance, plan.usual
        classifier.lay_out(channels_last=plan.channels_last)
        self._sampler = Sampler(
            classifier,
            plan.noise,
            seed=plan.seed,
            shape=plan.shape,
            batch_size=plan.batch_size,
            tally=plan.tally,
        )

    def scores(self, rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, str]]:
        """What the model here answers to each row by itself, and what it is made of."""
        classifier = self._sampler.classifier
        return classifier.one_by_one(rows).cpu(), dict(model_contents(classifier.model).parts)

    def draw(self, requests: list[Request]) -> Drawn:
        device = self._sampler.classifier.device
        return self._sampler.draw([replace(r, base=r.base.to(device)) for r in requests])


def _groups(requests: Sequence[Request], size: int) -> Iterator[list[_Cell]]:
    """All requests as cells, packed into groups of ``size`` samples."""
    group: list[_Cell] = []
    room = size
    for position, request in enumerate(requests):
        start, left = request.start, request.count
        while left:
            take = min(left, room)
            group.append(_Cell(position, start, take))
            start, left, room = start + take, left - take, room - take
            if room == 0:
                yield group
                group, room = [], size
    if group:
        yield group


def _import_ray(address: str | None) -> Any:
    """Ray, kept off the network when no address is given.

    A Ray node listens on every interface, also when it is told 127.0.0.1, unless its cluster
    networking is off; that is read once, when ray is imported. So a process is either on
    loopback or on a cluster, and one that already is the other is refused.
    """
    alone = address is None
    if "ray" in sys.modules and not sys.modules["ray"].is_initialized():
        if (os.environ.get(_NETWORKING) == "0") != alone:
            raise InvalidSetting(
                f"Ray cannot be kept {'off' if alone else 'on'} the network in this process",
                why=f"it was imported before with its networking {'on' if alone else 'off'}",
                remedy=f"set {_NETWORKING}=0 before importing ray, or give --address of a cluster"
                if alone
                else "run this in a process of its own",
            )
    elif "ray" not in sys.modules and alone:
        os.environ[_NETWORKING] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a proof needs no telemetry
    try:
        import ray
    except ImportError as missing:
        raise MissingExtra(
            "the ray engine is not installed",
            why=str(missing),
            remedy="pip install 'certify-robustness[ray]' -c constraints.txt, or use --engine local",
        ) from missing
    return ray


def _connect(ray: Any, engine: RayEngine) -> bool:
    """Join or start a cluster; whether this call started it (and must end it)."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if engine.address is not None:
        _knock(engine.address)  # Ray itself would knock for minutes
    try:
        if engine.address is not None:
            ray.init(address=engine.address, **quiet)
            return True
        cpus = engine.workers or os.cpu_count() or 1
        ray.init(
            address="local", num_cpus=cpus, _node_ip_address="127.0.0.1", include_dashboard=False, **quiet
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as cause:
        raise _unreachable(engine.address or "this machine", cause) from cause
    places = {node["NodeManagerAddress"] for node in ray.nodes()}
    if places != {"127.0.0.1"}:
        ray.shutdown()
        raise InvalidSetting(
            "Ray could not be kept off the network",
            why=f"its node has the address {', '.join(sorted(places))}",
            remedy="use another release of Ray, or a cluster on a private network with --address",
        )
    return True


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as cause:
        raise _unreachable(address, cause) from cause


def _unreachable(address: str, cause: Exception) -> InvalidSetting:
    return InvalidSetting(
        f"no Ray cluster could be reached at {address}",
        why=(str(cause).splitlines() or [type(cause).__name__])[0],
        remedy="start one with `ray start --head --port=6379` and give --address HOST:6379; where it "
        "asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as on its machines",
    )
