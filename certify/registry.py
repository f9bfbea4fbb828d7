"""Architectures and denoisers by name: registered by installed packages, or named as ``module:factory``.

A package registers its networks in the entry-point group ``certify.models``, its denoisers in
``certify.denoisers``; this floor never imports one by itself. A network's factory is called
``factory(num_classes=K, input_shape=(...), **arguments)``, where the first two are left out if it does
not take them, and returns an nn.Module from (batch, *input_shape) to logits (batch, K). A denoiser's
factory is called ``factory(input_shape=(...), **arguments)`` and returns what ``certify.denoised`` takes.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from certify import siblings
from certify.calls import checked
from certify.errors import ArchitectureMismatch, MissingExtra, ShadowedPackage

GROUP = "certify.models"
DENOISERS = "certify.denoisers"
REPORTS = "certify.reports"
_KINDS = {GROUP: "architecture", DENOISERS: "denoiser", REPORTS: "report"}


@checked
def names(group: str = GROUP) -> tuple[str, ...]:
    """The registered architectures, or denoisers (``group=DENOISERS``), sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


@checked
def architecture(name: str, group: str = GROUP) -> Callable[..., Any]:
    """The factory of a registered name, or of ``module:factory``.

    The latter imports the module, which runs its code: never pass a name that was read from a file.
    The working directory is searched last, so that it cannot replace an installed package.

    Raises ArchitectureMismatch for a name that is unknown, registered twice or does not lead to a
    callable; ShadowedPackage when a file of the same name hides the package it should come from.
    """
    kind = _KINDS[group]
    if ":" in name:
        return _imported(kind, name, *name.split(":", 1))
    point = _registered(name, group)
    top = point.module.split(".")[0]
    if top in siblings.SIBLINGS:
        siblings.check(top)
    return _imported(kind, name, point.module, point.attr)


def reporter() -> Callable[..., Any]:
    """What writes the report of a run directory. Raises MissingExtra where no package does."""
    if "html" not in names(REPORTS):
        raise MissingExtra(
            "no package that writes reports is installed",
            why=f"none registers 'html' in the entry-point group {REPORTS}",
            remedy="install the whole distribution again: pip install certify-robustness",
        )
    return architecture("html", REPORTS)


@checked
def denoiser(name: str) -> Callable[..., Any]:
    """The factory of a registered denoiser, or of ``module:factory``; as ``architecture``."""
    return architecture(name, DENOISERS)


def accepted(factory: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the ``offered`` keyword arguments that ``factory`` takes.

    A class of one's own need not take ``num_classes`` and ``input_shape``: what it does not name in
    its signature is not passed to it.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return dict(offered)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(offered)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in offered.items() if name in names}


def missing(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that ``factory`` cannot do without and that are not among ``arguments``, by name."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    wanted = (p.name for p in parameters if p.kind in named and p.default is p.empty)
    return [name for name in wanted if name not in arguments]


def _registered(name: str, group: str) -> EntryPoint:
    kind = _KINDS[group]
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    if len(points) == 1:
        return next(iter(points.values()))
    if points:
        raise ArchitectureMismatch(
            f"the {kind} {name!r} is registered more than once",
            why=f"it stands for {' and for '.join(sorted(points))}",
            remedy="uninstall one of the packages, or name the factory as module:factory",
        )
    known = names(group)
    module, dot, attribute = name.rpartition(".")
    if dot and module and attribute.isidentifier():
        raise ArchitectureMismatch(
            f"there is no {kind} {name!r}",
            why="it is no registered name, and a class or function of your own is written with a colon",
            remedy=f"name it as {module}:{attribute}",
        )
    near = difflib.get_close_matches(name, known, n=1)
    raise ArchitectureMismatch(
        f"there is no {kind} {name!r}",
        why=f"registered are {', '.join(known)}" if known else "no installed package registers any",
        remedy=(f"did you mean {near[0]!r}? " if near else "")
        + ("give a registered name or module:factory" if known else "run: pip install certify-robustness"),
    )


def _imported(kind: str, name: str, module_name: str, attribute: str) -> Callable[..., Any]:
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
            kind, name, f"there is no module {error.name!r}", _where(module_name, error.name)
        ) from error
    except AttributeError as error:
        raise _unusable(
            kind, name, f"{module_name} has no {attribute!r}", "name a function or class of that module"
        ) from error
    except TypeError as error:  # a relative name
        raise _unusable(
            kind, name, str(error), "name a module that can be imported: --arch mynet:Net"
        ) from error
    except Exception as error:
        raise _unusable(
            kind,
            name,
            f"importing {module_name} failed: {error!r}",
            "repair that module; it must import cleanly",
        ) from error
    if not callable(factory):
        raise _unusable(kind, name, f"{attribute} is a {type(factory).__name__}", "name a function or class")
    return factory


def _where(wanted: str, missing: str | None) -> str:
    """What to do about a module that was not found: looked for, or imported by the one looked for."""
    if missing != wanted and not wanted.startswith(f"{missing}."):
        return f"install {missing}: {wanted} imports it"
    if "/" in wanted or wanted.endswith(".py"):
        return "name a module, not a file: --arch mynet:Net for the class Net in mynet.py"
    top = wanted.split(".")[0]
    return (
        f"run in the folder that holds {top}.py (now: {Path.cwd()}), or put that folder on PYTHONPATH, "
        "or install the package it belongs to"
    )


def _search_working_directory_last() -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _unusable(kind: str, name: str, why: str, remedy: str) -> ArchitectureMismatch:
    return ArchitectureMismatch(f"the {kind} {name!r} cannot be used", why=why, remedy=remedy)
