"""What the audit adds to a run: the same inputs certified with and without it, in turns.

    python benchmarks/audit_cost.py --small            a minute: a few samples only
    python benchmarks/audit_cost.py                    writes results/audit_cost.json

A ResNet-20 on 3x32x32 images, as it is drawn: what a forward pass costs does not depend on its weights.
"share" is the time of the rows evaluated alone over that of the run they are part of, measured inside one
run; "with / without" compares whole runs that take turns, since a machine's speed drifts, in wall time and
in CPU time of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import contextmanager
from typing import Any

import torch
from common import RESULTS, machine

import certify
from certify import registry
from certify.procedures import make_procedure
from certify.sampling.audit import Audit
from certify.sampling.engine import drive

SIGMA, SHAPE = 0.25, (3, 32, 32)
MODES: dict[str, dict[str, Any]] = {
    "radius, n_max = 100,000": {"mode": "radius", "n_max": 100_000},
    "radius, n_max = 10,000": {"mode": "radius", "n_max": 10_000},
    "decide 0.5": {"mode": "decide", "radius": 0.5, "n_max": 100_000},
}


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    net = registry.architecture("resnet")(num_classes=10, input_shape=SHAPE, depth=20).eval()
    x = torch.rand(options.inputs, *SHAPE).mul(255).round() / 255
    smoothed = certify.Smoothed(net, SIGMA, num_classes=10)
    found = {}
    for name, asked in MODES.items():
        if options.small and "100,000" in name:
            continue
        procedure = make_procedure(sigma=SIGMA, tv=smoothed.noise.tv(x[0].numel()), **asked)
        sampler = smoothed._sampler(x, seed=0, purpose="certify", procedure=procedure)
        audit, rows = sampler.audit, []
        for turn in range(options.turns):
            for sampler.audit in (audit, None) if turn % 2 == 0 else (None, audit):
                rows.append(_run(sampler, procedure, smoothed, x))
        found[name] = _summary(rows)
        print(name, json.dumps(found[name]), flush=True)
    result = {
        "machine": machine(),
        "lanes": smoothed._lanes,
        "batch_size": smoothed.batch_size,
        "modes": found,
    }
    if not options.small:
        (RESULTS / "audit_cost.json").write_text(json.dumps(result, indent=2) + "\n")


def _run(sampler: Any, procedure: Any, smoothed: Any, x: torch.Tensor) -> dict[str, Any]:
    """One run of all inputs: its times, its samples, and what was spent on rows evaluated alone."""
    spent = [0.0, 0.0]
    inputs = ((i, smoothed._prepared(row)) for i, row in enumerate(x))
    with _timed_audits(spent):
        began = time.perf_counter(), time.process_time()
        done = list(drive(sampler, procedure, inputs))
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "audited": sampler.audit is not None,
        "wall": wall,
        "cpu": cpu,
        "alone wall": spent[0],
        "alone cpu": spent[1],
        "samples": sum(outcome.samples for _, outcome, _, _ in done),
        "rows": sum(audit.get("rows", 0) for *_, audit in done),
    }


@contextmanager
def _timed_audits(spent: list[float]):
    inner = Audit.run

    def timed(*args: Any) -> Any:
        began = time.perf_counter(), time.process_time()
        try:
            return inner(*args)
        finally:
            spent[0] += time.perf_counter() - began[0]
            spent[1] += time.process_time() - began[1]

    Audit.run = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Audit.run = inner  # type: ignore[method-assign]


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    one, other = ([r for r in rows if r["audited"] is audited] for audited in (True, False))
    middle = statistics.median
    return {
        "samples": one[0]["samples"],
        "rows": one[0]["rows"],
        "share": round(middle(r["alone wall"] / r["wall"] for r in one), 5),
        "share, CPU": round(middle(r["alone cpu"] / r["cpu"] for r in one), 5),
        "with / without": round(middle(r["wall"] for r in one) / middle(r["wall"] for r in other), 4),
        "with / without, CPU": round(middle(r["cpu"] for r in one) / middle(r["cpu"] for r in other), 4),
        "seconds": round(middle(r["wall"] for r in one), 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="short runs only; writes nothing")
    parser.add_argument("--inputs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
