"""Write the API reference (docs/api/*.md) from signatures and docstrings: ``python docs/build_api.py``.

``--check`` writes nothing and exits with 1 where a page is missing or differs. The pages are
committed, so that they can be read without building anything; tests/test_docs_api.py compares them.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent / "api"
WIDTH = 100

#: What Markdown would read as markup; *emphasis* is meant and kept.
SPECIAL = re.compile(r"(\*[\w ]+\*)|[*<]|(?<!\w)_(?=\w)")

#: Pages: title, and the modules on it in reading order. A module's public names are its ``__all__``,
#: else what it defines itself without an underscore.
PAGES: dict[str, tuple[str, ...]] = {
    "certify": (
        "certify",
        "certify.smoothing",
        "certify.dense.smoothing",
        "certify.dense.run",
        "certify.dense.maps",
        "certify.dense.procedure",
        "certify.dense.correction",
        "certify.records",
        "certify.checkpoints",
        "certify.data",
        "certify.noise",
        "certify.procedures",
        "certify.sequential",
        "certify.bounds",
        "certify.runner_up",
        "certify.scores.means",
        "certify.radii",
        "certify.simultaneous",
        "certify.transfer",
        "certify.lipschitz",
        "certify.planning",
        "certify.registry",
        "certify.store",
        "certify.verification",
        "certify.errors",
    ),
    "attacks": ("attacks",),
    "analysis": ("analysis",),
    "pdenets": (
        "pdenets",
        "pdenets.training",
        "pdenets.regularisers",
        "pdenets.smooth_losses",
        "pdenets.evolution",
        "pdenets.global_nets",
        "pdenets.pinn",
        "pdenets.burgers",
        "pdenets.inr",
    ),
    "reports": ("reports",),
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check compare them; returns the exit code."""
    wanted = pages()
    stale = [name for name, text in wanted.items() if read(name) != text]
    strange = sorted(p.name for p in PLACE.glob("*.md") if p.name not in wanted)
    if "--check" in arguments:
        for name in stale + strange:
            print(f"docs/api/{name} is out of date: run python docs/build_api.py", file=sys.stderr)
        return 1 if stale or strange else 0
    PLACE.mkdir(exist_ok=True)
    for name in stale:
        (PLACE / name).write_text(wanted[name], encoding="utf-8")
        print(f"wrote docs/api/{name}")
    return 0


def read(name: str) -> str | None:
    """A committed page, or None."""
    return (PLACE / name).read_text(encoding="utf-8") if (PLACE / name).exists() else None


def pages() -> dict[str, str]:
    """Every page by its file name, the index README.md among them."""
    links = {
        f"{module}.{name}": f"{page}.md#{anchor(module, name)}"
        for page, modules in PAGES.items()
        for module in modules
        for name in public(module)
    }
    # A class that is documented where its package hands it on is found under its own module too.
    for page, modules in PAGES.items():
        for module in modules:
            for name in public(module):
                value = getattr(importlib.import_module(module), name)
                where = f"{getattr(value, '__module__', module)}.{name}"
                links.setdefault(where, f"{page}.md#{anchor(module, name)}")
    written = {f"{page}.md": render_page(page, modules, links) for page, modules in PAGES.items()}
    return {"README.md": render_index()} | written


def public(module: str) -> list[str]:
    """The public names of a module, classes and functions before constants, modules left out."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None)
    if names is None:
        own = (n for n, value in vars(found).items() if getattr(value, "__module__", None) == module)
        names = [n for n in own if not n.startswith("_")]
    values = {n: getattr(found, n) for n in names}
    kept = [n for n in names if not inspect.ismodule(values[n])]
    return sorted(kept, key=lambda n: (not callable(values[n]), n.lower(), n))


def documented(module: str, name: str) -> bool:
    """Whether ``module`` is on a page, with ``name`` among its public names."""
    return any(module in modules for modules in PAGES.values()) and name in public(module)


def anchor(module: str, name: str) -> str:
    """The anchor that code forges give to the heading ``module.name``."""
    return re.sub(r"[^\w-]", "", f"{module}.{name}".lower())


def render_index() -> str:
    lines = [
        "# API reference",
        "",
        "Written by `python docs/build_api.py` from signatures and docstrings; a test keeps it up to date.",
        "What is not listed here is internal and may change without notice.",
    ]
    for page, modules in PAGES.items():
        lines += ["", f"## [{page}]({page}.md)", ""]
        for module in modules:
            names = public(module)
            lines += [f"**`{module}`**: {summary(importlib.import_module(module))}", ""]
            for name in names:
                value = getattr(importlib.import_module(module), name)
                said = f": {summary(value)}" if callable(value) else ""
                lines.append(f"- [`{name}`]({page}.md#{anchor(module, name)}){said}")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def render_page(page: str, modules: tuple[str, ...], links: dict[str, str]) -> str:
    lines = [f"# {page}", "", "[All packages](README.md)", ""]
    for module in modules:
        found = importlib.import_module(module)
        lines += [f"## Module {module}", "", prose(inspect.getdoc(found) or "", links, module), ""]
        for name in public(module):
            lines += [f"### {module}.{name}", "", *render_name(module, name, getattr(found, name), links)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def render_name(module: str, name: str, value: Any, links: dict[str, str]) -> Iterator[str]:
    """One public name: its signature, its docstring, its members."""
    if not callable(value):
        shown = ", ".join(map(repr, value)) if isinstance(value, dict | list | tuple) else repr(value)
        yield from (f"{'Keys' if isinstance(value, dict) else 'Value'}: `{shown}`.", "")
        return
    home = getattr(value, "__module__", module)
    if home != module and documented(home, name):
        yield from (f"{summary(value)} See [`{home}.{name}`]({links[f'{home}.{name}']}).", "")
        return
    yield from (
        "```python",
        signature(name, value),
        "```",
        "",
        prose(inspect.getdoc(value) or "", links, home),
        "",
    )
    if not inspect.isclass(value):
        return
    if issubclass(value, enum.Enum):
        yield from ("Members: " + ", ".join(f"`{m.name}`" for m in value) + ".", "")
    for member, function in members(value):
        about = prose(described(value, member, function), links, home).replace("\n", "\n  ")
        kind = "" if not isinstance(function, property) else " (property)"
        shown = (
            member if isinstance(function, property) else signature(member, function, method=True, wide=True)
        )
        yield from (f"- **`{shown}`**{kind}" + (f"  \n  {about}" if about else ""), "")


def members(cls: type) -> list[tuple[str, Any]]:
    """Public methods and properties that the class's own package defines, in the order of the source."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] == cls.__module__.split(".")[0]:
            for name, value in vars(base).items():
                if isinstance(value, classmethod | staticmethod):
                    value = value.__func__
                if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    found[name] = value
    return list(found.items())


def described(cls: type, member: str, function: Any) -> str:
    """A member's docstring; one that only implements a protocol of these pages points to it."""
    if own := inspect.getdoc(function):
        return own
    for module in (m for modules in PAGES.values() for m in modules):
        if module.split(".")[0] == cls.__module__.split(".")[0]:
            for name in public(module):
                value = getattr(importlib.import_module(module), name)
                if (
                    value is not cls
                    and getattr(value, "_is_protocol", False)
                    and member in dict(members(value))
                ):
                    return f"As in ``{value.__module__}.{name}``."
    return ""


def signature(name: str, value: Any, *, method: bool = False, wide: bool = False) -> str:
    """``name(parameters) -> result`` as in the source; one parameter a line where it is long."""
    if inspect.isclass(value) and issubclass(value, enum.Enum | BaseException):
        base = value.__mro__[1].__name__
        return f"class {name}({base})"
    parameters = list(inspect.signature(value).parameters.values())
    if method and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    parts, starred = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        noted = "" if p.annotation is p.empty or wide else f": {annotation(p.annotation)}"
        default = "" if p.default is p.empty else f"{' = ' if noted else '='}{constant(p.default)}"
        parts.append(f"{stars}{p.name}{noted}{default}")
    result = (
        inspect.signature(value).return_annotation if not inspect.isclass(value) else inspect.Signature.empty
    )
    arrow = "" if result is inspect.Signature.empty or wide else f" -> {annotation(result)}"
    head = f"{'class ' if inspect.isclass(value) else ''}{name}"
    line = f"{head}({', '.join(parts)}){arrow}"
    if wide or len(line) <= WIDTH:
        return line
    return f"{head}(\n" + "".join(f"    {part},\n" for part in parts) + f"){arrow}"


def annotation(value: Any) -> str:
    """An annotation as it stands in the source."""
    return value if isinstance(value, str) else inspect.formatannotation(value)


def constant(value: Any) -> str:
    """A default as it could be written; no memory addresses, which change from run to run."""
    if isinstance(value, enum.Enum):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}(...)"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    shown = repr(value)
    return "..." if " at 0x" in shown or shown.startswith("<") else shown


def summary(value: Any) -> str:
    """The first sentence of a docstring's first paragraph."""
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[.])\s+(?=[A-Z`])", paragraph)[0]
    return inline(sentence, lambda target: None)


def prose(text: str, links: dict[str, str], module: str) -> str:
    """A docstring as Markdown: indented blocks become code, ``names`` code that links where it can."""

    def find(target: str) -> str | None:
        bare = target.removesuffix("()")
        for candidate in (bare, f"{module}.{bare}", f"{module.split('.')[0]}.{bare}"):
            if candidate in links:
                return links[candidate]
        return None

    blocks = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines):
            blocks.append("```python\n" + inspect.cleandoc(block) + "\n```")
        else:
            blocks.append(inline(block, find))
    return "\n\n".join(blocks)


def inline(text: str, find: Callable[[str], str | None]) -> str:
    """Double backticks become single ones, linked where ``find`` knows the name; the rest is escaped."""
    out = []
    for i, part in enumerate(re.split(r"``(.+?)``", text, flags=re.S)):
        if i % 2 == 0:
            out.append(SPECIAL.sub(lambda m: m[1] or ("&lt;" if m[0] == "<" else "\\" + m[0]), part))
        else:
            target = find(part)
            out.append(f"[`{part}`]({target})" if target else f"`{part}`")
    return "".join(out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
