"""The boundaries of a run's sequential tests, written down so that others can check them.

A sequential certificate says: at a look fixed beforehand, the class's count had reached the
boundary of a target probability. What makes that a proof is the boundary's error probability,
which anyone can recompute from the table alone; how the table was designed does not matter.
The table is stored in the run as the document ``PLAN``.
"""

from __future__ import annotations

from typing import Any

PLAN = "plan"


def plan_of(procedure: Any) -> dict[str, Any] | None:
    """``{"looks": (J,), "targets": (M,), "accept": (M, J)}`` as JSON types, or None without looks.

    ``targets`` are the probabilities that are tested, the noise's total variation error included.
    """
    if hasattr(procedure, "tests"):
        tests = procedure.tests
        looks, targets, accept = tests.looks, tests.targets, tests.accept
    elif hasattr(procedure, "test"):
        test = procedure.test
        looks, targets, accept = test.looks, [test.p_target], [test.accept]
    else:
        return None
    return {
        "looks": [int(n) for n in looks],
        "targets": [float(p) for p in targets],
        "accept": [[int(k) for k in row] for row in accept],
    }
