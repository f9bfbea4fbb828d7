"""SHA-256 of any value, so that two that decide alike have one digest and others have another.

Code is read as bytecode with what it indexes, objects by their attributes and what they give to be
pickled, torch modules by structure, code, attributes and weights, installed libraries by name and version.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from certify.reached import (
    Reached,
    from_library,
    globals_of,
    library,
    made_while_running,
    names_of,
    own_attributes,
)

#: Values read for one part of a function, and how deep; what lies beyond is named as unchecked.
_MOST, _DEEPEST = 50_000, 60
_NUMBERS = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis), range, slice)
_TORCH_NAMES = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)
_CONTAINERS = (list, tuple, set, frozenset, dict, types.MappingProxyType)
_CONTAINERS += (staticmethod, classmethod, property)
_PLAIN = (Tensor, nn.Parameter, nn.Buffer, type(None))
_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType)
#: What Python writes into every class, which says nothing about what the class does.
_OF_A_CLASS = {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__"}
_OF_A_CLASS |= {
    "__slotnames__",
    "__firstlineno__",
    "__static_attributes__",
    "__annotate_func__",
    "__annotations_cache__",
}


def parts_of(function: Any) -> Iterator[tuple[str, Any, frozenset[str]]]:
    """(name, value, names its code loads) of what makes up a callable."""
    none: frozenset[str] = frozenset()
    if (inside := getattr(function, "_torchdynamo_orig_callable", None)) is not None:
        yield "compiled", True, none  # the rest of what torch.compile adds is caches and counters
        yield from parts_of(inside)
    elif isinstance(function, functools.partial):
        yield "arguments", (function.args, function.keywords), none
        yield from parts_of(function.func)
    elif isinstance(function, types.MethodType):
        yield from parts_of(function.__func__)
        yield from of_object("self.", function.__self__)
    elif isinstance(function, types.FunctionType) and _own(function):
        yield "code", function.__code__, none
        yield "defaults", (function.__defaults__, function.__kwdefaults__), none
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield f"captured {name}", cell, none
        names = names_of(function.__code__)
        for name, value in globals_of(function):
            yield f"global {name}", value, names
        for name, value in sorted(vars(function).items()):
            yield f"attribute {name}", value, none
    else:
        yield from of_object("attribute ", function)


def _own(function: types.FunctionType) -> bool:
    return not library(function.__module__ or "") or made_while_running(function)


def of_object(prefix: str, owner: Any) -> Iterator[tuple[str, Any, frozenset[str]]]:
    """An object attribute by attribute, and as a whole where it is more than its attributes."""
    attributes = _attributes(owner)
    for name in sorted(attributes, key=str):
        yield f"{prefix}{name}", attributes[name], frozenset()
    try:
        plain = _pickled(owner)[2] is attributes
    except Exception:  # a stranger's object may refuse with any error
        plain = False
    yield ("class", type(owner), frozenset()) if plain else ("object", owner, frozenset())


def _attributes(owner: Any) -> dict[str, Any]:
    """Those of an object of the user's own class; a library's objects say themselves what they are."""
    if isinstance(owner, nn.Module | type | types.FunctionType) or library(type(owner).__module__):
        return {}
    return getattr(owner, "__dict__", {})


def _pickled(value: Any) -> Any:
    """What an object gives to be pickled; an error where it holds what Python cannot see."""
    reduce = copyreg.dispatch_table.get(type(value))
    return value.__reduce_ex__(2) if reduce is None else reduce(value)


class Reader:
    """SHA-256 of values, of any type and in any arrangement, also where they refer to themselves.

    With ``reached`` torch modules count by what a call of them reaches, and libraries without their
    versions: the same network, whichever process or release made it, has the same digest.
    """

    def __init__(self, reached: Reached | None = None) -> None:
        self.unchecked: set[str] = set()
        self._reached = reached
        self._left = _MOST
        self._open: list[int] = []
        self._known: dict[int, tuple[Any, bytes]] = {}  # the object is kept, so that its id stays its own

    def read(self, value: Any, names: frozenset[str] = frozenset()) -> bytes:
        """The digest of ``value``; ``names`` are those that the code at hand loads from modules."""
        key = id(value)
        if key in self._open:
            return hashed("again", str(len(self._open) - self._open.index(key)))
        if key in self._known and not isinstance(value, types.ModuleType):
            return self._known[key][1]
        self._left -= 1
        if self._left < 0 or len(self._open) > _DEEPEST:
            return self._unread(f"more than {_MOST:,} values, or {_DEEPEST} inside each other")
        self._open.append(key)
        try:
            found = self._content(value, names)
        except Exception as error:  # a stranger's object may refuse to be read with any error
            found = self._unread(f"{_name(type(value))} ({type(error).__name__})")
        finally:
            self._open.pop()
        self._known[key] = value, found
        return found

    def _unread(self, what: str) -> bytes:
        self.unchecked.add(what)
        return hashed("unchecked", what)

    def _all(self, kind: str, values: Iterable[Any]) -> bytes:
        return hashed(kind, *(self.read(value) for value in values))

    def _content(self, value: Any, names: frozenset[str]) -> bytes:
        if isinstance(value, _NUMBERS) and type(value) in _NUMBERS:
            return hashed(type(value).__name__, repr(value))
        if isinstance(value, _TORCH_NAMES):
            return hashed("name", repr(value))
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(np.asarray(value))
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.CellType):
            return self.read(value.cell_contents)
        if isinstance(value, types.ModuleType):
            return self._module(value, names)
        if isinstance(value, nn.Module):
            return self._network(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            return self._function(value)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            owner = None if isinstance(value.__self__, types.ModuleType) else value.__self__
            return hashed("builtin", value.__qualname__, self.read(owner))
        if isinstance(value, _DESCRIPTORS):
            return hashed("builtin", value.__qualname__, self.read(value.__objclass__))
        return self._container(value) if type(value) in _CONTAINERS else self._object(value)

    def _container(self, value: Any) -> bytes:
        kind = type(value).__name__
        if isinstance(value, list | tuple):
            return self._all(kind, value)
        if isinstance(value, set | frozenset):
            return hashed(kind, *sorted(self.read(item) for item in value))
        if isinstance(value, dict | types.MappingProxyType):
            rows = sorted(((self.read(k), v) for k, v in value.items()), key=lambda row: row[0])
            return hashed(kind, *(digest + self.read(v) for digest, v in rows))
        return hashed(kind, self.read(value.fget if isinstance(value, property) else value.__func__))

    def _object(self, value: Any) -> bytes:
        """Any other object: its class, its attributes, and what it gives to be pickled."""
        kind, own = self.read(type(value)), self.read(_attributes(value))
        if isinstance(inner := getattr(value, "__wrapped__", None), types.FunctionType):
            own = hashed("around", own, self.read(inner))  # a cache says its function's name alone
        if isinstance(value, torch.jit.ScriptFunction):
            return hashed("script", str(value.code))
        try:
            found = _pickled(value)
        except Exception:  # an object that cannot be pickled may raise anything; it is named as unread
            return hashed("object", kind, own, self._unread(f"a {_name(type(value))}"))
        if isinstance(found, str):
            return hashed("object", kind, str(getattr(value, "__module__", "")), found)
        return hashed("object", kind, own, self._all("", [list(f) if _items(f) else f for f in found]))

    def _tensor(self, value: Tensor) -> bytes:
        from certify.checkpoints import tensor_digest

        return hashed("tensor", tensor_digest({"": value.detach()}))

    def _array(self, value: np.ndarray) -> bytes:
        if value.dtype.hasobject:
            return hashed("array", str(value.shape), self.read(value.ravel().tolist()))
        return hashed("array", value.dtype.str, str(value.shape), np.ascontiguousarray(value).tobytes())

    def _code(self, code: types.CodeType) -> bytes:
        """Bytecode and what it indexes; not its file, its lines or the names of its variables."""
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        tables = (code.co_code, code.co_exceptiontable, repr(shape), repr(code.co_names))
        return hashed("code", *tables, self._all("", code.co_consts))

    def _function(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType) and not _own(value):
            # A decorator's function keeps what it decorates.
            captured = [] if value.__closure__ is None else list(value.__closure__)
            return hashed(
                "library", value.__qualname__, self._version(value.__module__), self._all("", captured)
            )
        rows = [(name, self.read(part, loaded)) for name, part, loaded in parts_of(value)]
        return hashed("function", *(item for row in rows for item in row))

    def _class(self, kind: type) -> bytes:
        if from_library(kind):
            return hashed("library", _name(kind), self._version(kind.__module__))
        if self._reached is not None and issubclass(kind, nn.Module):
            held = self._reached.methods(kind)
        else:
            held = {k: v for k, v in vars(kind).items() if k not in _OF_A_CLASS and not k.startswith("_abc_")}
        held = {k: v for k, v in held.items() if not isinstance(v, types.MemberDescriptorType)}
        return hashed("class", _name(kind), self._all("bases", kind.__bases__), self.read(held))

    def _network(self, network: nn.Module) -> bytes:
        """A torch module and its parts: weights, classes and settings."""
        parts = self.network_parts(network)
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        return hashed("network", *(item for row in sorted(parts.items()) for item in row), self.read(tensors))

    def network_parts(self, network: nn.Module) -> dict[str, bytes]:
        """What a torch module is made of, weights apart: structure, code of classes, attributes, hooks."""
        structure: list[str] = []
        attributes: dict[str, list[str | bytes]] = {}
        hooks: list[str | bytes] = [self._all("all", of_all.values()) for of_all in _GLOBAL_HOOKS if of_all]
        paths: dict[int, str] = {}
        kinds: dict[type, None] = {}
        for path, part in network.named_modules(remove_duplicate=False):
            structure += [path, paths.setdefault(id(part), path), _name(type(part)), _state(part)]
            weights = [*part._parameters.items(), *part._buffers.items()]
            structure += [f"{name} {_name(type(t))}" for name, t in weights if type(t) not in _PLAIN]
            if paths[id(part)] != path:
                continue
            kinds |= dict.fromkeys(type(part).__mro__)
            for name, value in self._attributes(part).items():
                attributes.setdefault(name, []).extend([path, self.read(value)])
            if part._forward_pre_hooks or part._forward_hooks:
                own = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
                keyword = len(part._forward_pre_hooks_with_kwargs), len(part._forward_hooks_with_kwargs)
                hooks += [path, self._all("hooks", own), repr((keyword, len(part._forward_hooks)))]
        found = {"structure": hashed("structure", *structure)}
        found |= {f"attribute {name}": hashed("attribute", *rows) for name, rows in attributes.items()}
        found |= {"hooks": hashed("hooks", *hooks)} if hooks else {}
        for kind in kinds:
            if not from_library(kind):
                found[f"class {_name(kind)}"] = self.read(kind)
            elif self._reached is not None:
                for name, value in self._reached.methods(kind).items():
                    if isinstance(value, types.FunctionType) and not library(value.__module__ or ""):
                        found[f"replaced {_name(kind)}.{name}"] = self.read(value)
        return found

    def _attributes(self, part: nn.Module) -> dict[str, Any]:
        if type(part).__name__ == "OptimizedModule" or getattr(part, "file_digest", None) is not None:
            return {}  # torch.compile's own caches; a file that is named by its digest
        if self._reached is not None:
            return self._reached.named(part)
        return own_attributes(part)

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> bytes:
        """An installed library by its version; a file of the user's by what the code loads from it."""
        if library(module.__name__):
            return hashed("library", module.__name__, self._version(module.__name__))
        used = [(name, vars(module)[name]) for name in sorted(names & set(vars(module)))]
        return hashed("module", *(part for name, v in used for part in (name, self.read(v, names))))

    def _version(self, module: str | None) -> str:
        if self._reached is not None:
            return ""
        return str(getattr(sys.modules.get((module or "").split(".")[0]), "__version__", ""))


#: Hooks that torch calls for every module of the process.
_GLOBAL_HOOKS = (torch_module._global_forward_pre_hooks, torch_module._global_forward_hooks)


def _state(part: nn.Module) -> str:
    """Mode, a call compiled in place, and the code or file that a part was loaded from."""
    code = str(getattr(part, "code", "")) if isinstance(part, torch.jit.ScriptModule) else ""
    compiled = part.__dict__.get("_compiled_call_impl") is not None
    return repr((part.training, compiled, code, str(getattr(part, "file_digest", None))))


def hashed(kind: str, *parts: str | bytes) -> bytes:
    sha = hashlib.sha256(kind.encode())
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        sha.update(b" %d:" % len(data))
        sha.update(data)
    return sha.digest()


def _items(value: Any) -> bool:
    """Whether this is a pickled list's or dictionary's iterator over its items."""
    return isinstance(value, Iterator) and not isinstance(value, type)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
