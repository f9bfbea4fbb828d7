"""``manifest.json``: what a run certified, with what, in the shape of an in-toto Statement.

Subjects are the model, the data and the results, each by SHA-256; the predicate holds
the settings, the promise, the versions, the hardware and the command that replays it.
It is unsigned: a hash shows that nothing changed since, not that anyone vouches for it.
Any tool that signs in-toto statements can sign it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from certify.canonical import parse, sha256_text
from certify.errors import UnreadableFile
from certify.files import write_atomically
from certify.files.members import read_member
from certify.inputs import inputs_digest, labels_digest
from certify.records import Status
from certify.store.database import FORMAT
from certify.store.exports import to_csv
from certify.store.read import StoredRun, read_run

MANIFEST = "manifest.json"
CERTIFICATES = "certificates.csv"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:certify-robustness:run:v1"

_MEANING = {
    "model": "tensors in name order: name, dtype, shape, bytes",
    "data": "one line per input, in input order: its id and the SHA-256 of its type, shape and values",
    "labels": "one line per input, in input order: its id and its class, or the SHA-256 of its label map",
    "records": "canonical JSON of each record without its time fields, one line each, in input order",
    CERTIFICATES: "bytes of the file",
}


def write_evidence(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Write certificates.csv, then manifest.json, for what the run directory holds now.

    Both appear whole or not at all; a kill in between leaves a manifest that ``verify``
    calls stale, and resuming the run repairs it. Returns the manifest.
    """
    stored = read_run(path)
    write_atomically(stored.path / CERTIFICATES, to_csv(stored.run))
    body = build(stored)
    write_atomically(stored.path / MANIFEST, json.dumps(body, indent=1, sort_keys=False) + "\n")
    return body


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The run directory's manifest. Raises UnreadableFile when it is missing or no JSON object."""
    file = Path(path) / MANIFEST
    try:
        body = parse(read_member(file, "manifest").decode("utf-8"))
        if not isinstance(body, dict):
            raise ValueError("it is no JSON object")
    except (UnreadableFile, ValueError, RecursionError) as cause:
        raise UnreadableFile(
            f"{file} cannot be read",
            why=cause.why if isinstance(cause, UnreadableFile) else str(cause),
            remedy="run the same `certify radius` command again: a finished run rewrites its manifest",
        ) from cause
    return body


def build(stored: StoredRun) -> dict[str, Any]:
    """The statement about a run as it was read; ``certificates.csv`` is the one ``to_csv`` renders."""
    from certify.store import records_digest

    settings = stored.settings
    digests = {
        "model": _digest(settings.get("model")),
        "data": inputs_digest(stored.run) or _digest(settings.get("data")),
        "labels": labels_digest(stored.run) if _named(settings.get("data")) else None,
        "records": records_digest(stored.run),
        CERTIFICATES: sha256_text(to_csv(stored.run)),
    }
    environment = settings.get("environment") or {}
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}, "annotations": {"sha256_of": _MEANING[name]}}
            for name, digest in digests.items()
            if digest
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "format": FORMAT,
            "run_id": stored.run_id,
            "guarantee": stored.guarantee,
            "inputs": len(stored.run),
            **_tally(stored),
            "settings": settings,
            "sessions": stored.sessions,
            "versions": versions() | (settings.get("versions") or {}),
            "hardware": hardware() | (environment.get("hardware") or {}),
            "command": settings.get("command") or environment.get("command"),
        },
    }


def _tally(stored: StoredRun) -> dict[str, int]:
    """Records by status; counted ones are named only where there are any."""
    found = {str(status): sum(r.status is status for r in stored.run) for status in Status}
    return {k: v for k, v in found.items() if v or k != Status.COUNTED}


def hardware() -> dict[str, Any]:
    """The machine this process runs on, without asking a driver."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Versions of what was already imported; nothing is imported to ask it."""
    import certify

    found = {"certify": certify.__version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "scipy"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def _named(data: Any) -> bool:
    """Whether the run names its data by hashes; runs of before have no subject for their labels."""
    return isinstance(data, dict) and "ids" in data


def _digest(part: Any) -> str | None:
    return part.get("digest") if isinstance(part, dict) else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
