"""Several batches at once on the CPU: one thread, one copy of the model, one buffer each.

A small network wastes most of a second core when every operation of a batch is split over the
cores, and the noise of the next batch waits for the last one. Lanes split the work by batches
instead. Counts are integers and rows in doubt are still decided alone, by the caller's own model
in the caller's own thread, so the votes are the same with any number of lanes.
"""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache, partial
from threading import Barrier
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Copies of a model may take this much memory together.
COPIES_BYTES = 1 << 29
#: What a class or a Python module may hold that a forward pass could write to.
_STATE = (torch.Tensor, nn.Module, np.ndarray, dict, list, set, bytearray)


def run_in_lanes(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of the tasks, each run in a thread of its own whose torch operations use one core.

    Ends when all have ended; raises the first error in order.
    """
    pool = _pool(os.getpid(), len(tasks))
    futures: list[Future[Any]] = [pool.submit(task) for task in tasks]
    wait(futures)
    return [future.result() for future in futures]


def independent_copy(model: Any) -> nn.Module | None:
    """A copy that shares nothing with ``model`` that a forward pass could write to, or None.

    None for what cannot be copied or whose copies might still meet: callables that are no module,
    scripted modules, hooks, functions of others' stored in a module, and modules whose class holds, or whose
    methods name, tensors, modules or containers. (``torch.nn.DataParallel`` asks as much of its replicas.)
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return None
    if any(_hooked(m) or _reaches_out(m) for m in model.modules()):
        return None
    try:
        twin = copy.deepcopy(model)
    except Exception:  # an object that cannot be copied may raise anything
        return None
    return twin if _apart(model, twin) else None


def keeps_to_itself(function: Callable[[torch.Tensor], Any], rows: torch.Tensor) -> bool:
    """Whether torch writes to no memory but the rows and what the call itself made.

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
    """Watches every torch operation of this thread for writes to memory that was there before."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.elsewhere = False
        self._own = {rows.untyped_storage().data_ptr()}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # keeping torch's compiler away from this would import it, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
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


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _reaches_out(module: nn.Module) -> bool:
    """Functions and classes are copied by reference: what they close over or hold would be shared."""
    if any(_is_shared(value) for value in vars(module).values()):
        return True
    kinds = [kind for kind in type(module).__mro__ if not _of_torch(kind)]
    held = [v for kind in kinds for name, v in vars(kind).items() if not name.startswith("__")]
    for value in [v for kind in kinds for v in vars(kind).values() if isinstance(v, types.FunctionType)]:
        held += [value.__globals__.get(name) for name in value.__code__.co_names]
    return any(isinstance(value, _STATE) for value in held)


def _is_shared(value: Any, depth: int = 3) -> bool:
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None or not _of_torch(value)
    if depth == 0:
        return False
    if isinstance(value, partial):
        value = [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        return False
    return any(_is_shared(item, depth - 1) for item in value)


def _of_torch(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] in ("torch", "builtins", "typing")


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
