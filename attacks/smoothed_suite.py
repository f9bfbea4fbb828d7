"""Run the smoothed preset on a batch of inputs of a smoothed classifier."""

from __future__ import annotations

import time
from typing import Any

import torch
from scipy.stats import norm as gaussian

from attacks.confirmation import Confirmer
from attacks.job import Job, Tally
from attacks.outcomes import AttackOutcome
from attacks.problem import Problem
from attacks.smoothed import Blur, on_lattice, sigma_of, smoothed_minimal, smoothed_pgd


def attack_smoothed(g: Any, problem: Problem, job: Job) -> list[AttackOutcome]:
    """Outcomes of the problem's inputs; only flips that are confirmed with fresh noise count.

    ``problem.x`` must lie where the smoothed classifier is defined; candidates are moved there
    before they are judged. An input whose own class the prediction test cannot establish counts as
    a clean error, unless it was certified.
    """
    ids, budget = problem.streams.ids, job.budget
    confirmer = Confirmer(
        g, p=problem.p, box=problem.box, seed=job.seed, samples=budget.confirm_samples,
        alpha=budget.alpha, tries=budget.tries,
    )  # fmt: skip
    answers = confirmer.clean(problem.x, ids)
    target = problem.y.tolist()
    correct = [
        a.label == t or (job.certified and a.label is None) for a, t in zip(answers, target, strict=True)
    ]
    tally = Tally(job, problem, True, correct)
    for i, answer in enumerate(answers):
        if not tally.correct[i]:
            tally.facts[i] = {"details": {"label": answer.label, "counts": [int(c) for c in answer.counts]}}
    rows = tally.standing()
    if rows:
        began = time.perf_counter()
        part = problem.take(torch.tensor(rows, device=problem.x.device))
        candidates = _candidates(g, part, job)
        tally.charge(rows, time.perf_counter() - began)
        _confirm(g, confirmer, part, candidates, tally, rows)
        tally.notify("smoothed")
    spent = confirmer.samples
    for row in range(len(problem)):
        attempts = int(tally.facts[row].get("details", {}).get("attempt", 0))
        problem.oracle.forwards[row] += spent * (1 + attempts)
    return tally.outcomes()


def _candidates(g: Any, part: Problem, job: Job) -> list[torch.Tensor]:
    budget, sigma = job.budget, sigma_of(g)
    if job.threat.eps is not None:
        return smoothed_pgd(part, sigma, draws=budget.draws)
    # The vote gap that a test with these samples confirms with room to spare.
    tail = gaussian.isf(budget.alpha / budget.tries / 2)
    gap = 1.1 * tail / budget.confirm_samples**0.5
    return smoothed_minimal(
        part,
        sigma,
        snap=g.to_grid,
        draws=budget.draws,
        refine_draws=budget.refine_draws,
        gap=min(gap, 0.5),
    )


def _confirm(
    g: Any, confirmer: Confirmer, part: Problem, candidates: list[torch.Tensor], tally: Tally, rows: list[int]
) -> None:
    """Ask about each candidate that the attack itself believes in, nearest first, until one is confirmed."""
    fixed = tally.job.threat.eps is not None
    name = "smoothed-pgd" if fixed else "smoothed-minimal"
    left = torch.arange(len(rows))
    for attempt, candidate in enumerate(candidates[: confirmer.tries], start=1):
        began = time.perf_counter()
        now = part.take(left)
        sizes = now.eps if fixed else None
        x_adv = on_lattice(g.to_grid, now.x, candidate[left], sizes, now.p)
        hits = torch.arange(len(now))
        if fixed:  # a minimal candidate was already chosen by its votes
            gap = Blur(sigma_of(g), now).vote_gap(x_adv, now.y, 256, f"claim/{attempt}")
            hits = (gap > 0).nonzero().squeeze(1)
        asked = now.take(hits)
        eps = asked.eps if fixed else None
        answers = confirmer.confirm(asked.x, asked.y, x_adv[hits], eps, asked.streams.ids, attempt)
        for k, answer in zip(hits.tolist(), answers, strict=True):
            details = {"counts": list(answer.counts), "p_value": answer.p_value, "attempt": attempt}
            tally.settle(rows[int(left[k])], name, answer, x_adv[k], details)
        tally.charge([rows[k] for k in left.tolist()], time.perf_counter() - began)
        broken = torch.zeros(len(left), dtype=torch.bool)
        broken[hits.cpu()] = torch.tensor([a.broken for a in answers], dtype=torch.bool)
        left = left[~broken]
        if not len(left):
            return
