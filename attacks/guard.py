"""An attack leaves no trace on the model or on the global random state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: Callable) -> Iterator[None]:
    """Evaluate ``model`` in eval mode and give everything back as it was.

    Restored whatever happens inside, an exception included: the train flag of every submodule (a
    BatchNorm the user froze stays frozen), every parameter's and buffer's ``.grad`` (the same
    object, with its values) and the global generators of torch (all devices), numpy and ``random``.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [(m, m.training) for m in modules]
    params = list(model.parameters()) if modules else []  # type: ignore[attr-defined]
    grads = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in params]
    cpu, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global state is what must be restored)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        for m, training in flags:
            m.training = training
        for p, grad, values in grads:
            if grad is not None and values is not None:
                grad.copy_(values)
            p.grad = grad
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
