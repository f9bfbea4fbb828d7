"""Our attacks beside pyautoattack, torchattacks and foolbox: who breaks what, and for how much.

    python benchmarks/attack_strength.py --small     a minute: 24 digits
    python benchmarks/attack_strength.py             digits and MNIST, the table of docs/results.md

Every tool attacks the same inputs of the same model in one process. What a tool claims is judged by
``attacks.judge`` like our own candidates, so "broken" means the same thing in every row: inside the
ball and the box, and misclassified in single precision, double precision and alone. ``we miss``
counts inputs that the tool breaks, confirmed, and our preset ``standard`` does not; ``it misses``
the reverse. The peers are optional: ``pip install -c constraints.txt --no-deps pyautoattack
torchattacks foolbox eagerpy`` (and GitPython, which foolbox imports).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import certify
from attacks import Threat, attack
from attacks.confirmation import Confirmer
from attacks.judge import Judge
from attacks.losses import margin
from attacks.minimal import bisect
from attacks.oracle import Oracle
from attacks.problem import Problem
from attacks.smoothed import Blur, on_lattice, sigma_of, smoothed_pgd

try:
    import common
    from attack_fixtures import Fixture, fixtures
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks import common
    from benchmarks.attack_fixtures import Fixture, fixtures

DIGITS = (("cnn", "inf", 0.05), ("cnn", "2", 0.5), ("mlp", "inf", 0.05), ("mlp", "2", 0.5),
          ("cnn-pgd", "inf", 0.2), ("cnn-pgd", "2", 0.6), ("cnn", "1", 1.5))  # fmt: skip
MNIST = (("mnist-cnn", "inf", 0.1), ("mnist-cnn", "2", 1.0))


class Counted(nn.Module):
    """A model that counts the inputs it is evaluated and differentiated on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        out = self.model(x)
        if out.requires_grad:
            out.register_hook(self._differentiated)
        return out

    def _differentiated(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


Tool = Callable[[nn.Module, Tensor, Tensor, str, float], Tensor]


def pyautoattack_standard(model, x, y, p, eps) -> Tensor:
    import pyautoattack

    runner = pyautoattack.AutoAttack(model, norm=f"L{p}", eps=eps, seed=0, version="standard")
    runner.verbose = False
    return runner.run_standard_evaluation(x.clone(), y, batch_size=250)[0]


def torchattacks_at_strength(model, x, y, p, eps) -> Tensor:
    """torchattacks' four components with the official numbers of steps, each on what is left."""
    import torchattacks as ta

    norm, classes = f"L{p}", 10
    parts = (
        ta.APGD(model, norm=norm, eps=eps, steps=100, loss="ce"),
        ta.APGDT(model, norm=norm, eps=eps, steps=100, n_classes=classes),
        ta.FAB(model, norm=norm, eps=eps, steps=100, n_restarts=1, multi_targeted=True, n_classes=classes),
        ta.Square(model, norm=norm, eps=eps, n_queries=5000),
    )
    return _cascade(model, x, y, parts)


def torchattacks_autoattack(model, x, y, p, eps) -> Tensor:
    """torchattacks' own AutoAttack, which takes 10 steps where the official one takes 100."""
    import torchattacks as ta

    return ta.AutoAttack(model, norm=f"L{p}", eps=eps, version="standard", n_classes=10, seed=0)(x, y)


def foolbox_pgd(model, x, y, p, eps) -> Tensor:
    """foolbox's PGD, 100 steps of 2.5 eps / 100, five restarts."""
    import foolbox

    kind = (
        foolbox.attacks.LinfPGD
        if p == "inf"
        else foolbox.attacks.L2PGD
        if p == "2"
        else foolbox.attacks.L1PGD
    )
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    best = x.clone()
    for _ in range(5):
        left = (model(best).argmax(1) == y).nonzero().squeeze(1)
        if len(left):
            found = kind(rel_stepsize=2.5 / 100, steps=100)(wrapped, x[left], y[left], epsilons=eps)[1]
            best[left] = found.detach()
    return best


def _cascade(model, x, y, parts) -> Tensor:
    best = x.clone()
    for part in parts:
        left = (model(best).argmax(1) == y).nonzero().squeeze(1)
        if len(left):
            best[left] = part(x[left], y[left]).detach()
    return best


TOOLS: dict[str, tuple[str, Tool, tuple[str, ...]]] = {
    "pyautoattack": ("pyautoattack", pyautoattack_standard, ("1", "2", "inf")),
    "torchattacks, 100 steps": ("torchattacks", torchattacks_at_strength, ("2", "inf")),
    "torchattacks.AutoAttack": ("torchattacks", torchattacks_autoattack, ("2", "inf")),
    "foolbox PGD-100 x 5": ("foolbox", foolbox_pgd, ("1", "2", "inf")),
}


def compare(fixture: Fixture, p: str, eps: float) -> list[dict[str, Any]]:
    """One row per tool on one model and threat."""
    x, y, threat = fixture.x, fixture.y, Threat(p, eps)
    counted = Counted(fixture.model)
    began, cpu = time.perf_counter(), time.process_time()
    run = attack(counted, x, y, threat=threat, preset="standard", seed=0)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    ours = np.array([o.broken for o in run])
    standing = np.array([o.status == "survived" for o in run])
    clean = np.array([o.clean_correct for o in run])
    rows = [
        _row(
            fixture,
            p,
            eps,
            "standard (ours)",
            wall,
            cpu,
            counted,
            standing,
            run.counts()["unconfirmed"],
            0,
            0,
        )
    ]
    judge = Judge(fixture.model, p=threat.p, box=threat.box)
    for name, (package, tool, norms) in TOOLS.items():
        if p not in norms or importlib.util.find_spec(package) is None:
            continue
        counted = Counted(fixture.model).eval()
        began, cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = tool(counted, x, y, p, eps)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        claimed = clean & (fixture.model(found).argmax(1) != y).numpy()
        at = torch.from_numpy(claimed.nonzero()[0])
        verdicts = judge.verdicts(x[at], y[at], found[at], torch.full((len(at),), eps))
        broken = np.zeros(len(x), dtype=bool)
        broken[at.numpy()] = [v.broken for v in verdicts]
        missed_by_us, missed_by_it = int((broken & ~ours).sum()), int((ours & ~broken).sum())
        refused = int(claimed.sum() - broken.sum())
        rows.append(
            _row(
                fixture,
                p,
                eps,
                name,
                wall,
                cpu,
                counted,
                clean & ~broken,
                refused,
                missed_by_us,
                missed_by_it,
            )
        )
    peer = next((r for r in rows if r["tool"] == "pyautoattack"), None)
    for row in rows:
        row["time / pyautoattack"] = None if peer is None else row["seconds"] / peer["seconds"]
    return rows


def _row(fixture, p, eps, tool, wall, cpu, counted, standing, refused, we_miss, it_misses) -> dict[str, Any]:
    n = len(fixture.x)
    return {
        "model": fixture.name, "norm": p, "eps": eps, "inputs": n, "tool": tool,
        "survived": float(standing.mean()), "refused by the judge": refused, "we miss": we_miss,
        "it misses": it_misses, "seconds": wall, "cpu seconds": cpu,
        "forwards per input": counted.forwards / n, "backwards per input": counted.backwards / n,
    }  # fmt: skip


# -- minimal distances --------------------------------------------------------------------------


def minimal_l2(fixture: Fixture) -> list[dict[str, Any]]:
    """Smallest l2 distances: share of inputs within 1 % of the best that any attack here found."""
    keep = fixture.model(fixture.x).argmax(1) == fixture.y
    x, y, model = fixture.x[keep], fixture.y[keep], fixture.model
    found: dict[str, tuple[np.ndarray, float]] = {}
    began = time.perf_counter()
    run = attack(model, x, y, threat=Threat(2), preset="minimal", seed=0)
    found["minimal (ours)"] = (
        np.array([math.inf if o.distance is None else o.distance for o in run]), time.perf_counter() - began
    )  # fmt: skip
    for name, (package, tool) in MINIMAL.items():
        if importlib.util.find_spec(package) is None:
            continue
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            point = tool(model, x, y)
        # Every tool gets our bisection, so that only the point it found counts.
        one = Problem.of(Oracle(model, len(x)), x, y, eps=0.0, p=2.0, box=(0.0, 1.0), seed=0, classes=10)
        point = bisect(one, point)
        far = (point - x).flatten(1).double().norm(dim=1)
        far[model(point).argmax(1) == y] = math.inf
        found[name] = (far.numpy(), time.perf_counter() - began)
    best = np.min([d for d, _ in found.values()], axis=0)
    return [
        {
            "model": fixture.name, "inputs": len(x), "attack": name,
            "within 1 %": float((d <= 1.01 * best).mean()),
            "failed": int(np.isinf(d).sum()), "median ratio": float(np.median(d / best)),
            "95 % ratio": float(np.quantile(d / best, 0.95)), "seconds": seconds,
        }
        for name, (d, seconds) in found.items()
    ]  # fmt: skip


def fab_of_pyautoattack(model, x, y) -> Tensor:
    from pyautoattack.fab_pt import FABAttack_PT

    runner = FABAttack_PT(model, norm="L2", n_iter=100, eps=2.0, seed=0)
    best, near = x.clone(), torch.full((len(x),), math.inf)
    for start in (False, True):
        for target in range(2, 11):
            runner.target_class = target
            with torch.no_grad():
                point = runner.attack_single_run(x, y, use_rand_start=start, is_targeted=True)
            far = (point - x).flatten(1).norm(dim=1)
            won = (model(point).argmax(1) != y) & (far < near)
            best[won], near[won] = point[won], far[won]
    return best


def foolbox_minimal(kind: str, **options: Any) -> Callable[..., Tensor]:
    def run(model, x, y) -> Tensor:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        return getattr(foolbox.attacks, kind)(**options)(wrapped, x, y, epsilons=None)[0].detach()

    return run


MINIMAL: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "pyautoattack FAB-T-100, two starts": ("pyautoattack", fab_of_pyautoattack),
    "foolbox DDN-300": ("foolbox", foolbox_minimal("DDNAttack", steps=300)),
    "foolbox DeepFool": ("foolbox", foolbox_minimal("L2DeepFoolAttack")),
    "foolbox CW": ("foolbox", foolbox_minimal("L2CarliniWagnerAttack", steps=200, binary_search_steps=6)),
}


# -- the smoothed classifier --------------------------------------------------------------------


def smoothed(fixture: Fixture, *, n: int) -> list[dict[str, Any]]:
    """Certified radius over confirmed distance, and what confirmation refuses of claims from few draws."""
    g = certify.Smoothed(fixture.model, 0.25, num_classes=10, noise="lattice", grid=1 / 16)
    run = g.certify(fixture.x, fixture.y, mode="fixed", n=n, seed=7)
    began = time.perf_counter()
    broken = attack(g, fixture.x, fixture.y, threat=Threat(2), preset="smoothed", seed=3)
    seconds = time.perf_counter() - began
    ratio = [r.radius / o.distance for r, o in zip(run, broken, strict=True) if r.correct and o.broken]
    rows = [
        {
            "model": fixture.name, "inputs": len(run), "what": "minimal distance, confirmed",
            "count": len(ratio),
            "median certified / confirmed": float(np.median(ratio)), "smallest": min(ratio),
            "contradictions": len(run.contradictions(broken)), "seconds": seconds,
        }
    ]  # fmt: skip
    return rows + [_believed(g, run, fixture, draws) for draws in (1, 16)]


def _believed(g, run, fixture: Fixture, draws: int) -> dict[str, Any]:
    """What an attacker with ``draws`` draws per gradient believes to have found inside certified balls."""
    claims = [r for r in run if r.certified and r.radius > 0]
    x = g.to_grid(fixture.x[[r.index for r in claims]])
    label, radius = torch.tensor([r.label for r in claims]), torch.tensor([r.radius for r in claims])
    began = time.perf_counter()
    oracle, box = Oracle(fixture.model, len(x)), (0.0, 1.0)
    problem = Problem.of(oracle, x, label, eps=radius, p=2.0, box=box, seed=1, classes=10)
    point = smoothed_pgd(problem, sigma_of(g), draws=draws)[0]
    point = on_lattice(g.to_grid, x, point, problem.eps, 2.0)
    mean, _ = Blur(sigma_of(g), problem).ascend(point, label, draws, "belief")
    believed = (margin(mean, label) < 0).nonzero().squeeze(1)
    confirmer = Confirmer(g, p=2.0, box=box, seed=1, samples=4000, alpha=1e-3, tries=1)
    ids = [claims[i].index for i in believed.tolist()]
    answers = confirmer.confirm(x[believed], label[believed], point[believed], problem.eps[believed], ids, 1)
    return {
        "model": fixture.name, "inputs": len(claims),
        "what": f"believed with {draws} draws inside certified balls",
        "count": len(believed), "median certified / confirmed": None, "smallest": None,
        "contradictions": sum(a.broken for a in answers), "seconds": time.perf_counter() - began,
    }  # fmt: skip


# -- command ------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="24 digits, three threats")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--mnist-limit", type=int, default=50)
    parser.add_argument("--only", nargs="*", choices=["threats", "minimal", "smoothed"])
    parser.add_argument("--out", type=Path, default=common.RESULTS / "attack_strength.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    limit = 24 if args.small else args.limit
    parts = set(args.only or ("threats", "minimal", "smoothed"))
    cases = DIGITS[1::2] if args.small else DIGITS
    models = fixtures(limit, {c[0] for c in cases} | {"cnn-noise"})
    if not args.small:
        models |= fixtures(args.mnist_limit, {"mnist-cnn"})
        cases = cases + MNIST
    report: dict[str, Any] = {"benchmark": "attack_strength", "machine": common.machine()}
    if "threats" in parts:
        report["threats"] = []
        for name, p, eps in cases:
            if name in models:
                rows = compare(models[name], p, eps)
                report["threats"] += rows
                print(common.table(rows), flush=True)
    if "minimal" in parts:
        report["minimal"] = [
            r for n in ("cnn", "mlp", "cnn-pgd") if n in models for r in minimal_l2(models[n])
        ]
        print(common.table(report["minimal"]), flush=True)
    if "smoothed" in parts:
        report["smoothed"] = smoothed(models["cnn-noise"], n=10_000 if args.small else 100_000)
        print(common.table(report["smoothed"]), flush=True)
    common.write(args.out, report)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
