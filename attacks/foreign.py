"""Attacks of other libraries, and plain functions, behind one signature: (x, y) -> x_adv.

What they return is a candidate, never a verdict. Recognised by how they are called, so that no library needs
to be installed that is not used:

- an object of torchattacks holds its own model and is called ``attack(x, y)``;
- an object of foolbox is called with a wrapped model, ``attack(fmodel, x, y, epsilons=eps)``;
- a function whose first parameter is called ``model`` (adversarial-library) gets model, x and y;
- any other callable gets x and y.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.threat import Threat
from certify.calls import shown
from certify.errors import CertifyError, InvalidSetting, MissingExtra


@dataclass(frozen=True)
class Foreign:
    """An attack that is not ours.

    ``name``: what records call it, such as ``torchattacks.CW``. ``search(x, y)``: candidates (rows, *shape)
    for inputs and labels (rows,). ``holds``: the model that it keeps for itself, None where it is given ours.
    ``aims``: the labels it is given are the classes to reach (torchattacks' mode "targeted(label)").
    """

    name: str
    search: Callable[[Tensor, Tensor], Any]
    holds: Any = None
    aims: bool = False


def foreign(tool: Any, model: Any, threat: Threat) -> Foreign:
    """``tool`` as an attack on ``model`` under ``threat``. Raises InvalidSetting for what is none."""
    if not callable(tool) or isinstance(tool, type):
        raise InvalidSetting(
            f"with_={shown(tool)} is no attack",
            why="it must be callable: an attack that is ready to run, or a function (x, y) -> x_adv"
            + (", and this is a class" if isinstance(tool, type) else ""),
            remedy="give an object, such as with_=torchattacks.CW(model)",
        )
    name = _name(tool)
    if hasattr(tool, "attack_mode") and hasattr(tool, "model"):
        return Foreign(name, functools.partial(_torchattacks, tool), tool.model, _aims(tool))
    if _is_foolbox(tool):
        return Foreign(name, functools.partial(_foolbox, tool, model, threat))
    if _first_parameter(tool) == "model":
        return Foreign(name, functools.partial(tool, model))
    return Foreign(name, tool)


def candidates(tool: Foreign, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """What ``tool`` proposes for ``x`` (rows, *shape) and ``y`` (rows,), in the shape and type of ``x``.

    ``seed`` sets the process's random generators, which is where these tools draw from; the caller gives them
    back. A row that is not finite becomes the input itself. Raises InvalidSetting where the tool fails, or
    returns something else than inputs.
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the tools draw from the global state)
    random.seed(seed)
    try:
        with torch.enable_grad():
            found = tool.search(x.clone(), y.clone())
    except (CertifyError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise InvalidSetting(
            f"{tool.name} failed on inputs of shape {tuple(x.shape)}",
            why=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
            remedy="see what it can take (many want images in [0, 1], some four classes or more), "
            "or use one of the presets",
        ) from error
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, Tensor) or found.shape != x.shape or not found.is_floating_point():
        got = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
        raise InvalidSetting(
            f"{tool.name} returned no inputs: {got}",
            why=f"candidates are floating-point numbers of the inputs' shape {tuple(x.shape)}, in their unit",
            remedy="return x_adv alone, one row for every row of x (torchattacks: set_return_type('float'))",
        )
    found = found.detach().to(x)
    fine = found.flatten(1).isfinite().all(1)
    return torch.where(fine.view(-1, *[1] * (x.dim() - 1)), found, x)


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """A list whose one number grows with the inputs that ``model``, if it is a module, is asked about."""
    asked = [0]

    def note(_module: Any, inputs: tuple[Any, ...]) -> None:
        asked[0] += len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() else 0

    handle = model.register_forward_pre_hook(note) if _hookable(model) else None
    try:
        yield asked
    finally:
        if handle is not None:
            handle.remove()


def _torchattacks(tool: Any, x: Tensor, y: Tensor) -> Any:
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise InvalidSetting(
            f"{_name(tool)} cannot take these inputs, which reach from {low:.4g} to {high:.4g}",
            why="torchattacks clips what it finds to [0, 1], wherever the inputs lie",
            remedy="put the normalisation into the model and give inputs in [0, 1], or use a preset",
        )
    return tool(x, y)


def _foolbox(tool: Any, model: Any, threat: Threat, x: Tensor, y: Tensor) -> Any:
    try:
        from foolbox import PyTorchModel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra(
            "an attack of foolbox needs foolbox", why=str(error), remedy="pip install foolbox"
        ) from error
    if not isinstance(model, nn.Module) or threat.ranged or threat.bounds is None:
        raise InvalidSetting(
            f"{_name(tool)} cannot attack this model under this threat",
            why="foolbox takes a torch module and inputs in one range (low, high)",
            remedy="give both, or a function (x, y) -> x_adv around the attack",
        )
    wrapped = PyTorchModel(model, bounds=threat.bounds, device=x.device)
    return tool(wrapped, x, y, epsilons=threat.eps)[1]


def _is_foolbox(tool: Any) -> bool:
    return any(c.__module__.partition(".")[0] == "foolbox" for c in type(tool).__mro__)


def _first_parameter(tool: Any) -> str | None:
    try:
        return next(iter(inspect.signature(tool).parameters), None)
    except (TypeError, ValueError):  # what is written in C may have no signature
        return None


def _aims(tool: Any) -> bool:
    return tool.attack_mode == "targeted(label)"


def _name(tool: Any) -> str:
    """``library.Name`` of an attack object or function, from wherever a partial hides it."""
    while isinstance(tool, functools.partial):
        tool = tool.func
    named = tool if hasattr(tool, "__qualname__") else type(tool)
    library = (getattr(named, "__module__", None) or "").partition(".")[0]
    own = named.__qualname__.rpartition(".")[2]
    return f"{library}.{own}" if library in ("torchattacks", "foolbox", "adv_lib") else own


def _hookable(model: Any) -> bool:
    return isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule)
