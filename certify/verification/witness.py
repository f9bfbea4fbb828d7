"""The boundaries of a run's sequential tests, written down so that others can check them.

A sequential certificate says: at a look fixed beforehand, the class's count had reached the
boundary of a target probability. What makes that a proof is the boundary's error probability,
which anyone can recompute from the table alone; how the table was designed does not matter.
The table is stored in the run as the document ``PLAN``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certify.canonical import canonical
from certify.errors import RunConflict

if TYPE_CHECKING:
    from certify.store import RunStore

PLAN = "plan"


def declare(store: RunStore, procedure: Any) -> None:
    """Write the procedure's boundaries into the run before its first sample.

    Raises RunConflict if the run was begun with other boundaries (another release, say):
    its earlier records rest on those.
    """
    body = plan_of(procedure)
    there = store.document(PLAN)
    if body is None or (there is not None and canonical(there) == canonical(body)):
        return
    if there is not None:
        raise RunConflict(
            f"{store.path} was begun with other boundaries for its sequential tests",
            why="its records rest on the boundaries that were declared before its first sample",
            remedy="give this run another directory with --out",
        )
    store.put_document(PLAN, body)


def plan_of(procedure: Any) -> dict[str, Any] | None:
    """``{"looks": (J,), "targets": (M,), "accept": (M, J)}`` as JSON types, or None without looks.

    ``targets`` are the probabilities that are tested, the noise's total variation error included.
    ``uncontested``, where there is one, is the rule of the last look beside the first boundary:
    its votes, the rival's, and the split that proves it. ``runner_up``, where the other classes are bounded,
    too: for each gap between targets its cap and level, the other levels, and what each look uses of them.
    """
    if hasattr(procedure, "tests"):
        tests = procedure.tests
        looks, targets, accept, rule = tests.looks, tests.targets, tests.accept, tests.uncontested
    elif hasattr(procedure, "test"):
        test = procedure.test
        looks, targets, accept, rule = test.looks, [test.p_target], [test.accept], test.uncontested
    else:
        return None
    body: dict[str, Any] = {
        "looks": [int(n) for n in looks],
        "targets": [float(p) for p in targets],
        "accept": [[int(k) for k in row] for row in accept],
    }
    if rule is not None:
        body["uncontested"] = {"votes": rule.votes, "rival": rule.rival, "split": rule.split}
    if procedure.runner_up:
        gaps = procedure.gaps
        body["runner_up"] = {
            "caps": [float(g.cap) for g in gaps.gaps],
            "levels": [float(g.level) for g in gaps.gaps],
            "rivals": gaps.rival_level,
            "apart": gaps.apart_level,
            "weights": [float(w) for w in gaps.weights],
        }
    return body
