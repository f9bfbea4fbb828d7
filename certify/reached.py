"""All code that a call of a model can run, as far as names tell, and what that code refers to.

From ``forward`` on, every function of a model's classes that is named by code found so far counts as
reached; so do the functions, classes and objects that it loads from its module, captures, has as defaults
or finds in attributes. What code loads by a name that is made up while it runs (``getattr`` with a computed
name, ``eval``) cannot be told: then everything counts as named.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

#: Where calling a model begins; the last two are the protocol of networks with noise inside.
ENTRIES = frozenset({"forward", "__call__", "noisy_logits", "noise_stages"})
#: What every torch module holds by itself: weights and parts are read elsewhere, hooks apart.
INTERNAL = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
#: Names with which code looks attributes up that it does not name.
_MADE_UP = frozenset({"getattr", "vars", "__dict__", "eval", "exec", "attrgetter", "__getattribute__"})
_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}
_CONTAINERS = (list, tuple, set, frozenset, dict)
#: Objects visited before everything counts as named.
_MOST = 20_000


class Reached:
    """What a call of ``network`` and its parts can reach.

    ``names``: all that reached code loads by name, and every string in it. ``functions``: the reached ones
    that belong to no library. ``shared``: what reached code finds outside of the instances at hand (globals,
    captured variables, defaults, attributes of classes). ``everything``: whether names may be made up.
    """

    def __init__(self, network: nn.Module) -> None:
        self.names: set[str] = set(ENTRIES)
        self.functions: list[types.FunctionType] = []
        self.shared: list[Any] = []
        self.everything = False
        self._seen: dict[int, Any] = {}  # the object is kept, so that its id stays its own
        self._kinds: dict[type, None] = {}
        self._modules: list[nn.Module] = []
        self._files: list[types.ModuleType] = []
        self._visit(network)
        before = (-1, -1)
        while before != (before := (len(self.names), len(self._seen))):
            self._follow_names()

    def named(self, part: nn.Module) -> dict[str, Any]:
        """The attributes of a module that reached code names; all of them where names may be made up."""
        own = own_attributes(part)
        return own if self.everything else {k: v for k, v in own.items() if k in self.names}

    def methods(self, kind: type) -> dict[str, Any]:
        """What a class holds under names that reached code loads."""
        whole = self.everything and not library(kind.__module__)
        held = {k: v for k, v in vars(kind).items() if k in self.names or (whole and k != "__init__")}
        return {k: v for k, v in held.items() if k not in _OF_EVERY_CLASS}

    def _follow_names(self) -> None:
        for part in list(self._modules):
            self._visit_all(self.named(part).values())
        for kind in list(self._kinds):
            for value in self.methods(kind).values():
                if _inside(value) is None and not library(kind.__module__):
                    self.shared.append(value)
                self._visit(value)
        for file in self._files:
            self._visit_all(vars(file)[name] for name in self.names & set(vars(file)))

    def _visit_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self._visit(value)

    def _visit(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, bool | int | float | complex | str | bytes):
            return
        self._seen[id(value)] = value
        if len(self._seen) > _MOST:
            self.everything = True
            return
        if isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, nn.Module):
            self._modules.append(value)
            for kind in type(value).__mro__:
                if kind not in (nn.Module, object):
                    self._kinds[kind] = None
            hooks = [*value._forward_pre_hooks.values(), *value._forward_hooks.values()]
            self._visit_all([*hooks, *value._modules.values()])
        elif isinstance(value, types.ModuleType):
            if not library(value.__name__):
                self._files.append(value)
        elif isinstance(value, _CONTAINERS):
            self._visit_all(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, type):
            if not from_library(value):
                self._visit_all([*value.__bases__, *vars(value).values()])
                self.shared += [
                    v for k, v in vars(value).items() if k not in _OF_EVERY_CLASS and _inside(v) is None
                ]
        elif (inner := _inside(value)) is not None:
            self._visit_all(inner)
        elif not library(type(value).__module__):
            self._visit(type(value))
            self._visit_all(getattr(value, "__dict__", {}).values())

    def _visit_function(self, function: types.FunctionType) -> None:
        captured = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        code_names = names_of(function.__code__)
        self.names |= code_names | _strings(function.__code__)
        if library(function.__module__ or "") and not made_while_running(function):
            self._visit_all(captured)  # a decorator's function keeps what it decorates
            return
        self.functions.append(function)
        self.everything |= bool(code_names & _MADE_UP)
        found = [value for _, value in globals_of(function)]
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        self.shared += [*found, *captured, *defaults]
        self._visit_all([*found, *captured, *defaults, *vars(function).values()])


def own_attributes(part: nn.Module) -> dict[str, Any]:
    """What a module holds beside what every torch module holds, and what this package wrote on it."""
    return {k: v for k, v in vars(part).items() if k not in INTERNAL and not k.startswith("certify_")}


#: What Python writes into every class, which says nothing about what the class does.
_OF_EVERY_CLASS = frozenset({"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__",
                             "__annotations__", "__slotnames__", "__firstlineno__", "__static_attributes__",
                             "__annotate_func__", "__annotations_cache__", "__parameters__",
                             "__orig_bases__", "__abstractmethods__", "_abc_impl"})  # fmt: skip


def _inside(value: Any) -> list[Any] | None:
    """The functions inside a method, property, partial and the like; None for what is no code."""
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return [value]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset) if f is not None]
    if isinstance(value, functools.cached_property):
        return [value.func]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    # What functools.lru_cache and the like put around a function.
    inner = None if isinstance(value, nn.Module) else getattr(value, "__wrapped__", None)
    return [inner] if isinstance(inner, types.FunctionType) else None


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable that is assigned later
        return False
    return True


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and all code inside it (lambdas, comprehensions, inner functions)."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


def names_of(code: types.CodeType) -> frozenset[str]:
    """Every global, attribute and method name in the code and the code inside it."""
    return frozenset(name for part in codes_in(code) for name in part.co_names)


def _strings(code: types.CodeType) -> set[str]:
    return {c for part in codes_in(code) for c in part.co_consts if isinstance(c, str) and c.isidentifier()}


def globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Global names that the code loads, and modules that it imports, with what they stand for now."""
    found: dict[str, Any] = {}
    for code in codes_in(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname in _LOADS:
                name = str(step.argval)
                known = sys.modules if step.opname == "IMPORT_NAME" else function.__globals__
                if name in known:
                    found[name] = known[name]
    yield from sorted(found.items())


@functools.cache
def library(module: str) -> bool:
    """Whether a module belongs to Python, to this package or to what is installed beside it."""
    root = module.split(".")[0]
    if root in sys.stdlib_module_names or root in ("builtins", "certify"):
        return root != "__main__"
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def from_library(kind: type) -> bool:
    """Whether a class is what its library has under its name, and not one that was made while running."""
    if not library(kind.__module__):
        return False
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    # What was made in C has no Python code of its own, whether or not it can be found by its name.
    return found is kind or not any(isinstance(v, types.FunctionType | property) for v in vars(kind).values())


def made_while_running(function: types.FunctionType) -> bool:
    """Whether a function was compiled from text that a program wrote (a traced graph, say)."""
    file = function.__code__.co_filename
    return file.startswith("<") and not file.startswith(
        ("<string", "<frozen", "<stdin", "<__array_function__")
    )
