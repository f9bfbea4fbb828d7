"""What a pickle of tensors would build, worked out without unpickling it.

A ``.pt`` file describes its tensors in a pickle, and a pickle is a program. This reads the few
instructions that ``torch.save`` writes for dictionaries of tensors and refuses every other one;
tensors become plans (type, shape, strides, storage), so that a file can be judged before anything is
allocated. Nothing from the file is ever imported or called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: About fifteen thousand tensors; every instruction may cost the memory of one small object.
MAX_STEPS = 500_000


class RefusedPickle(Exception):
    """The pickle asks for something that plain tensors do not need. ``str()`` says what."""


@dataclass(frozen=True)
class Name:
    """A global the pickle refers to, e.g. torch.FloatStorage. It is never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


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
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if step > MAX_STEPS:
                raise RefusedPickle(f"it has more than {MAX_STEPS} instructions")
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            machine.step(opcode.name, argument)
    except RefusedPickle:
        raise
    except Exception as error:  # malformed in any way: wrong stack, bad utf-8, cut off
        raise RefusedPickle(f"it is not a well-formed pickle ({error})") from error
    raise RefusedPickle("it ends before its STOP instruction")


class _Machine:
    """The stack, the marks and the memo of a pickle, over plain Python values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _BUILDERS:
            _BUILDERS[name](self)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.stack.append(_allowed(Name(module, attribute)))
        elif name not in ("PROTO", "FRAME"):
            raise RefusedPickle(f"it uses the instruction {name}, which tensors do not need")

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise RefusedPickle("its stack is too short")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedPickle(f"it sets items of a {type(target).__name__}")
        # Only plain keys: hashing a deeply nested tuple would overflow the C stack.
        if not all(type(key) in (str, int) for key in items[::2]):
            raise RefusedPickle("it has a key that is neither text nor a number")
        target.update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise RefusedPickle("it appends to something that is no list")
        self.stack[-1].extend(items)

    def build(self) -> None:
        # torch.save writes one BUILD: an OrderedDict's _metadata, which loading ignores here.
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise RefusedPickle("it sets the state of an object")

    def load_storage(self) -> None:
        tag, kind, key, _location, count = self.stack.pop()
        if (
            tag != "storage"
            or not isinstance(kind, Name)
            or not isinstance(key, str)
            or type(count) is not int
        ):
            raise RefusedPickle("it refers to something that is no storage")
        self.stack.append(StoragePlan(kind.name, key, count))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        rebuild = _REDUCTIONS.get(str(function)) if isinstance(function, Name) else None
        if rebuild is None or not isinstance(arguments, tuple):
            raise RefusedPickle(f"it calls {function}")
        self.stack.append(rebuild(*arguments))


def _allowed(name: Name) -> Name:
    storage = name.module == "torch" and name.name in STORAGE_DTYPES
    untyped = name == Name("torch.storage", "UntypedStorage")
    dtype = name.module == "torch" and name.name in DTYPES
    if not (storage or untyped or dtype or str(name) in _REDUCTIONS):
        raise RefusedPickle(f"it refers to {name}, which is code, not numbers")
    return name


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: str | None = None
) -> TensorPlan:
    sizes_ok = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    numbers = (offset, *shape, *strides) if sizes_ok else (None,)
    if not isinstance(storage, StoragePlan) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedPickle("a tensor's storage, offset, shape or strides are not what torch.save writes")
    return TensorPlan(storage, offset, shape, strides, dtype)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
):
    if not isinstance(dtype, Name):
        raise RefusedPickle("a tensor has no element type")
    return _tensor(storage, offset, shape, strides, dtype=dtype.name)


def _parameter(data: Any, *rest: Any) -> Any:
    if not isinstance(data, TensorPlan):
        raise RefusedPickle("a parameter holds something that is no tensor")
    return data


def _ordered_dict(*items: Any) -> dict[Any, Any]:
    if items:
        raise RefusedPickle("it fills an OrderedDict in an unusual way")
    return {}


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
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes: tuple(sizes),
}
_LITERALS = {
    "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_BUILDERS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": lambda m: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m: m.tuple_of(1),
    "TUPLE2": lambda m: m.tuple_of(2),
    "TUPLE3": lambda m: m.tuple_of(3),
    "SETITEMS": lambda m: m.set_items(m.pop_mark()),
    "SETITEM": lambda m: m.set_items([*reversed((m.stack.pop(), m.stack.pop()))]),
    "APPENDS": lambda m: m.extend(m.pop_mark()),
    "APPEND": lambda m: m.extend([m.stack.pop()]),
    "BUILD": lambda m: m.build(),
    "BINPERSID": lambda m: m.load_storage(),
    "REDUCE": lambda m: m.reduce(),
}
