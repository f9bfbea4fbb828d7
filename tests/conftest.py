"""Nothing here is left to chance: property tests draw the same examples on every machine, runs the same seed.

The profile "explore" draws fresh examples. A test that is about drawing takes ``drawn_seeds``.
"""

import os
import secrets

import pytest
from hypothesis import settings

import certify.seeds

settings.register_profile("same", derandomize=True)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def fixed() -> certify.seeds.Seed:
    """What a test's run gets in place of random bits, fixtures of a whole session included."""
    return certify.seeds.Seed(0, "drawn")


DRAWN = certify.seeds.drawn
certify.seeds.drawn = fixed


@pytest.fixture
def drawn_seeds(monkeypatch):
    """Seeds are drawn from the operating system, as outside of tests; the list of them."""
    found = []

    def draw():
        found.append(DRAWN())
        return found[-1]

    monkeypatch.setattr(certify.seeds, "drawn", draw)
    assert DRAWN().value != DRAWN().value
    assert secrets.randbits(certify.seeds.BITS) < 1 << 128
    return found
