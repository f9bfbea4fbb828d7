"""Whether a torch module still computes what its class says: the one check that shortcuts and bounds share.

A shortcut or a bound that is derived from a module's class and tensors is about the class's own
``forward``. Hooks, methods put on the instance, a call that was compiled in place and a torch class
whose ``forward`` was replaced make the module another function, with the same class and tensors.
"""

from __future__ import annotations

import types
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

#: What a call of a module goes through; replaced in a class of torch's, every instance is another function.
_CALLED = ("forward", "_conv_forward", "__call__", "_wrapped_call_impl", "_call_impl")
_METHODS = (types.FunctionType, classmethod, staticmethod)


def altered(module: nn.Module) -> str | None:
    """What makes ``module(x)`` something else than its class's forward; None where nothing does.

    About this module alone: ask again for each of ``module.modules()``. Training mode, which changes
    what dropout and batch normalisation compute but not their class, is the caller's to check; so is
    which parametrization gives its tensors (``class_of``).
    """
    if module._forward_hooks or module._forward_pre_hooks:
        return "a forward hook"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "a forward hook on all modules of the process"
    if module.__dict__.get("_compiled_call_impl") is not None:
        return "a call that was compiled in place"
    shadowed = [name for name in module.__dict__ if isinstance(_of_class(module, name), _METHODS)]
    if shadowed:
        return f"a method {shadowed[0]} put on the instance"
    replaced = next((name for name in _CALLED if _replaced(type(module), name)), None)
    return None if replaced is None else f"a method {replaced} put on its class"


def class_of(module: nn.Module) -> type | None:
    """The module's class, seen through parametrizations of torch's own (weight_norm and its like).

    None where another parametrization gives its tensors: it may give other ones at every call.
    """
    if not parametrize.is_parametrized(module):
        return type(module)
    lists: Any = module.parametrizations
    parts = [part for held in lists.values() for part in held.modules()]
    own = ("torch.nn.utils.parametrizations", "torch.nn.utils.parametrize")
    if any(type(part).__module__ not in own or altered(part) for part in parts):
        return None
    return parametrize.type_before_parametrizations(module)


def _of_class(module: nn.Module, name: str) -> Any:
    """What the class holds under a name, methods as they are stored; None where it holds nothing."""
    return next((vars(kind)[name] for kind in type(module).__mro__ if name in vars(kind)), None)


def _replaced(kind: type, name: str) -> bool:
    """Whether a class of torch's holds, under this name, a function that was defined elsewhere."""
    owner = next((k for k in kind.__mro__ if name in vars(k)), None)
    if owner is None or not owner.__module__.startswith("torch."):
        return False
    method = vars(owner)[name]
    return not str(getattr(method, "__module__", "")).startswith("torch.")
