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

import torch
from torch import nn

#: Copies of a model may take this much memory together.
COPIES_BYTES = 1 << 29


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
    scripted modules, hooks, and functions stored in a module that close over other objects. (This is
    what ``torch.nn.DataParallel`` asks of its replicas.)
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return None
    if any(_hooked(m) or _closes_over(m) for m in model.modules()):
        return None
    try:
        twin = copy.deepcopy(model)
    except Exception:  # an object that cannot be copied may raise anything
        return None
    return twin if _apart(model, twin) else None


def lanes_worth_trying(model: Any) -> int:
    """How many lanes the machine has room for: 1 where copies would take too much memory."""
    threads = torch.get_num_threads()
    if not isinstance(model, nn.Module):
        return 1
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return threads if size * threads <= COPIES_BYTES else 1


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _closes_over(module: nn.Module) -> bool:
    """Functions are copied by reference: what they close over would be shared."""
    return any(_is_closure(value) for value in vars(module).values())


def _is_closure(value: Any, depth: int = 3) -> bool:
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None
    if depth == 0:
        return False
    if isinstance(value, partial):
        value = [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        return False
    return any(_is_closure(item, depth - 1) for item in value)


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


__all__ = ["independent_copy", "lanes_worth_trying", "run_in_lanes"]
