"""Process-wide state that a forward pass may not touch: random generators and settings.

A model that draws from a global generator, or seeds one, is a fixed function at most as long as nothing
else in the process does the same. So calls are tried with every generator in a state that nobody can
foresee: a model that reads one answers differently the next time, one that writes to it is seen at once.
"""

from __future__ import annotations

import pickle
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.modules import module as torch_module

from certify.errors import NondeterministicModel
from certify.sampling.arithmetic import arithmetic

Answer = TypeVar("Answer")
#: Another thread of the process may draw numbers meanwhile; a model does so every time.
_ATTEMPTS = 3


def undisturbed(call: Callable[[], Answer], device: torch.device) -> Answer:
    """What ``call`` returns; raises NondeterministicModel where it touches what the process shares.

    The generators of torch, numpy and Python are put into fresh states before the call and back into
    their own afterwards.
    """
    settings = _settings(device)
    found, touched = None, set[str]()
    for attempt in range(_ATTEMPTS):
        with _fresh_generators(device) as changed:
            found = call()
            now = changed()
        touched = now if attempt == 0 else touched & now
        if not touched:
            break
    changed_settings = [name for name, value in _settings(device).items() if settings[name] != value]
    if touched or changed_settings:
        raise NondeterministicModel(
            f"the model touches {', '.join(sorted(touched) or changed_settings)}",
            why="the whole process shares it: a forward pass that reads, seeds or changes it is no fixed "
            "function of its input",
            remedy="draw random numbers once and keep them in a buffer; change torch's settings elsewhere",
        )
    return found  # type: ignore[return-value]


@contextmanager
def _fresh_generators(device: torch.device) -> Iterator[Callable[[], set[str]]]:
    """Every global generator in a state of its own; yields a function that names those that moved since."""
    before = _states(device)
    torch.default_generator.manual_seed(secrets.randbits(63))
    np.random.seed(secrets.randbits(32))  # noqa: NPY002
    random.seed(secrets.token_bytes(32))
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(secrets.randbits(63))
    fresh = _states(device)
    try:
        yield lambda: {name for name, state in _states(device).items() if not _same(state, fresh[name])}
    finally:
        torch.set_rng_state(before["torch's random generator"])
        np.random.set_state(before["numpy's random generator"])  # noqa: NPY002
        random.setstate(before["Python's random generator"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(before["CUDA's random generator"], device)


def _states(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {
        "torch's random generator": torch.get_rng_state(),
        "numpy's random generator": np.random.get_state(),  # noqa: NPY002
        "Python's random generator": random.getstate(),
    }
    if device.type == "cuda":
        found["CUDA's random generator"] = torch.cuda.get_rng_state(device)
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return pickle.dumps(one) == pickle.dumps(other)


def _settings(device: torch.device) -> dict[str, Any]:
    """Modes and settings by name, those of this thread included."""
    return {
        "the default dtype": torch.get_default_dtype(),
        "the default device": str(torch.get_default_device()),
        "the gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "anomaly detection": torch.is_anomaly_enabled(),
        "numpy's error settings": tuple(np.geterr().items()),
        "the hooks on all modules": (
            len(torch_module._global_forward_hooks),
            len(torch_module._global_forward_pre_hooks),
        ),
        **{f"torch's setting {name}": value for name, value in arithmetic(device)},
    }


__all__ = ["undisturbed"]
