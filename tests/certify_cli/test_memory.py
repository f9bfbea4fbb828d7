"""The command keeps freed memory: the second batch of a network takes no new pages."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from certify_cli.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    for _ in range(8):
        blocks = [torch.ones(1 << 20) for _ in range(3)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_blocks_are_used_again():
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True
            ).stdout
        )
        for way in ("keep", "return")
    }
    assert 2 * faults["keep"] < faults["return"], faults
