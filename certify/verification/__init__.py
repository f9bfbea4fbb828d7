"""Check a run without believing it: hashes, arithmetic, and fresh noise.

Level 1: the directory is whole and says one thing everywhere (schema, hashes, manifest, CSV).
Level 2: every bound and radius follows from the stored counts, by ``certify.verification.independent``.
Level 3: a random subset is sampled again with fresh noise and agrees with what was stored.

Levels 1 and 2 need neither torch nor the model. Level 3 gets its samples from the caller, who
knows how to build the classifier.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.errors import CertifyError, InvalidSetting, UntrustedFile
from certify.files import sha256_file
from certify.inputs import inputs_digest
from certify.records import Record
from certify.store import records_digest
from certify.store import settings as run_settings
from certify.store.exports import to_csv
from certify.store.manifest import CERTIFICATES, build, read_manifest
from certify.store.read import StoredRun, read_run
from certify.store.schema import schema, violation
from certify.verification.bounds import recompute
from certify.verification.dense import dense_consistent
from certify.verification.replay import consistent, scores_consistent

#: Fresh class counts of the given records, by input index: what level 3 asks its caller for. For soft
#: scores, samples per bin of the certified class's score; for a segmentation run (votes (classes, height,
#: width), samples) in place of the counts.
Replay = Callable[[Sequence[Record]], Mapping[int, Any]]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``detail`` names what is wrong, or what was seen."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """The outcome. ``ok`` is true only if every check is."""

    level: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.ok)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        rows = [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in self.checks]
        return {"ok": self.ok, "level": self.level, "checks": rows}


def verify(
    path: str | os.PathLike[str],
    *,
    level: int = 2,
    expect: Mapping[str, str] | None = None,
    replay: Replay | None = None,
    subset: int = 20,
    seed: int | None = None,
) -> Verification:
    """Check the run directory ``path`` up to ``level`` (1, 2 or 3; each includes the ones before).

    ``expect`` maps "model" and "data" to SHA-256 digests taken from the files at hand; a run
    about others fails. ``replay`` (level 3) returns fresh class counts for ``subset`` records
    drawn by ``seed`` (None: unpredictable, as an auditor wants it). Never raises for what is
    wrong with the run: that is what the checks say. Raises InvalidSetting for a wrong call, UntrustedFile
    where ``replay`` may not open the model.
    """
    if level not in (1, 2, 3) or (level == 3 and replay is None) or subset < 1:
        raise InvalidSetting(
            f"verification at level {level!r} is not possible",
            why="levels are 1, 2 and 3; level 3 needs a way to sample the model, and at least one input",
            remedy="use level=2, or pass replay=... and subset >= 1",
        )
    path = Path(path)
    try:
        stored = read_run(path)
    except CertifyError as error:
        return Verification(level, (Check("records", False, f"{error.what}: {error.why}"),))
    checks = [*_whole(stored), *_expected(stored, expect or {})]
    if level >= 2:
        checks += [Check(name, ok, detail) for name, ok, detail in recompute(stored)]
    if level >= 3 and replay is not None:
        if all(check.ok for check in checks):
            checks.append(_replayed(stored, replay, subset, seed))
        else:
            checks.append(Check("replay", False, "not attempted: the checks before it failed"))
    return Verification(level, tuple(checks))


def _whole(stored: StoredRun) -> list[Check]:
    checks = [
        Check("records", True, f"{len(stored.run)} rows and the settings match their hashes"),
        _check("record schema", _first(_schema_faults(stored)), "every record follows the schema"),
        _check("arrays", _first(_array_faults(stored)), "every array file matches its hash"),
    ]
    try:
        manifest = read_manifest(stored.path)
    except CertifyError as error:
        return [*checks, Check("manifest", False, f"{error.what}: {error.why}")]
    found = violation(manifest, schema("manifest"))
    checks.append(_check("manifest schema", found, "an in-toto statement"))
    if found is None:
        checks.append(
            _check("manifest", _first(_manifest_faults(stored, manifest)), "describes these records")
        )
    checks.append(_check("certificates.csv", _csv_fault(stored), "is what the records say"))
    return checks


def _schema_faults(stored: StoredRun):
    rule = schema("record")
    for record in stored.run:
        if found := violation(record.to_json(), rule):
            yield f"input {record.index}: {found}"


def _array_faults(stored: StoredRun):
    for name in stored.array_names:
        try:
            stored.arrays(name)
        except CertifyError as error:
            yield error.why


def _manifest_faults(stored: StoredRun, manifest: Mapping[str, Any]):
    """Where the manifest and the records disagree: settings by name, digests by subject."""
    says, ours = manifest["predicate"], build(stored)
    yield from (
        f"setting {key} is {there!r} in the manifest and {here!r} in the records"
        for key, there, here in run_settings.differences(
            run_settings.split(says["settings"])[0], run_settings.split(stored.settings)[0]
        )
    )
    described = {"versions", "hardware"}  # of the machine that wrote it, not of the one that verifies
    for key in sorted({*says, *ours["predicate"]} - described):
        if says.get(key) != ours["predicate"].get(key):
            yield f"{key} is not in the manifest what it is in the records"
    theirs = {s["name"]: s["digest"]["sha256"] for s in manifest["subject"]}
    for subject in ours["subject"]:
        name, digest = subject["name"], subject["digest"]["sha256"]
        if theirs.pop(name, None) != digest:
            yield f"the digest of {name} is not the one in the manifest"
    for name in theirs:
        yield f"the manifest speaks of {name}, the records do not"


def _csv_fault(stored: StoredRun) -> str | None:
    file = stored.path / CERTIFICATES
    if not file.is_file():
        return "the file is missing"
    if file.read_bytes() == to_csv(stored.run).encode():
        return None
    return f"the file does not say what the records say (its SHA-256 is {sha256_file(file)[:12]}...)"


def _expected(stored: StoredRun, expect: Mapping[str, str]):
    for part, digest in expect.items():
        named = inputs_digest(stored.run) if part == "data" else None
        found = named or (stored.settings.get(part) or {}).get("digest")
        same = found == digest
        detail = f"the run is about {str(found)[:12]}..., the one at hand is {digest[:12]}..."
        yield Check(f"same {part}", same, f"{part} {digest[:12]}..." if same else detail)


def _replayed(stored: StoredRun, replay: Replay, subset: int, seed: int | None) -> Check:
    certified = [r for r in stored.run if r.certified]
    if not certified:
        return Check("replay", True, "no certificate to replay")
    rng = random.SystemRandom() if seed is None else random.Random(seed)
    picked = sorted(rng.sample(certified, min(subset, len(certified))), key=lambda r: r.index)
    try:
        fresh = replay(picked)
    except UntrustedFile:
        raise  # it was asked for less than it needs: that says nothing about the run
    except CertifyError as error:
        return Check("replay", False, f"{error.what}: {error.why}; {error.remedy}")
    names = ", ".join(str(r.index) for r in picked)
    if stored.settings.get("task") == "segmentation":
        fault = dense_consistent(stored, picked, fresh)
    elif stored.settings.get("scores", "votes") in ("soft", "distribution"):
        fault = scores_consistent(picked, fresh, stored.settings)
    else:
        fault = consistent(picked, fresh, stored.settings)
    return _check("replay", fault, f"inputs {names} agree with fresh noise")


def _check(name: str, fault: str | None, fine: str) -> Check:
    return Check(name, fault is None, fine if fault is None else fault)


def _first(faults) -> str | None:
    """The first fault, and how many more there are."""
    found = list(faults)
    if not found:
        return None
    return found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


__all__ = ["Check", "Verification", "records_digest", "verify"]
