"""The command keeps freed memory: the second batch of a network takes no new pages."""

import ctypes
import json
import subprocess
import sys

import pytest

LIBRARY = ctypes.CDLL(None) if sys.platform.startswith("linux") else None

# What glibc says of itself: counting page faults instead would depend on the kernel's mood.
COUNTS = """
import ctypes, json, sys
import torch
from certify_cli.memory import keep_freed_memory

class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

info = ctypes.CDLL(None).mallinfo2
info.restype = Info
if sys.argv[1] == "keep":
    keep_freed_memory()
first = info()
blocks = [torch.ones(1 << 20) for _ in range(3)]
held = info()
del blocks
last = info()
print(json.dumps({"from the system": held.hblks - first.hblks, "kept": last.fordblks - held.fordblks}))
"""


@pytest.mark.skipif(not hasattr(LIBRARY, "mallinfo2"), reason="glibc 2.33 or later tells")
def test_large_blocks_are_used_again():
    said = {
        way: json.loads(
            subprocess.run(
                [sys.executable, "-c", COUNTS, way], capture_output=True, text=True, check=True
            ).stdout
        )
        for way in ("keep", "return")
    }
    size = 4 << 20
    assert said["keep"]["from the system"] == 0
    assert said["keep"]["kept"] >= 3 * size
    assert said["return"]["from the system"] == 3
    assert said["return"]["kept"] < size
