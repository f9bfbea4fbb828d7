"""Several batches at once on the CPU: one thread, one copy of the model, one buffer each.

A small network wastes most of a second core when every operation of a batch is split over the
cores, and the noise of the next batch waits for the last one. Lanes split the work by batches
instead. Counts are integers and rows in doubt are still decided alone, by the caller's own model
in the caller's own thread, so the votes are the same with any number of lanes.
"""

from __future__ import annotations

import copy
import dis
import os
import types
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from certify.altered import altered
from certify.reached import Reached, codes_in, library

#: Copies of a model may take this much memory together.
COPIES_BYTES = 1 << 29
#: Packages whose functions keep nothing between calls but what is named in ``_RANDOM``.
_TRUSTED = (
    "torch", "torchdiffeq", "math", "cmath", "operator", "builtins", "typing", "abc", "collections",
    "certify",
)  # fmt: skip
_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range)
_CONSTANTS += (torch.dtype, torch.device, torch.layout, torch.memory_format)
#: What reads or writes the random generators that all threads share.
_RANDOM = frozenset({
    "manual_seed", "seed", "initial_seed", "set_rng_state", "get_rng_state", "fork_rng", "default_generator",
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "normal_",
    "uniform_", "bernoulli", "bernoulli_", "multinomial", "poisson", "exponential_", "random_", "cauchy_",
    "log_normal_", "geometric_", "Generator", "random",
})  # fmt: skip
_STORES = frozenset({"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL"})


def run_in_lanes(
    tasks: Sequence[Callable[[], Any]], *, abandon: Callable[[], Any] | None = None
) -> list[Any]:
    """The results of the tasks, each run in a thread of its own whose torch operations use one core.

    Ends when all have ended; raises the first error in order. ``abandon`` is called where Ctrl-C ends the
    wait: it lets the tasks come to an end, as nobody may use what they use before they have.
    """
    pool = _pool(os.getpid(), len(tasks))
    futures: list[Future[Any]] = [pool.submit(task) for task in tasks]
    try:
        wait(futures)
    except BaseException:
        if abandon is not None:
            abandon()
        wait(futures)
        raise
    return [future.result() for future in futures]


def independent_copy(model: Any) -> nn.Module | None:
    """A copy that shares nothing with ``model`` that a forward pass could write to, or None.

    None for what cannot be copied, and wherever copies might still meet: for all but torch's own layers
    and classes whose code, as far as a call of the model reaches (``certify.reached``), refers to nothing
    but torch, numbers, and code of the same kind. (``torch.nn.DataParallel`` asks as much of its replicas.)
    """
    if not isinstance(model, nn.Module) or not _made_of_torch(model):
        return None
    try:
        twin = copy.deepcopy(model)
    except Exception:  # an object that cannot be copied may raise anything
        return None
    return twin if _apart(model, twin) else None


def keeps_to_itself(function: Callable[[torch.Tensor], Any], rows: torch.Tensor) -> bool:
    """Whether torch draws no random numbers and writes to no memory but the rows and what the call made.

    Copies do not help a model that writes to a tensor of its class or of its module: all lanes would
    write to the same one. Evaluates ``rows`` twice; False also where this cannot be watched.
    """
    try:
        function(rows.clone())  # memory that a first call sets aside is there from now on
        with _Writes(rows) as writes:
            function(rows)
    except Exception:  # a model may refuse to be watched with any error; a real one comes back unwatched
        return False
    return not writes.elsewhere


def lanes_worth_trying(model: Any) -> int:
    """How many lanes the machine has room for: 1 where copies would take too much memory."""
    threads = torch.get_num_threads()
    if not isinstance(model, nn.Module):
        return 1
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return threads if size * threads <= COPIES_BYTES else 1


class _Writes(TorchDispatchMode):
    """Watches the torch operations of this thread for random numbers and writes to memory from before."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.elsewhere = False
        self._own = {rows.untyped_storage().data_ptr()}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # keeping torch's compiler away from this would import it, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.elsewhere |= torch.Tag.nondeterministic_seeded in func.tags
        given = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for t in tree_leaves(named.get(argument.name)):
                    self.elsewhere |= isinstance(t, torch.Tensor) and _memory(t) not in self._own
        out = func(*args, **kwargs)
        # What the operation was not given it has made; views share what they are of.
        self._own |= {_memory(t) for t in tree_leaves(out) if isinstance(t, torch.Tensor)} - given
        return out


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _made_of_torch(model: nn.Module) -> bool:
    """Whether all code that a call reaches refers to torch, to numbers and to code of the same kind only."""
    reached = Reached(model)
    kinds = {kind for part in model.modules() for kind in type(part).__mro__}
    if "OptimizedModule" in {kind.__name__ for kind in kinds}:
        return False
    if reached.everything or any(altered(part) for part in model.modules()):
        return False
    if any(library(kind.__module__) and not _of_torch(kind) for kind in kinds):
        return False
    if any(
        isinstance(p, torch.jit.ScriptModule) or type(p).__name__ == "OptimizedModule"
        for p in model.modules()
    ):
        return False  # their code is not Python's to read
    if reached.names & _RANDOM or any(_writes(function.__code__) for function in reached.functions):
        return False
    return all(_harmless(value) for value in reached.shared)


def _harmless(value: Any) -> bool:
    """Whether a value that copies share can be written to by nobody: numbers, names, and code."""
    if isinstance(value, tuple | frozenset):
        return all(_harmless(item) for item in value)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.ModuleType | type):
        return _of_torch(value) or not library(_module(value))  # one's own is reached, and read, in turn
    return isinstance(value, _CONSTANTS) or type(value).__module__ in ("torch._ops", "typing", "types")


def _of_torch(thing: Any) -> bool:
    return _module(thing).split(".")[0] in _TRUSTED


def _module(thing: Any) -> str:
    return str(thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__ or "torch")


def _writes(code: types.CodeType) -> bool:
    """Whether code assigns attributes, or variables that are not its own."""
    if code.co_name == "__init__":
        return False
    steps = ((part, step) for part in codes_in(code) for step in dis.get_instructions(part))
    return any(
        step.opname in _STORES or (step.opname == "STORE_DEREF" and step.argval in part.co_freevars)
        for part, step in steps
    )


def _apart(model: nn.Module, twin: nn.Module) -> bool:
    """Whether no tensor, module or container of one is an object of the other."""
    ours = {id(m) for m in model.modules()} | {t.data_ptr() for t in _tensors(model) if t.numel()}
    theirs = {id(m) for m in twin.modules()} | {t.data_ptr() for t in _tensors(twin) if t.numel()}
    return not ours & theirs


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads whose torch operations use one core. Keyed by the process: threads do not survive a fork."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="certify-lane")
    all_there = Barrier(threads)

    def settle() -> None:
        torch.get_num_threads()  # a thread's first question sets its number: ask before setting it
        torch.set_num_threads(1)
        all_there.wait()

    wanted = torch.get_num_threads()
    wait([pool.submit(settle) for _ in range(threads)])
    # The number holds for the thread that sets it; threads that are born later inherit the last one set.
    torch.set_num_threads(wanted)
    return pool


__all__ = ["independent_copy", "keeps_to_itself", "lanes_worth_trying", "run_in_lanes"]
