"""A pickle read as data: the few instructions that plain containers need, and nothing else.

A pickle is a program for a small stack machine, and the real machine can import and call anything. This one
works on plain Python values, never imports or calls what the file names, and stops at any instruction it
does not know. What the named globals mean is up to a ``Grammar``.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol

#: About fifteen thousand tensors; every instruction may cost the memory of one small object.
MAX_STEPS = 500_000


class RefusedPickle(Exception):
    """The pickle asks for something that plain values do not need. ``str()`` says what."""


@dataclass(frozen=True)
class Name:
    """A global the pickle refers to, e.g. torch.FloatStorage. It is never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False)
class Opaque:
    """Stands for something that only code could build. ``what`` names it; its content is dropped."""

    what: str


class Grammar(Protocol):
    """What a file may say beyond containers, numbers and text. Any of it may raise RefusedPickle."""

    def allow(self, name: Name) -> None:
        """Accept a global, or refuse it."""

    def call(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        """The value that stands for calling this global."""

    def new(self, kind: Name, arguments: tuple[Any, ...]) -> Any:
        """The value that stands for an object of this class."""

    def build(self, target: Any, state: Any) -> Any:
        """The value that stands for setting this object's state."""

    def persistent(self, token: Any) -> Any:
        """The value that stands for a reference outside the pickle."""


def run(program: bytes | IO[bytes], grammar: Grammar) -> Any:
    """The value the pickle describes. Of a file, read up to the end of the pickle. Raises RefusedPickle."""
    machine = _Machine(grammar)
    stream = io.BytesIO(program) if isinstance(program, bytes) else program
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step > MAX_STEPS:
                raise RefusedPickle(f"it has more than {MAX_STEPS} instructions")
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            machine.step(opcode.name, argument)
    except RefusedPickle:
        raise
    except Exception as error:  # malformed in any way: wrong stack, bad utf-8, cut off
        raise RefusedPickle(f"it is not a well-formed pickle ({str(error)[:100]})") from error
    raise RefusedPickle("it ends before its STOP instruction")


class _Machine:
    """The stack, the marks and the memo of a pickle, over plain Python values."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
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
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _BUILDERS:
            _BUILDERS[name](self)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.name(module, attribute)
        elif name not in ("PROTO", "FRAME"):
            raise RefusedPickle(f"it uses the instruction {name}, which plain values do not need")

    def name(self, module: Any, attribute: Any) -> None:
        if type(module) is not str or type(attribute) is not str:
            raise RefusedPickle("it refers to something by a name that is no text")
        self.grammar.allow(Name(module, attribute))
        self.stack.append(Name(module, attribute))

    def named_on_the_stack(self) -> None:
        attribute = self.stack.pop()
        self.name(self.stack.pop(), attribute)

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
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise RefusedPickle(f"it sets items of a {type(target).__name__}")
        # Only plain keys: hashing a deeply nested tuple would overflow the C stack.
        keys = (key if type(key) in _KEYS else Opaque(f"a {type(key).__name__}") for key in items[::2])
        target.update(zip(keys, items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], Opaque):
            return
        if not isinstance(self.stack[-1], list):
            raise RefusedPickle("it appends to something that is no list")
        self.stack[-1].extend(items)

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack.pop()
        self.stack.append(self.grammar.build(target, state))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise RefusedPickle("it calls something that is no function")
        self.stack.append(self.grammar.call(function, arguments))

    def new(self, *, keywords: bool) -> None:
        if keywords:
            self.stack.pop()
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if not isinstance(kind, Name) or not isinstance(arguments, tuple):
            raise RefusedPickle("it makes an object of something that is no class")
        self.stack.append(self.grammar.new(kind, arguments))


_KEYS = (str, bytes, int, float, bool, type(None))
_LITERALS = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Opaque("a set"),
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
    "ADDITEMS": lambda m: m.extend(m.pop_mark()),
    "FROZENSET": lambda m: m.stack.append(Opaque(f"a set of {len(m.pop_mark())}")),
    "BUILD": lambda m: m.build(),
    "BINPERSID": lambda m: m.stack.append(m.grammar.persistent(m.stack.pop())),
    "REDUCE": lambda m: m.reduce(),
    "NEWOBJ": lambda m: m.new(keywords=False),
    "NEWOBJ_EX": lambda m: m.new(keywords=True),
    "STACK_GLOBAL": lambda m: m.named_on_the_stack(),
}
