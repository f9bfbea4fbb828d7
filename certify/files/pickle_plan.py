"""What the pickle in a ``.pt`` file would build, worked out without unpickling it.

Tensors become plans (type, shape, strides, storage), so that a file can be judged before anything is
allocated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from certify.files.pickle_machine import Name, Opaque, RefusedPickle, run


@dataclass(frozen=True)
class StoragePlan:
    """A block of bytes in the archive: its element type, its entry's key, its element count."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorPlan:
    """A view of a storage. ``dtype`` is set where the storage itself is untyped."""

    storage: StoragePlan
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None


def plan(program: bytes | IO[bytes]) -> Any:
    """The object the pickle describes, with a TensorPlan for every tensor and an Opaque for what needs code.

    Nothing is imported or called. Raises RefusedPickle for names that run programs or open files, for
    calls of functions of Python, torch and numpy outside a list of inert ones, and for unknown instructions.
    """
    return run(program, _Tensors())


class _Tensors:
    """The globals that torch.save writes: tensors are planned, all else is named and left unbuilt."""

    def allow(self, name: Name) -> None:
        root = name.module.partition(".")[0]
        if (
            root in _PROGRAMS
            or str(name).startswith(_LOADERS)
            or (root in _BUILTINS and name.name not in _PLAIN)
        ):
            raise RefusedPickle(f"it refers to {_shown(name)}, which is code, not numbers")

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        name = str(function)
        rebuild = _REDUCTIONS.get(name)
        if rebuild is not None:
            return rebuild(*arguments)
        if name in ("copyreg._reconstructor", "copy_reg._reconstructor"):
            return self.new(arguments[0], ()) if isinstance(arguments[0], Name) else Opaque("an object")
        inert = name.startswith(_INERT) or (function.module in _BUILTINS and function.name in _PLAIN)
        if not inert and name.partition(".")[0] in _KNOWN:
            raise RefusedPickle(f"it calls {_shown(function)}, which is code, not numbers")
        return Opaque(_LABELS.get(name, f"a {_shown(function)} object"))

    def new(self, kind: Name, arguments: tuple[Any, ...]) -> Any:
        return Opaque(f"a {_shown(kind)} object")

    def build(self, target: Any, state: Any) -> Any:
        # Of a state dict this is its _metadata, which loading ignores here.
        if not isinstance(target, dict | Opaque):
            raise RefusedPickle("it sets the state of an object")
        return target

    def persistent(self, token: Any) -> Any:
        if token[0] == "module" and isinstance(token[1], Name):
            return token[1]  # torch before 1.6 keeps the source of a network's class beside it
        tag, kind, key, _location, count, *view = token  # and a view, which is None in practice
        known = isinstance(kind, Name) and (kind.name in STORAGE_DTYPES or str(kind) == _UNTYPED)
        if isinstance(kind, Name) and kind.module == "torch" and kind.name.endswith("Storage") and not known:
            return Opaque(f"a {_shown(kind)}")  # of quantized numbers
        whole = view in ([], [None])
        if tag != "storage" or not known or not isinstance(key, str) or type(count) is not int or not whole:
            raise RefusedPickle("it refers to something that is no storage")
        return StoragePlan(kind.name, key, count)


def _shown(name: Name) -> str:
    """A name from a file, fit to be printed."""
    return ascii(str(name))[1:-1][:100]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorPlan:
    sizes_ok = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    numbers = (offset, *shape, *strides) if sizes_ok else (None,)
    if not isinstance(storage, StoragePlan) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedPickle("a tensor's storage, offset, shape or strides are not what torch.save writes")
    return TensorPlan(storage, offset, shape, strides)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any
) -> TensorPlan:
    view = _tensor(storage, offset, shape, strides)
    if not isinstance(dtype, Name) or dtype.name not in DTYPES:
        raise RefusedPickle("a tensor has no element type")
    return TensorPlan(view.storage, view.offset, view.shape, view.strides, dtype.name)


def _parameter(data: Any, *rest: Any) -> Any:
    if not isinstance(data, TensorPlan):
        raise RefusedPickle("a parameter holds something that is no tensor")
    return data


def _ordered_dict(*items: Any) -> dict[Any, Any]:
    if items:
        raise RefusedPickle("it fills an OrderedDict in an unusual way")
    return {}


def _counted_dict(*items: Any) -> dict[Any, Any]:
    """A Counter of the words it counts, or a defaultdict, which is filled afterwards."""
    return items[0] if items and isinstance(items[0], dict) else {}


_UNTYPED = "torch.storage.UntypedStorage"
#: Element type of each typed storage.
STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}  # fmt: skip
#: Bytes per element of each type a tensor may have.
DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _counted_dict,
    "collections.Counter": _counted_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": lambda sizes: tuple(sizes),
}
#: Modules whose functions start programs, run code or open files: no genuine checkpoint names one.
_PROGRAMS = {
    "os", "posix", "nt", "posixpath", "ntpath", "subprocess", "sys", "shutil", "socket", "runpy",
    "importlib", "imp", "ctypes", "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib",
    "marshal", "code", "codeop", "pty", "commands", "webbrowser", "timeit", "pdb", "bdb", "cProfile",
    "profile", "trace", "pip", "pkgutil", "pydoc", "asyncio", "multiprocessing", "threading", "signal",
    "tempfile", "glob", "io", "_io", "shelve", "zipimport", "linecache", "inspect", "gc", "http", "urllib",
    "ftplib", "smtplib", "telnetlib", "xmlrpc", "concurrent", "distutils", "setuptools", "idlelib", "IPython",
}  # fmt: skip
_LOADERS = (
    "torch.load", "torch.hub", "torch.jit", "torch.package", "torch.serialization.load",
    "torch.storage._load", "torch.utils.cpp", "torch.ops", "numpy.load", "numpy.f2py", "numpy.testing",
    "pandas.read", "pandas.eval", "types.Code", "types.Function",
)  # fmt: skip
_BUILTINS = ("builtins", "__builtin__")
#: Builtins that hold values.
_PLAIN = {
    "set", "frozenset", "complex", "slice", "range", "int", "float", "str", "bool", "list", "dict", "tuple",
    "bytes", "bytearray", "object", "xrange", "long", "unicode",
}  # fmt: skip
#: Calls that only make a value: what stands beside weights is made of these.
_INERT = (
    "numpy.core.multiarray.", "numpy._core.multiarray.", "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer", "numpy.dtype", "numpy.random._pickle.",
    "numpy.ma.core._mareconstruct", "_codecs.encode", "argparse.Namespace", "types.SimpleNamespace",
    "collections.deque", "collections.ChainMap", "datetime.", "pathlib.", "decimal.Decimal",
    "fractions.Fraction", "uuid.UUID", "functools.partial", "enum.", "copyreg.__newobj__",
    "torch._utils._rebuild_", "torch._tensor._rebuild_", "torch.serialization._get_layout", "torch.device",
    "torch.Generator", "torch.nn.parameter.", "operator.attrgetter", "operator.itemgetter", "random.Random",
    "re._compile", "zoneinfo.ZoneInfo",
)  # fmt: skip
_NUMPY = ("numpy.core.multiarray.", "numpy._core.multiarray.")
_LABELS = {
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "numpy.core.numeric._frombuffer": "a numpy array",
    "numpy._core.numeric._frombuffer": "a numpy array",
    **{f"{module}scalar": "a numpy number" for module in _NUMPY},
    **{f"{module}_reconstruct": "a numpy array" for module in _NUMPY},
}
#: Where a function is judged by its name: all others are a stranger's own classes, which stay unbuilt.
_KNOWN = {*sys.stdlib_module_names, "torch", "numpy"} - {"__main__"}
