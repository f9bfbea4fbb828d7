"""Calls judged by their signature: a wrong keyword, type or item is a named error before anything runs.

``checked`` reads a function's own annotations. It judges what can be judged without knowing the function:
names of keywords, whole and real numbers, text, flags, sequences of these, tensors, devices, generators,
modules. What a number may be is each function's own affair, and models are judged by what they answer.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from certify.errors import InvalidArgument

P = ParamSpec("P")
R = TypeVar("R")

#: Checked where they are used: the error there says what these numbers key.
_OWN = ("ids",)
#: Whole numbers beyond this fit no float, and count, seed or label nothing.
_LARGEST = 2**1000
#: Items of a sequence that are looked at.
_LOOKED_AT = 10_000


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, its arguments judged first; signature, name and annotations stay.

    The call raises InvalidArgument for an unknown or missing argument and for one of another kind than its
    annotation says.
    """
    signature = inspect.signature(function)
    judges: dict[str, list[Callable[[Any], bool]] | None] = {}

    def judged(name: str) -> list[Callable[[Any], bool]] | None:
        if name in _OWN:
            return None
        if name not in judges:  # at the first call: annotations name classes that are defined later
            judges[name] = _judges(
                signature.parameters[name].annotation, getattr(function, "__globals__", {})
            )
        return judges[name]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as cause:
            raise _unbound(function, signature, kwargs, cause) from None
        for name, value in bound.arguments.items():
            if (kinds := judged(name)) is not None and not any(fits(value) for fits in kinds):
                raise wrong_kind(function, name, value, signature.parameters[name].annotation)
        return function(*args, **kwargs)

    return call


def checked_class(cls: type[R]) -> type[R]:
    """The class with its ``__init__`` checked."""
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


def unknown(name: str, known: Iterable[str], where: str) -> InvalidArgument:
    """The error for a keyword that ``where`` does not have."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return InvalidArgument(
        f"{where} has no argument {name!r}",
        why=f"it takes {', '.join(known)}",
        remedy=f"use {near[0]}" if near else "leave it out",
    )


def refuse_unknown(options: Mapping[str, Any], used: Callable[..., Any], asked: Callable[..., Any]) -> None:
    """Raise InvalidArgument for the first of the ``options`` that ``used``, which gets them, does not have.

    The error speaks of ``asked``, the function that was called.
    """
    own = [n for n, p in inspect.signature(asked).parameters.items() if p.kind is not p.VAR_KEYWORD]
    known = dict.fromkeys([*(n for n in own if n != "self"), *inspect.signature(used).parameters])
    for name in options:
        if name not in known:
            raise unknown(name, known, _called(asked))


def wrong_kind(function: Callable[..., Any], name: str, value: Any, annotation: Any) -> InvalidArgument:
    """The error for a ``value`` that is of no kind that ``annotation`` names."""
    return InvalidArgument(
        f"{name} = {shown(value)} cannot be used",
        why=f"{_called(function)} takes {name}: {annotation}; this is of type {type(value).__name__}"
        + (" and cannot be used as one" if isinstance(value, str | numbers.Number) else ""),
        remedy=f"pass {_EXAMPLES.get(_first(annotation), 'what the documentation of ' + name + ' names')}",
    )


def shown(value: Any) -> str:
    """The value in a few characters, whatever its own repr does."""
    try:
        text = repr(value)
    except Exception:  # a repr may fail with any error; whole numbers of 5,000 digits do
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


_EXAMPLES = {
    "int": "a whole number",
    "float": "a real number",
    "bool": "True or False",
    "str": "text",
    "Tensor": "a torch.Tensor",
    "nn.Module": "a torch.nn.Module",
    "Dataset": "a data set, as certify.data.load or as_dataset returns",
    "torch.device": "a device that torch has here: 'cpu' always is one (--device cpu)",
    "torch.Generator": "a torch.Generator, or leave it out",
}


def _unbound(
    function: Callable[..., Any], signature: inspect.Signature, given: Mapping[str, Any], cause: TypeError
) -> InvalidArgument:
    known = [n for n, p in signature.parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD]
    for name in given:
        if name not in known:
            return unknown(name, known, _called(function))
    return InvalidArgument(
        f"{_called(function)} cannot be called like this",
        why=f"{cause}",
        remedy=f"it takes {', '.join(known)}",
    )


def _called(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "this function").removesuffix(".__init__")


def _first(annotation: Any) -> str:
    return next((k for k in _arms(str(annotation)) if k != "None"), "")


def _arms(annotation: str) -> list[str]:
    """The arms of a union, at its top level."""
    arms, depth, start = [], 0, 0
    for place, letter in enumerate(annotation):
        depth += (letter in "[(") - (letter in "])")
        if letter == "|" and depth == 0:
            arms.append(annotation[start:place].strip())
            start = place + 1
    return [*arms, annotation[start:].strip()]


def _judges(annotation: Any, names: Mapping[str, Any]) -> list[Callable[[Any], bool]] | None:
    """A judge for each arm of the annotation; None where one of its arms cannot be judged."""
    if not isinstance(annotation, str):
        return None
    arms = _arms(annotation)
    if "torch.device" in arms and "str" in arms:
        arms.remove("str")  # of text, the names of devices alone
    optional = "None" in arms  # a callback, that is: models are judged by what they answer
    found = [callable if optional and arm.startswith("Callable[") else _judge(arm, names) for arm in arms]
    return None if any(judge is None for judge in found) else [judge for judge in found if judge is not None]


def _judge(arm: str, names: Mapping[str, Any]) -> Callable[[Any], bool] | None:
    if arm in _JUDGES:
        return _JUDGES[arm]
    if arm.startswith(("Sequence[", "tuple[")) and arm.endswith("]"):
        return functools.partial(_is_sequence, kind=arm, names=names)
    if arm.startswith(("Mapping[", "dict[")):
        return lambda value: isinstance(value, Mapping)
    kind = names.get(arm)
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return lambda value: isinstance(value, str) and value in choices
    if not isinstance(kind, type) or kind is Any:
        return None
    if not getattr(kind, "_is_protocol", False):
        return lambda value: isinstance(value, kind)
    parts = [part for part in vars(kind) if not part.startswith("_")]
    return lambda value: all(hasattr(value, part) for part in parts)


def _is_sequence(value: Any, *, kind: str, names: Mapping[str, Any]) -> bool:
    """Lists, tuples and arrays; items are judged where their kind is known, a tuple's number too."""
    if isinstance(value, str | bytes | Mapping | set):
        return False
    try:
        size, items = len(value), iter(value)
    except Exception:  # arrays of no dimension, and whatever else has no items
        return False
    inner = kind[kind.index("[") + 1 : -1]
    if kind.startswith("tuple[") and not inner.endswith("..."):
        kinds = [_judge(part.strip(), names) for part in inner.split(",")]
        return size == len(kinds) and all(
            fits is None or fits(item) for fits, item in zip(kinds, items, strict=True)
        )
    fitting = _judges(inner.removesuffix(", ..."), names)
    if size > _LOOKED_AT or fitting is None:
        return True
    return all(any(fits(item) for fits in fitting) for item in items)


def _is_whole(value: Any) -> bool:
    """Python's and numpy's whole numbers, and floats that are one; arrays of one number are arrays."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return abs(int(value)) <= _LARGEST if isinstance(value, numbers.Integral) else float(value).is_integer()


def _is_real(value: Any) -> bool:
    """A number that a float can hold, infinities and NaN included: what it may be is for others to say."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _of_torch(path: str) -> Callable[[Any], bool]:
    """Judge an instance of a class of torch, without importing torch: who holds one has."""

    def judge(value: Any) -> bool:
        torch = sys.modules.get("torch")
        found: Any = torch
        for part in path.split("."):
            found = getattr(found, part, None)
        return found is not None and isinstance(value, found)

    return judge


def _is_device(value: Any) -> bool:
    import torch

    try:
        torch.empty(0, device=value)
    except Exception:  # names, numbers and backends fail with errors of their own
        return False
    return isinstance(value, str | torch.device)


def _is_dataset(value: Any) -> bool:
    return all(hasattr(value, part) for part in ("x", "y", "num_classes"))


def _is_numbers(value: Any) -> bool:
    """What numpy reads as an array of real numbers, without a search for a common type."""
    import numpy as np

    try:
        return np.asarray(value).dtype.kind in "iufb"
    except Exception:  # ragged lists, and objects that fail at whatever is asked of them
        return False


_JUDGES: dict[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "int": _is_whole,
    "float": _is_real,
    "bool": lambda value: isinstance(value, bool) or type(value).__name__ == "bool_",
    "str": lambda value: isinstance(value, str),
    "Path": lambda value: isinstance(value, os.PathLike),
    "os.PathLike[str]": lambda value: isinstance(value, os.PathLike),
    "Tensor": _of_torch("Tensor"),
    "nn.Module": _of_torch("nn.Module"),
    "torch.Generator": _of_torch("Generator"),
    "torch.device": _is_device,
    "np.ndarray": lambda value: type(value).__module__ == "numpy" and hasattr(value, "shape"),
    "ArrayLike": _is_numbers,
    "Dataset": _is_dataset,
}
