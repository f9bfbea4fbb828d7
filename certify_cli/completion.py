"""What the shell offers for an option's value, without loading the libraries that know it.

Names are written down here, since torch takes a second to load and a shell waits for its answer; a test
compares them with what the packages say. Architectures are the names that installed packages register.
"""

from __future__ import annotations

from collections.abc import Callable

MODES = ("radius", "grid", "decide", "fixed")
NOISES = ("lattice", "gaussian", "uniform", "laplace", "internal")
PRESETS = ("quick", "standard", "thorough", "minimal", "all-targets", "black-box", "smoothed", "autoattack")
SCORES = ("votes", "soft", "distribution")
FORMATS = ("csv", "json", "locuslab")


def one_of(*names: str) -> Callable[[str], list[str]]:
    """The names that begin as the word under the cursor does."""

    def offered(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return offered


def architectures(incomplete: str) -> list[str]:
    """Names of registered architectures; none of them is built or imported."""
    from certify import registry

    return [name for name in registry.names() if name.startswith(incomplete)]


def denoisers(incomplete: str) -> list[str]:
    """Names of registered denoisers."""
    from certify import registry

    return [name for name in registry.names(registry.DENOISERS) if name.startswith(incomplete)]


__all__ = ["FORMATS", "MODES", "NOISES", "PRESETS", "SCORES", "architectures", "denoisers", "one_of"]
