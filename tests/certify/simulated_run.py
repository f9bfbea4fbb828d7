"""Runs of every mode without a model: votes are drawn from known class probabilities."""

from __future__ import annotations

import numpy as np

from certify.procedures import make_procedure
from certify.radii import radius_down
from certify.records import Record, Status
from certify.store import open_run
from certify.verification.witness import PLAN, plan_of
from tests.certify.sample_run import GUARANTEE, settings

SIGMA, ALPHA = 0.5, 0.001
OPTIONS = {
    "fixed": {"n0": 100, "n": 1000},
    "decide": {"radius": 0.25},
    "grid": {"step": 0.25},
    "radius": {"slack": 0.1},
}
SHARES = (0.35, 0.55, 0.72, 0.9, 0.99, 0.9999)


def procedure(mode, *, alpha=ALPHA, tv=1e-9, n_max=1000):
    extra = {} if mode == "fixed" else {"n_max": n_max}
    return make_procedure(mode, alpha=alpha, sigma=SIGMA, tv=tv, **extra, **OPTIONS[mode])


def certify_votes(plan, shares=SHARES, *, repeats=2, seed=3) -> list[Record]:
    """One record per share and repeat; input i leans to class i % 3."""
    rng = np.random.default_rng(seed)
    records = []
    for index, share in enumerate(list(shares) * repeats):
        p = np.full(3, (1 - share) / 2)
        p[index % 3] = share
        progress, counts, drawn = plan.start(), np.zeros(3, dtype=np.int64), 0
        while (wanted := progress.wanted()) is not None:
            counts = counts + rng.multinomial(wanted - drawn, p)
            drawn = wanted
            progress.look(counts)
        o = progress.outcome()
        records.append(
            Record(
                index=index,
                status=o.status,
                label=o.label,
                target=index % 3,
                radius=o.radius(SIGMA) if o.status is Status.CERTIFIED else 0.0,
                radius_upper=radius_down(o.p_upper, SIGMA),
                p_lower=o.p_lower,
                p_upper=o.p_upper,
                pb_lower=o.pb_lower,
                pb_upper=o.pb_upper,
                samples=o.samples,
                counts=o.counts,
                seconds=0.1,
                details=o.details,
            )
        )
    return records


def described(mode, plan, **changes):
    return settings(
        mode=mode, sigma=SIGMA, alpha=ALPHA, mode_options=plan.settings(), scores="votes", **changes
    )


def write(path, mode, records=None, *, plan_document=None, **changes):
    """A whole run directory with honest hashes, whatever the records say."""
    plan = procedure(mode)
    records = certify_votes(plan) if records is None else records
    guarantee = f"{GUARANTEE} {plan.guarantee()}"
    with open_run(path, described(mode, plan) | changes, guarantee) as store:
        document = plan_of(plan) if plan_document is None else plan_document
        if document:
            store.put_document(PLAN, document)
        for record in records:
            store.add(record)
    return records
