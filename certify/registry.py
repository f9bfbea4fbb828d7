"""Architectures by name: registered by installed packages, or named as ``module:factory``.

A package registers its networks in the entry-point group ``certify.models``; this floor never imports
one by itself. A factory is called ``factory(num_classes=K, input_shape=(...), **arguments)`` and returns
an nn.Module from (batch, *input_shape) to logits (batch, K).
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from certify import siblings
from certify.errors import ArchitectureMismatch, ShadowedPackage

GROUP = "certify.models"


def names() -> tuple[str, ...]:
    """The registered architectures, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def architecture(name: str) -> Callable[..., Any]:
    """The factory of a registered name, or of ``module:factory``.

    The latter imports the module, which runs its code: never pass a name that was read from a file.
    The working directory is searched last, so that it cannot replace an installed package.

    Raises ArchitectureMismatch for a name that is unknown, registered twice or does not lead to a
    callable; ShadowedPackage when a file of the same name hides the package it should come from.
    """
    if ":" in name:
        return _imported(name, *name.split(":", 1))
    point = _registered(name)
    top = point.module.split(".")[0]
    if top in siblings.SIBLINGS:
        siblings.check(top)
    return _imported(name, point.module, point.attr)


def _registered(name: str) -> EntryPoint:
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if len(points) == 1:
        return next(iter(points.values()))
    if points:
        raise ArchitectureMismatch(
            f"the architecture {name!r} is registered more than once",
            why=f"it stands for {' and for '.join(sorted(points))}",
            remedy="uninstall one of the packages, or name the factory as module:factory",
        )
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    raise ArchitectureMismatch(
        f"there is no architecture {name!r}",
        why=f"registered are {', '.join(known)}" if known else "no installed package registers any",
        remedy=(f"did you mean {near[0]!r}? " if near else "")
        + ("give a registered name or module:factory" if known else "run: pip install certify-robustness"),
    )


def _imported(name: str, module_name: str, attribute: str) -> Callable[..., Any]:
    try:
        _search_working_directory_last()
        module = importlib.import_module(module_name)
        factory: Any = module
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except ShadowedPackage:
        raise
    except ModuleNotFoundError as error:
        raise _unusable(
            name, f"there is no module {error.name!r}", "check its spelling, and run where it can be imported"
        ) from error
    except AttributeError as error:
        raise _unusable(
            name, f"{module_name} has no {attribute!r}", "name a function or class of that module"
        ) from error
    except Exception as error:
        raise _unusable(
            name, f"importing {module_name} failed: {error!r}", "repair that module; it must import cleanly"
        ) from error
    if not callable(factory):
        raise _unusable(name, f"{attribute} is a {type(factory).__name__}", "name a function or class")
    return factory


def _search_working_directory_last() -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _unusable(name: str, why: str, remedy: str) -> ArchitectureMismatch:
    return ArchitectureMismatch(f"the architecture {name!r} cannot be used", why=why, remedy=remedy)
