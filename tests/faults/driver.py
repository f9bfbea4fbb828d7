"""A writer to be killed: `python -m tests.faults.driver DIRECTORY ROWS` resumes and finishes a run.

Prints each input's index once its row is durable, then the digest. Exit 3: the disk said no;
4: another process holds the run. Records are a function of the index alone.
"""

from __future__ import annotations

import sys

from certify.errors import RunConflict, RunNotWritable
from certify.records import Record, Status
from certify.store import open_run, records_digest

SETTINGS = {"alpha": 0.001, "sigma": 0.25, "mode": "fixed", "model": {"digest": "a" * 64}, "command": "c"}
GUARANTEE = "a promise"


def record(index: int) -> Record:
    k = 5000 + (index * 997) % 5000
    return Record(
        index=index,
        status=Status.CERTIFIED,
        label=index % 3,
        target=index % 4,
        radius=k / 1e5 / 3,
        radius_upper=k / 1e5 / 2,
        p_lower=k / 1e4,
        samples=10_000,
        counts=(k, 10_000 - k),
        seconds=index / 7,
        details={"looks": [index, index + 1]},
    )


def expected(rows: int) -> str:
    return records_digest([record(i) for i in range(rows)])


def main(path: str, rows: int) -> int:
    try:
        with open_run(path, SETTINGS, GUARANTEE) as store:
            print("open", flush=True)
            for i in range(rows):
                if not store.has(i):
                    store.add(record(i))
                    print(i, flush=True)
            store.put_document("notes", {"rows": rows})
            digest = store.digest()
    except RunConflict as refused:
        print(refused, file=sys.stderr)
        return 4
    except RunNotWritable as refused:
        print(refused, file=sys.stderr)
        return 3
    print(digest, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
