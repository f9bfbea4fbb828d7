"""What a plain function is made of, as digests: its code and everything that the code refers to.

A torch module is told apart by its weights. A function has none to show, and two that agree on every
probe may still be different classifiers. So its bytecode is read, with constants, defaults, captured
variables, the attributes of a bound object, and the global names that the code loads, and from each on
to whatever it refers to in turn. Installed libraries count by name and version.

Not seen: names looked up while the function runs (``getattr``, files, other processes). What has no
readable content (open files, objects of C extensions) is named as unchecked rather than left out.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Values read for one part of a function, and how deep; what lies beyond is named as unchecked.
_MOST, _DEEPEST = 50_000, 60
_NUMBERS = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis), range, slice)
_TORCH_NAMES = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)
_CONTAINERS = (list, tuple, set, frozenset, dict, types.MappingProxyType)
_CONTAINERS += (staticmethod, classmethod, property)
_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}
#: What Python writes into every class, which says nothing about what the class does.
_OF_A_CLASS = {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__"}
_OF_A_CLASS |= {"__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"}


@dataclass(frozen=True)
class Contents:
    """Digest of each part of a function ("code", "captured w", "global scale"), and what has none."""

    parts: Mapping[str, str]
    unchecked: tuple[str, ...] = ()

    def constant(self, later: Contents) -> Contents:
        """Without the parts that a call changed: counters and caches are no content."""
        kept = {name: digest for name, digest in self.parts.items() if later.parts.get(name) == digest}
        moved = {f"{name}: changes when it is called" for name in {*self.parts, *later.parts} - set(kept)}
        return Contents(kept, tuple(sorted({*self.unchecked, *later.unchecked, *moved})))


def contents(function: Any) -> Contents:
    """The parts of ``function``, a callable that is no torch module."""
    parts, unchecked = {}, set()
    for name, value, names in _parts(function):
        reader = _Reader()
        found = _hash(parts.get(name, ""), reader.read(value, names))  # two may have one name: both count
        parts[name] = found.hex()[:32]
        unchecked |= {f"{name}: {what}" for what in reader.unchecked}
    return Contents(parts, tuple(sorted(unchecked)))


def _parts(function: Any) -> Iterator[tuple[str, Any, frozenset[str]]]:
    """(name, value, names its code loads) of what makes up a callable."""
    none: frozenset[str] = frozenset()
    if (inside := getattr(function, "_torchdynamo_orig_callable", None)) is not None:
        yield "compiled", True, none  # the rest of what torch.compile adds is caches and counters
        yield from _parts(inside)
    elif isinstance(function, functools.partial):
        yield "arguments", (function.args, function.keywords), none
        yield from _parts(function.func)
    elif isinstance(function, types.MethodType):
        yield from _parts(function.__func__)
        yield from _of_object("self.", function.__self__)
    elif isinstance(function, types.FunctionType) and not _library(function.__module__ or ""):
        yield "code", function.__code__, none
        yield "defaults", (function.__defaults__, function.__kwdefaults__), none
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield f"captured {name}", cell, none
        names = _names(function.__code__)
        for name, value in _globals(function):
            yield f"global {name}", value, names
        for name, value in sorted(vars(function).items()):
            yield f"attribute {name}", value, none
    else:
        yield from _of_object("attribute ", function)


def _of_object(prefix: str, owner: Any) -> Iterator[tuple[str, Any, frozenset[str]]]:
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
    if isinstance(owner, nn.Module | type | types.FunctionType) or _library(type(owner).__module__):
        return {}
    return getattr(owner, "__dict__", {})


def _pickled(value: Any) -> Any:
    """What an object gives to be pickled; an error where it holds what Python cannot see."""
    reduce = copyreg.dispatch_table.get(type(value))
    return value.__reduce_ex__(2) if reduce is None else reduce(value)


class _Reader:
    """SHA-256 of values, of any type and in any arrangement, also where they refer to themselves."""

    def __init__(self) -> None:
        self.unchecked: set[str] = set()
        self._left = _MOST
        self._open: list[int] = []
        self._known: dict[int, tuple[Any, bytes]] = {}  # the object is kept, so that its id stays its own

    def read(self, value: Any, names: frozenset[str] = frozenset()) -> bytes:
        """The digest of ``value``; ``names`` are those that the code at hand loads from modules."""
        key = id(value)
        if key in self._open:
            return _hash("again", str(len(self._open) - self._open.index(key)))
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
        return _hash("unchecked", what)

    def _all(self, kind: str, values: Iterable[Any]) -> bytes:
        return _hash(kind, *(self.read(value) for value in values))

    def _content(self, value: Any, names: frozenset[str]) -> bytes:
        if isinstance(value, _NUMBERS) and type(value) in _NUMBERS:
            return _hash(type(value).__name__, repr(value))
        if isinstance(value, _TORCH_NAMES):
            return _hash("name", repr(value))
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
            return _hash("builtin", value.__qualname__, self.read(owner))
        if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType):
            return _hash("builtin", value.__qualname__, self.read(value.__objclass__))
        return self._container(value) if type(value) in _CONTAINERS else self._object(value)

    def _container(self, value: Any) -> bytes:
        kind = type(value).__name__
        if isinstance(value, list | tuple):
            return self._all(kind, value)
        if isinstance(value, set | frozenset):
            return _hash(kind, *sorted(self.read(item) for item in value))
        if isinstance(value, dict | types.MappingProxyType):
            rows = sorted(((self.read(k), v) for k, v in value.items()), key=lambda row: row[0])
            return _hash(kind, *(digest + self.read(v) for digest, v in rows))
        return _hash(kind, self.read(value.fget if isinstance(value, property) else value.__func__))

    def _object(self, value: Any) -> bytes:
        """Any other object: its class, its attributes, and what it gives to be pickled."""
        kind, own = self.read(type(value)), self.read(_attributes(value))
        try:
            found = _pickled(value)
        except Exception:  # an object that cannot be pickled may raise anything; it is named as unread
            return _hash("object", kind, own, self._unread(f"a {_name(type(value))}"))
        if isinstance(found, str):
            return _hash("object", kind, str(getattr(value, "__module__", "")), found)
        return _hash("object", kind, own, self._all("", [list(f) if _items(f) else f for f in found]))

    def _tensor(self, value: Tensor) -> bytes:
        from certify.checkpoints import tensor_digest

        return _hash("tensor", tensor_digest({"": value.detach()}))

    def _array(self, value: np.ndarray) -> bytes:
        if value.dtype.hasobject:
            return _hash("array", str(value.shape), self.read(value.ravel().tolist()))
        return _hash("array", value.dtype.str, str(value.shape), np.ascontiguousarray(value).tobytes())

    def _code(self, code: types.CodeType) -> bytes:
        """Bytecode and what it indexes; not its file, its lines or the names of its variables."""
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        tables = (code.co_code, code.co_exceptiontable, repr(shape), repr(code.co_names))
        return _hash("code", *tables, self._all("", code.co_consts))

    def _function(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType) and _library(value.__module__ or ""):
            # A decorator's function keeps what it decorates.
            captured = [] if value.__closure__ is None else list(value.__closure__)
            return _hash("library", value.__qualname__, _version(value.__module__), self._all("", captured))
        rows = [(name, self.read(part, loaded)) for name, part, loaded in _parts(value)]
        return _hash("function", *(item for row in rows for item in row))

    def _class(self, kind: type) -> bytes:
        if _library(kind.__module__):
            return _hash("library", _name(kind), _version(kind.__module__))
        held = {k: v for k, v in vars(kind).items() if k not in _OF_A_CLASS and not k.startswith("_abc_")}
        held = {k: v for k, v in held.items() if not isinstance(v, types.MemberDescriptorType)}
        return _hash("class", _name(kind), self._all("bases", kind.__bases__), self.read(held))

    def _network(self, network: nn.Module) -> bytes:
        """Weights, classes and settings of a torch module and its parts; an ONNX file by its bytes."""
        rows = []
        for name, part in network.named_modules():
            rows += [name, self.read(type(part))]
            if (file := getattr(part, "file_digest", None)) is not None:
                rows.append(str(file))
            elif type(part).__name__ != "OptimizedModule":  # torch.compile's own caches
                held = {k: v for k, v in vars(part).items() if not k.startswith("_")}
                hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
                rows += [self.read(held), self._all("hooks", hooks)]
            if isinstance(part, torch.jit.ScriptModule):
                rows.append(str(getattr(part, "code", "")))
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        return _hash("network", *rows, self.read(tensors))

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> bytes:
        """An installed library by its version; a file of the user's by what the code loads from it."""
        if _library(module.__name__):
            return _hash("library", module.__name__, _version(module.__name__))
        used = [(name, vars(module)[name]) for name in sorted(names & set(vars(module)))]
        return _hash("module", *(part for name, v in used for part in (name, self.read(v, names))))


def _hash(kind: str, *parts: str | bytes) -> bytes:
    sha = hashlib.sha256(kind.encode())
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        sha.update(b" %d:" % len(data))
        sha.update(data)
    return sha.digest()


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _names(code: types.CodeType) -> frozenset[str]:
    return frozenset(name for part in _nested(code) for name in part.co_names)


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Global names that the code loads, and modules that it imports, with what they stand for now."""
    found: dict[str, Any] = {}
    for code in _nested(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname in _LOADS:
                name = str(step.argval)
                known = sys.modules if step.opname == "IMPORT_NAME" else function.__globals__
                if name in known:
                    found[name] = known[name]
    yield from sorted(found.items())


def _items(value: Any) -> bool:
    """Whether this is a pickled list's or dictionary's iterator over its items."""
    return isinstance(value, Iterator) and not isinstance(value, type)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@functools.cache
def _library(module: str) -> bool:
    """Whether a module belongs to Python, to this package or to what is installed beside it."""
    root = module.split(".")[0]
    if root in sys.stdlib_module_names or root in ("builtins", "certify"):
        return root != "__main__"
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _version(module: str | None) -> str:
    return str(getattr(sys.modules.get((module or "").split(".")[0]), "__version__", ""))
