"""Runs of every mode without a model: votes are drawn from known class probabilities."""

from __future__ import annotations

import numpy as np

from certify.geometry import GaussianBall
from certify.issued import issued
from certify.procedures import make_procedure
from certify.records import Record
from certify.store import open_run
from certify.verification.witness import PLAN, plan_of
from tests.certify.sample_run import GUARANTEE, settings

SIGMA, ALPHA = 0.5, 0.001
BALL = GaussianBall(SIGMA, 2.0, 2)
OPTIONS = {
    "fixed": {"n0": 100, "n": 1000},
    "decide": {"radius": 0.25},
    "grid": {"step": 0.25},
    "radius": {"slack": 0.1},
}
SHARES = (0.35, 0.55, 0.72, 0.9, 0.99, 0.9999)


def procedure(mode, *, alpha=ALPHA, tv=1e-9, n_max=1000, **extra):
    options = OPTIONS[mode] | extra | ({} if mode == "fixed" else {"n_max": n_max})
    return make_procedure(mode, alpha=alpha, sigma=SIGMA, tv=tv, **options)


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
        records.append(issued(index, index % 3, o, BALL, 0.1))
    return records


def described(mode, plan, **changes):
    return settings(
        mode=mode, sigma=SIGMA, alpha=ALPHA, mode_options=plan.settings(), scores="votes", **changes
    )


def write(path, mode, records=None, *, plan=None, plan_document=None, **changes):
    """A whole run directory with honest hashes, whatever the records say."""
    plan = procedure(mode) if plan is None else plan
    records = certify_votes(plan) if records is None else records
    guarantee = f"{GUARANTEE} {plan.guarantee()}"
    with open_run(path, described(mode, plan) | changes, guarantee) as store:
        document = plan_of(plan) if plan_document is None else plan_document
        if document:
            store.put_document(PLAN, document)
        for record in records:
            store.add(record)
    return records
