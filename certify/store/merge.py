"""Put the shards of one run together; the result is the run a single machine would have written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from certify.canonical import canonical
from certify.dense.maps import arrays_name
from certify.errors import CertifyError, InvalidInput, RunConflict
from certify.inputs import Rows
from certify.population.statements import conclude, is_population
from certify.records import Run
from certify.store import RunStore, bound, open_run, records_digest
from certify.store import settings as run_settings
from certify.store.manifest import read_manifest
from certify.store.read import StoredRun, read_run
from certify.store.schema import schema, violation
from certify.verification.witness import PLAN


def merge(
    shards: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    command: str | None = None,
    rows: Callable[[Iterable[int]], Rows] | None = None,
) -> Run:
    """Merge the run directories ``shards`` into ``out`` and return the whole run.

    Every shard must have ended in good order (its manifest describes its records), all must
    have the same binding settings and guarantee, every shard i of n must be there, and an
    input that two shards hold must have the same record in both. Records and the boundaries
    they rest on are merged; attacks and bounds are statements about a whole run and are made
    on the merged one. What a run states about a population is stated once all its inputs are there. Shards
    must have been started on one data set, by the hashes they recorded; where these
    cannot tell, ``rows`` (ids -> ``certify.inputs.Rows``) opens the data, and every record is compared.
    Raises RunConflict, EvidenceFails, InvalidInput, or what ``read_run`` raises; ``out`` is then not written.
    """
    stored = [read_run(path) for path in shards]
    if not stored:
        raise InvalidInput(
            "nothing to merge", why="no shard was given", remedy="name the shards' directories"
        )
    first = stored[0]
    binding, recorded = run_settings.split(first.settings)
    for other in stored[1:]:
        run_settings.refuse_difference(
            f"{first.path}, unlike {other.path},", binding, run_settings.split(other.settings)[0]
        )
        run_settings.refuse_other_scores(str(other.path), other.sessions, recorded, ())
        if other.guarantee != first.guarantee:
            raise RunConflict(
                f"{first.path} and {other.path} were promised different guarantees",
                why=f"one says: {first.guarantee} The other: {other.guarantee}",
                remedy="merge shards that were written by one release with one command",
            )
    for shard in stored:
        _refuse_unfinished(shard)
    _refuse_gaps(stored)
    _refuse_contradiction(stored)
    bound.refuse_other_data(stored, rows)
    plan = _common_plan(stored)
    environment = {k: v for k, v in (recorded.get("environment") or {}).items() if k != "shard"}
    recorded |= {"environment": environment | {"merged": len(stored)}}
    if command is not None:
        recorded["command"] = command
    if recorded.get("data"):
        records = [record for shard in stored for record in shard.run]
        recorded["data"] = bound.described(recorded["data"], stored, records)
    with open_run(out, run_settings.join(binding, recorded), first.guarantee) as store:
        if plan is not None:
            store.put_document(PLAN, plan)
        for shard in stored:
            for record in shard.run:
                _copy_maps(shard, store, record.index)
            store.add_all(shard.run)
        if is_population(first.settings):
            conclude(store)
        return store.run()


def _copy_maps(shard: StoredRun, store: RunStore, index: int) -> None:
    """The maps of a segmented image; its record vouches for them by their hash."""
    name = arrays_name(index)
    if name in shard.array_names and store.arrays(name) is None:
        store.put_arrays(name, shard.arrays(name) or {})


def _common_plan(stored: Sequence[StoredRun]) -> Any:
    """The boundaries all shards declared before sampling."""
    plans = [shard.documents.get(PLAN) for shard in stored]
    for shard, plan in zip(stored, plans, strict=True):
        if canonical(plan) != canonical(plans[0]):
            raise RunConflict(
                f"{shard.path} was run with other boundaries than {stored[0].path}",
                why="their sequential tests declared different tables before the first sample",
                remedy="merge shards that were written by one release with one command",
            )
    return plans[0]


def _refuse_unfinished(shard: StoredRun) -> None:
    finished = False
    with contextlib.suppress(CertifyError):
        manifest = read_manifest(shard.path)
        if violation(manifest, schema("manifest")) is None:
            subjects = {s["name"]: s["digest"]["sha256"] for s in manifest["subject"]}
            finished = subjects.get("records") == records_digest(shard.run)
    if not finished:
        raise RunConflict(
            f"{shard.path} did not finish",
            why="its manifest is missing or does not describe the records that are there",
            remedy="run the same command on that shard again: it resumes and finishes",
        )


def _refuse_gaps(stored: Sequence[StoredRun]) -> None:
    """Shards that say which part they are (``environment.shard`` = "i/n") must be all n parts.

    Unless a run that is no shard holds all that they hold: then nothing is missing.
    """
    if any(_holds_all(run, stored) for run in stored):
        return
    named: dict[str, set[str]] = {}
    for shard in stored:
        for session in shard.sessions:
            part: Any = (session.get("environment") or {}).get("shard")
            if part is None:
                continue
            found = re.fullmatch(r"0*([1-9][0-9]{0,17})/0*([1-9][0-9]{0,17})", str(part))
            if found is None or int(found[1]) > int(found[2]):
                raise RunConflict(
                    f"{shard.path} says that it is shard {str(part)[:40]!r}",
                    why="a shard is i/n with 1 <= i <= n",
                    remedy="run the shards again with --shard 1/n to --shard n/n",
                )
            named.setdefault(found[2], set()).add(found[1])
    if not named:
        return
    if len(named) > 1:
        raise RunConflict(
            "these shards are parts of different divisions",
            why=f"they say they are one of {' and one of '.join(sorted(named))}",
            remedy="merge the n shards i/n of one n",
        )
    [(n, parts)] = named.items()
    if len(parts) < int(n):
        raise RunConflict(
            f"only {len(parts)} of {n} shards are here",
            why=f"given: {', '.join(f'{i}/{n}' for i in sorted(parts))}",
            remedy="run and name the missing shards",
        )


def _holds_all(run: StoredRun, stored: Sequence[StoredRun]) -> bool:
    """Whether ``run``, in no session a shard, holds every input of the others."""
    if any((session.get("environment") or {}).get("shard") is not None for session in run.sessions):
        return False
    held = {record.index for record in run.run}
    return all(record.index in held for other in stored for record in other.run)


def _refuse_contradiction(stored: Sequence[StoredRun]) -> None:
    seen: dict[int, tuple[str, Path]] = {}
    for shard in stored:
        for record in shard.run:
            text = records_digest([record])
            known, where = seen.setdefault(record.index, (text, shard.path))
            if known != text:
                raise RunConflict(
                    f"input {record.index} has different results in {where} and {shard.path}",
                    why="equal settings and noise give equal records, so one of them is wrong",
                    remedy="run `certify verify` on both, and run the one that fails again",
                )
