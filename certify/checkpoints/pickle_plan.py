"""What the pickle in a ``.pt`` file would build, worked out without unpickling it.

Tensors become plans (type, shape, strides, storage), so that a file can be judged before anything is
allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from certify.checkpoints.pickle_machine import Name, RefusedPickle, run


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


def plan(program: bytes) -> Any:
    """The object the pickle describes, with a TensorPlan for every tensor.

    Raises RefusedPickle for any instruction, name or structure outside the allowed few.
    """
    return run(program, _Tensors())


class _Tensors:
    """The globals that torch.save writes for dictionaries of tensors."""

    def allow(self, name: Name) -> None:
        storage = name.module == "torch" and name.name in STORAGE_DTYPES
        dtype = name.module == "torch" and name.name in DTYPES
        if not (storage or dtype or str(name) == _UNTYPED or str(name) in _REDUCTIONS):
            raise RefusedPickle(f"it refers to {name}, which is code, not numbers")

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        rebuild = _REDUCTIONS.get(str(function))
        if rebuild is None:
            raise RefusedPickle(f"it calls {function}")
        return rebuild(*arguments)

    def build(self, target: Any, state: Any) -> Any:
        # torch.save writes one kind of state: a state dict's _metadata, which loading ignores here.
        if not isinstance(target, dict):
            raise RefusedPickle("it sets the state of an object")
        return target

    def persistent(self, token: Any) -> StoragePlan:
        tag, kind, key, _location, count = token
        known = isinstance(kind, Name) and (kind.name in STORAGE_DTYPES or str(kind) == _UNTYPED)
        if tag != "storage" or not known or not isinstance(key, str) or type(count) is not int:
            raise RefusedPickle("it refers to something that is no storage")
        return StoragePlan(kind.name, key, count)


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
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes: tuple(sizes),
}
