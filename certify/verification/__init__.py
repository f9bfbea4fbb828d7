"""Check a run without believing it: hashes, arithmetic, and fresh noise.

Level 1: the directory is whole and says one thing everywhere (schema, hashes, manifest, CSV).
Level 2: every bound and radius follows from the stored counts, by ``certify.verification.independent``.
Level 3: a random subset is sampled again with fresh noise and agrees with what was stored.

Levels 1 and 2 need neither torch nor the model. Level 3 gets its samples from the caller, who
knows how to build the classifier. What could not be looked at is *not checked*: neither for nor
against the run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from certify.calls import checked
from certify.errors import CertifyError, CorruptRun, EvidenceFails, InvalidSetting, NondeterministicModel
from certify.files.members import read_member
from certify.inputs import inputs_digest
from certify.records import Record, Status
from certify.store import records_digest
from certify.store import settings as run_settings
from certify.store.exports import to_csv
from certify.store.manifest import CERTIFICATES, build, read_manifest
from certify.store.read import StoredRun, read_run
from certify.store.schema import schema, violation
from certify.verification.bounds import recompute
from certify.verification.data import OpenRows, data_checks
from certify.verification.dense import dense_consistent
from certify.verification.outcome import EXIT_CODES, FAILS, HOLDS, NOT_CHECKED, Check, Verification
from certify.verification.plan import looks_of
from certify.verification.replay import consistent, counts_consistent, scores_consistent

#: Fresh class counts of the given records, by input index: what level 3 asks its caller for. For soft
#: scores, samples per bin of the certified class's score; for a segmentation run (votes (classes, height,
#: width), samples) in place of the counts.
Replay = Callable[[Sequence[Record]], Mapping[int, Any]]
#: Further checks by a caller who holds the model or the data: what they are, beside what the run says.
AtHand = Callable[[StoredRun], Iterable[Check]]

#: Errors of a replay that speak about the run. All others say that it could not be looked at.
_AGAINST = (EvidenceFails, CorruptRun, NondeterministicModel)


@checked
def verify(
    path: str | os.PathLike[str],
    *,
    level: int = 2,
    expect: Mapping[str, str] | None = None,
    replay: Replay | None = None,
    rows: OpenRows | None = None,
    subset: int = 20,
    seed: int | None = None,
    at_hand: AtHand | None = None,
) -> Verification:
    """Check the run directory ``path`` up to ``level`` (1, 2 or 3; each includes the ones before).

    ``expect`` maps "model" and "data" to SHA-256 digests taken from the files at hand; a run
    about others fails. ``at_hand`` returns further checks of the same kind. ``replay`` (level 3) returns
    fresh class counts for ``subset`` records drawn by ``seed`` (None: unpredictable, as an auditor wants
    it); ``rows`` (level 3) opens the data set, with which the inputs and labels of all records are compared.
    Never raises for what is wrong with the run or keeps it from being looked at: that is what the
    checks say. Raises InvalidSetting for a wrong call.
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
    if at_hand is not None:
        checks += _guarded("same model", lambda: at_hand(stored))
    if level >= 2:
        checks += [Check(*found) for found in recompute(stored)]
    if level >= 3 and rows is not None:
        checks += _guarded("data", lambda: data_checks(stored, rows))
    if level >= 3 and replay is not None:
        checks += _replayed(stored, checks, replay, subset, seed)
    return Verification(level, tuple(checks))


def _whole(stored: StoredRun) -> list[Check]:
    checks = [
        Check("records", True, f"{len(stored.run)} rows and the settings match their hashes"),
        # Reading refuses what does not.
        Check("record schema", True, "every record follows the schema"),
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
        f"setting {key} is {str(there)[:80]!r} in the manifest and {str(here)[:80]!r} in the records"
        for key, there, here in run_settings.differences(
            run_settings.split(says["settings"])[0], run_settings.split(stored.settings)[0]
        )
    )
    described = {"versions", "hardware"}  # of the machine that wrote it, not of the one that verifies
    for key in sorted({*says, *ours["predicate"]} - described):
        if says.get(key) != ours["predicate"].get(key):
            yield f"{key} is not in the manifest what it is in the records"
    theirs = {s["name"]: s["digest"]["sha256"] for s in manifest["subject"]}
    if len(theirs) != len(manifest["subject"]):
        yield "the manifest names a subject twice"
    for subject in ours["subject"]:
        name, digest = subject["name"], subject["digest"]["sha256"]
        if theirs.pop(name, None) != digest:
            yield f"the digest of {name} is not the one in the manifest"
    for name in theirs:
        yield f"the manifest speaks of {name}, the records do not"


def _csv_fault(stored: StoredRun) -> str | None:
    wanted, file = to_csv(stored.run).encode(), stored.path / CERTIFICATES
    if not os.path.lexists(file):
        return "the file is missing"
    try:
        found = read_member(file, "table", most=len(wanted) + 1)
    except CertifyError as error:
        return error.why
    return None if found == wanted else "the file does not say what the records say"


def _expected(stored: StoredRun, expect: Mapping[str, str]):
    for part, digest in expect.items():
        named = inputs_digest(stored.run) if part == "data" else None
        found = named or (stored.settings.get(part) or {}).get("digest")
        same = found == digest
        detail = f"the run is about {str(found)[:12]}..., the one at hand is {digest[:12]}..."
        yield Check(f"same {part}", same, f"{part} {digest[:12]}..." if same else detail)


def _replayed(
    stored: StoredRun, checks: Sequence[Check], replay: Replay, subset: int, seed: int | None
) -> list[Check]:
    """Level 3, where the levels before it leave something to compare."""
    if not all(check.ok for check in checks):
        return [Check("replay", None, "not attempted: not every check before it holds")]
    counted = stored.settings.get("task") == "population"
    certified = [r for r in stored.run if (r.status is Status.COUNTED if counted else r.certified)]
    if not certified:
        return [Check("replay", True, "no certificate to replay")]
    rng = random.SystemRandom() if seed is None else random.Random(seed)
    picked = sorted(rng.sample(certified, min(subset, len(certified))), key=lambda r: r.index)

    def compared() -> Iterable[Check]:
        fault = _disagreement(stored, picked, replay(picked))
        names = ", ".join(str(r.index) for r in picked) if len(picked) <= 40 else f"({len(picked)} of them)"
        yield _check("replay", fault, f"inputs {names} agree with fresh noise")

    return _guarded("replay", compared)


def _disagreement(stored: StoredRun, picked: Sequence[Record], fresh: Mapping[int, Any]) -> str | None:
    settings, among = stored.settings, len(stored.run)
    if settings.get("task") == "segmentation":
        return dense_consistent(stored, picked, fresh)
    if settings.get("task") == "population":
        return counts_consistent(picked, fresh, inputs=among)
    # Level 2 held the plan's looks, where there is one, to be those of the settings.
    how: dict[str, int] = {"looks": len(looks_of(settings["mode_options"])), "inputs": among}
    if settings.get("scores", "votes") in ("soft", "distribution"):
        return scores_consistent(picked, fresh, settings, **how)
    return consistent(picked, fresh, settings, **how)


def _guarded(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """What a caller's checks say; an error that is not about the run means that they could not look."""
    try:
        return list(checks())
    except _AGAINST as error:
        return [Check(name, False, f"{error.what}: {error.why}; {error.remedy}")]
    except CertifyError as error:
        return [Check(name, None, f"{error.what}: {error.why}; {error.remedy}")]


def _check(name: str, fault: str | None, fine: str) -> Check:
    return Check(name, fault is None, fine if fault is None else fault)


def _first(faults) -> str | None:
    """The first fault, and how many more there are."""
    found = list(faults)
    if not found:
        return None
    return found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


__all__ = [
    "EXIT_CODES", "FAILS", "HOLDS", "NOT_CHECKED", "Check", "Verification", "records_digest", "verify",
]  # fmt: skip
