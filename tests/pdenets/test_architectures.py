"""The name table and the registered names are one list."""

import subprocess
import sys
from importlib.metadata import entry_points

import pdenets


def test_every_listed_name_is_registered_and_every_registered_name_is_listed():
    registered = {e.name for e in entry_points(group="certify.models") if e.value.startswith("pdenets.")}
    listed = [row.name for row in pdenets.catalogue()]
    assert len(listed) == len(set(listed))
    assert set(listed) == registered
    assert all(row.description and row.reference for row in pdenets.catalogue())


def test_listing_needs_no_torch():
    code = "import sys, pdenets; pdenets.catalogue(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
