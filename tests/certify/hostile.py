"""Makes hostile files, and opens them one by one in a process of its own.

``make(folder)`` writes the files; ``python -m tests.certify.hostile FOLDER`` opens every one of them the way
a user would and reports, as one JSON line each, the error and the growth of resident memory. A file that
manages to run code creates ``FOLDER/ran``.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path

from tests.certify import hostile_data, hostile_models, hostile_old_models
from tests.certify.hostile_tools import MAKERS, MARKER, archive, state

ARCH = "tests.certify.toy_networks:Own"
LINEAR = "tests.certify.toy_networks:linear"
GENUINE = ("genuine.pt", "genuine.safetensors")

__all__ = [
    "ARCH",
    "GENUINE",
    "LINEAR",
    "MAKERS",
    "MARKER",
    "hostile_data",
    "hostile_models",
    "hostile_old_models",
    "make",
    "state",
]


def make(folder: Path) -> list[str]:
    """Write every hostile file; their names."""
    for name, function in MAKERS.items():
        function(folder / name)
    genuine(folder)
    return list(MAKERS)


def open_as_a_user(path: Path) -> object:
    import certify
    from certify import data
    from certify.data.idx import read_idx

    if path.suffix in (".npz", ".npy", ".csv") or path.name.startswith("data_"):
        return data.load(path)
    if path.suffix == ".gz":
        return read_idx(path, 3)
    if "header" in path.name or "arguments" in path.name:
        return certify.load(path)
    if path.name in GENUINE:
        return certify.load(path, arch=LINEAR)
    return certify.load(path, arch=ARCH, arguments={"hidden": 64})


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def genuine(folder: Path) -> None:
    """Honest files of 32 MB, to see what an honest file costs."""
    from certify.checkpoints import Header, save
    from tests.certify.toy_networks import linear

    classes = 2**23 // 3
    model = linear(num_classes=classes, input_shape=(2,))
    for name in GENUINE:
        save(folder / name, model, Header(LINEAR, {}, classes, (2,), 0.0, 1.0, None))


def main(folder: Path) -> None:
    from certify.errors import CertifyError

    archive(folder / "warm_up.pt")
    open_as_a_user(folder / "warm_up.pt")
    sys.path.insert(0, str(folder))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in [*MAKERS, *GENUINE]:
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_bytes()
        signal.alarm(60)
        try:
            open_as_a_user(folder / name)
            error, text = "", ""
        except CertifyError as caught:
            error, text = type(caught).__name__, str(caught)
        except BaseException as caught:
            error, text = f"unnamed {type(caught).__name__}", str(caught)
        signal.alarm(0)
        print(
            json.dumps({"name": name, "error": error, "text": text, "grown": peak_bytes() - before}),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
