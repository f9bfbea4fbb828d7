"""What binds the sessions and the shards of a run to one data set.

Every session records one hash each over the ids, the inputs and the labels of the data set that it was
started on, before any division into shards. Two sessions with equal ids must agree on the rest; records are
compared one by one where the ids differ (``certify.inputs.Rows``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from certify.errors import CertifyError, EvidenceFails, RunConflict
from certify.inputs import Rows
from certify.records import Record
from certify.store.read import StoredRun

_WHAT = {"inputs": "the values of its inputs", "labels": "its labels"}


def continued(
    where: object,
    sessions: Sequence[Mapping[str, Any]],
    recorded: dict[str, Any],
    records: Sequence[Record],
    rows: Rows | None,
) -> dict[str, Any]:
    """The settings ``recorded`` of a session that goes on with a run, with its history under "data".

    ``extended`` lists how many results were there each time when a session brought new inputs. Raises
    EvidenceFails where ``rows`` or the whole data set are not those of the records and of earlier sessions.
    """
    if rows is not None:
        rows.refuse_other(records, where)
    data = _data(recorded)
    if "ids" not in data:
        return recorded
    earlier = [_data(session) for session in sessions]
    same = [old for old in earlier if old.get("ids") == data["ids"]]
    if same and records:
        _refuse_difference(f"{where} was started on other data", same[-1], data)
    extended: list[int] = list(earlier[-1].get("extended") or ()) if earlier else []
    known = {r.index for r in records}
    if known and not same and rows is not None and not known >= set(rows.inputs):
        extended.append(len(known))
    data = {key: value for key, value in data.items() if key != "extended"}
    return recorded | {"data": data | ({"extended": extended} if extended else {})}


def refuse_other_data(shards: Sequence[StoredRun], rows: Callable[[Iterable[int]], Rows] | None) -> None:
    """Raise RunConflict where shards are not shown to be parts of one data set.

    Sessions on the same ids must agree on inputs and labels. Shards that share no such session are compared
    with the data itself: ``rows`` opens it, for these ids. Runs that name no data set (made from arrays in
    Python) are taken as they are, and so are shards that all were written before data sets were recorded.
    """
    known: dict[str, tuple[Mapping[str, Any], StoredRun]] = {}
    apart = False
    for place, shard in enumerate(shards):
        newest = {data["ids"]: data for data in map(_data, shard.sessions) if "ids" in data}
        common = [ids for ids in newest if ids in known]
        for ids in common:
            there, other = known[ids]
            _refuse_difference(f"{other.path} and {shard.path} certified different data", there, newest[ids])
        apart |= place > 0 and not common and bool(newest or known)
        known |= {ids: (data, shard) for ids, data in newest.items()}
    if apart and all("name" in _data(shard.settings) for shard in shards):
        _compare(shards, rows)


def described(
    data: Mapping[str, Any], shards: Sequence[StoredRun], records: Sequence[Record]
) -> dict[str, Any]:
    """What a merged run says of its data: that of its shards where they agree, else that of its records."""
    ids = {_data(shard.settings).get("ids") for shard in shards}
    extended = [list(_data(shard.settings).get("extended") or ()) for shard in shards]
    kept = {key: value for key, value in data.items() if key != "extended"}
    if len(ids) > 1 and None not in ids:
        kept |= Rows.recorded(records).named()
    longest = max(extended, key=len, default=[])
    return kept | ({"extended": longest} if longest else {})


def _compare(shards: Sequence[StoredRun], rows: Callable[[Iterable[int]], Rows] | None) -> None:
    why = "no session of one saw the inputs of the other, and the data was not there to compare"
    cause: CertifyError | None = None
    if rows is not None:
        try:
            found = rows([r.index for shard in shards for r in shard.run])
        except CertifyError as error:
            why, cause = f"{why} ({error.what})", error
        else:
            for shard in shards:
                found.refuse_other(shard.run, shard.path, resuming=False)
            return
    raise RunConflict(
        f"nothing shows that {shards[0].path} and {shards[-1].path} are parts of one data set",
        why=why,
        remedy="merge where the data can be opened (--data-root), or divide one data set with --shard i/n",
    ) from cause


def _refuse_difference(what: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differ = [words for key, words in _WHAT.items() if there.get(key) != now.get(key)]
    if differ:
        raise EvidenceFails(
            what,
            why=f"the ids are the same, {' and '.join(differ)} are not: files were changed in between",
            remedy="use the data the run was made with, or certify this data into another directory",
        )


def _data(settings: Mapping[str, Any]) -> dict[str, Any]:
    data = settings.get("data")
    return dict(data) if isinstance(data, Mapping) else {}
