"""Our attacks beside pyautoattack, torchattacks and foolbox: who breaks what, and for how much.

    python benchmarks/attack_strength.py --small           a minute: 24 digits
    python benchmarks/attack_strength.py                   the networks the presets were developed on
    python benchmarks/attack_strength.py --only fresh      networks they were not, a quarter of an hour
    python benchmarks/attack_strength.py --only repeats    misses per seed, on inputs near the boundary

Every tool attacks the same inputs of the same model in one process. What a tool claims is judged by
``attacks.judge`` like our own candidates, so "broken" means the same thing in every row: inside the
ball and the box, and misclassified in single precision, double precision and alone. ``we miss``
counts inputs that the tool breaks, confirmed, and our preset ``standard`` does not; ``it misses``
the reverse. A part that is not run again stays in the results file as it is. The peers are optional:
``pip install -c constraints.txt --no-deps pyautoattack torchattacks foolbox eagerpy`` (and GitPython,
which foolbox imports).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import certify
from attacks import Threat, attack
from attacks.confirmation import Confirmer
from attacks.losses import margin
from attacks.minimal import bisect
from attacks.oracle import Oracle
from attacks.problem import Problem
from attacks.smoothed import Blur, on_lattice, sigma_of, smoothed_pgd

try:
    import common
    from attack_fixtures import Fixture, fixtures
    from attack_fresh import FRESH, REPEATED, fresh
    from attack_summary import OURS, PEER, summed
    from attack_tools import TOOLS, Counted, run
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks import common
    from benchmarks.attack_fixtures import Fixture, fixtures
    from benchmarks.attack_fresh import FRESH, REPEATED, fresh
    from benchmarks.attack_summary import OURS, PEER, summed
    from benchmarks.attack_tools import TOOLS, Counted, run

DIGITS = (("cnn", "inf", 0.05), ("cnn", "2", 0.5), ("mlp", "inf", 0.05), ("mlp", "2", 0.5),
          ("cnn-pgd", "inf", 0.2), ("cnn-pgd", "2", 0.6), ("cnn", "1", 1.5))  # fmt: skip
MNIST = (("mnist-cnn", "inf", 0.1), ("mnist-cnn", "2", 1.0))
PARTS = ("threats", "minimal", "smoothed", "fresh", "repeats")


def compare(fixture: Fixture, p: str, eps: float, *, weak: bool = True) -> list[dict[str, Any]]:
    """One row per tool on one model and threat; without the weaker settings unless ``weak``."""
    counted = Counted(fixture.model)
    began, cpu = time.perf_counter(), time.process_time()
    outcomes = attack(counted, fixture.x, fixture.y, threat=Threat(p, eps, bounds=fixture.bounds), seed=0)
    took = {"seconds": time.perf_counter() - began, "cpu seconds": time.process_time() - cpu}
    ours = np.array([o.broken for o in outcomes])
    clean = np.array([o.clean_correct for o in outcomes])
    standing = float(np.mean([o.status == "survived" for o in outcomes]))
    about = {
        "model": fixture.name, "norm": p, "eps": eps, "inputs": len(ours),
        # Below four classes pyautoattack's standard does not run, and its parts cost less.
        "same parts": fixture.classes >= 4,
    }  # fmt: skip
    n, counts = len(ours), outcomes.counts()
    rows = [
        about | {
            "tool": OURS, "survived": standing, "refused by the judge": counts["unconfirmed"],
            "we miss": 0, "it misses": 0, "forwards per input": counted.forwards / n,
            "backwards per input": counted.backwards / n,
        } | took
    ]  # fmt: skip
    for tool in TOOLS:
        if not (tool.takes(p) and (weak or tool.strong)):
            continue
        began, cpu = time.perf_counter(), time.process_time()
        found = run(tool, fixture, p, eps)
        took = {"seconds": time.perf_counter() - began, "cpu seconds": time.process_time() - cpu}
        rows.append(
            about | {
                "tool": tool.name, "survived": float((clean & ~found.broken).mean()),
                "refused by the judge": int((found.claimed & ~found.broken).sum()),
                "we miss": int((found.broken & ~ours).sum()), "it misses": int((ours & ~found.broken).sum()),
                "forwards per input": found.forwards / n, "backwards per input": found.backwards / n,
            } | took
        )  # fmt: skip
    peer = next((r for r in rows if r["tool"] == PEER), None)
    for row in rows:
        row["time / pyautoattack"] = None if peer is None else row["seconds"] / peer["seconds"]
    return rows


# -- repeated runs near the boundary ------------------------------------------------------------


def repeats(fixture: Fixture, p: str, eps: float, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Misses per seed of every tool, on inputs whose nearest known distance is within 10 % of eps.

    A miss is an input that this run of the tool leaves standing and some run of some tool breaks,
    confirmed. One run of each tool says little: near the boundary a few random starts decide.
    """
    nearest = attack(fixture.model, fixture.x, fixture.y, threat=Threat(p, bounds=fixture.bounds),
                     preset="minimal", seed=len(seeds))  # fmt: skip
    near = [i for i, o in enumerate(nearest) if o.broken and abs((o.distance or 0.0) / eps - 1) <= 0.1]
    some = replace(fixture, x=fixture.x[near], y=fixture.y[near])
    tools = [t for t in TOOLS if t.takes(p) and t.strong]
    if not near:
        return []
    threat = Threat(p, eps, bounds=fixture.bounds)
    broken = {
        OURS: np.array([
            [o.broken for o in attack(some.model, some.x, some.y, threat=threat, ids=near, seed=seed)]
            for seed in seeds
        ])
    }  # fmt: skip
    for tool in tools:
        broken[tool.name] = np.array([run(tool, some, p, eps, seed).broken for seed in seeds])
    breakable = np.any([b.any(0) for b in broken.values()], axis=0)
    return [
        {
            "model": fixture.name, "norm": p, "eps": eps, "near": len(near),
            "breakable": int(breakable.sum()), "tool": name, "seeds": len(seeds),
            "misses": [int(m) for m in (breakable & ~b).sum(1)],
        }
        for name, b in broken.items()
    ]  # fmt: skip


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
    parser.add_argument("--fresh-limit", type=int, default=40, help="inputs per fixture of fresh and repeats")
    parser.add_argument("--seeds", type=int, default=5, help="runs per tool and threat of repeats")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="default: threats, minimal, smoothed")
    parser.add_argument("--models", nargs="*", help="of the fixtures of fresh and repeats, these only")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "attack_strength.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts: set[str] = set(args.only or PARTS[:3])
    report: dict[str, Any] = {}
    if parts & {"threats", "minimal", "smoothed"}:
        _tuned(args, parts, report)
    if parts & {"fresh", "repeats"}:
        _untuned(args, parts, report)
    _save(args.out, report)
    print(f"written to {args.out}")


def _save(path: Path, report: dict[str, Any]) -> None:
    """Replace the parts that were measured; the others stay, also those that another run wrote meanwhile."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found |= {"benchmark": "attack_strength", "machine": common.machine()}
    common.write(path, found | report)


def _tuned(args: argparse.Namespace, parts: set[str], report: dict[str, Any]) -> None:
    """The fixtures that the presets were developed on."""
    limit = 24 if args.small else args.limit
    cases = DIGITS[1::2] if args.small else DIGITS
    models = fixtures(limit, {c[0] for c in cases} | {"cnn-noise"})
    if not args.small:
        models |= fixtures(args.mnist_limit, {"mnist-cnn"})
        cases = cases + MNIST
    if "threats" in parts:
        report["threats"] = []
        for rows in _each(compare, models, cases):
            report["threats"] += rows
    if "minimal" in parts:
        report["minimal"] = [
            r for n in ("cnn", "mlp", "cnn-pgd") if n in models for r in minimal_l2(models[n])
        ]
        print(common.table(report["minimal"]), flush=True)
    if "smoothed" in parts:
        report["smoothed"] = smoothed(models["cnn-noise"], n=10_000 if args.small else 100_000)
        print(common.table(report["smoothed"]), flush=True)


def _untuned(args: argparse.Namespace, parts: set[str], report: dict[str, Any]) -> None:
    """The fixtures that they never saw; written after every threat, and threats not run again are kept."""
    wanted = {c[0] for c in FRESH} & set(args.models or {c[0] for c in FRESH})
    models = fresh(args.fresh_limit, wanted)
    measures: dict[str, tuple[Callable[..., list[dict[str, Any]]], Sequence[tuple[str, str, float]]]] = {
        "fresh": (lambda f, p, eps: compare(f, p, eps, weak=False), FRESH),
        "repeats": (lambda f, p, eps: repeats(f, p, eps, range(args.seeds)), REPEATED),
    }
    for part in [p for p in measures if p in parts]:
        measure, cases = measures[part]
        before = json.loads(args.out.read_text()) if args.out.exists() else {}
        report[part] = before.get(part, [])
        for rows in _each(measure, models, cases):
            again = {_threat(r) for r in rows}
            kept = [r for r in report[part] if _threat(r) not in again and _threat(r) in cases]
            report[part] = sorted(kept + rows, key=lambda r, cases=cases: cases.index(_threat(r)))
            _save(args.out, report)
    if "repeats" in parts and report.get("repeats"):
        print(common.table(summed(report["repeats"])), flush=True)


def _threat(row: dict[str, Any]) -> tuple[str, str, float]:
    return row["model"], row["norm"], row["eps"]


def _each(
    measure: Callable[[Fixture, str, float], list[dict[str, Any]]],
    models: dict[str, Fixture],
    cases: Sequence[tuple[str, str, float]],
) -> Iterator[list[dict[str, Any]]]:
    """The rows of one threat after the other, printed."""
    for name, p, eps in cases:
        rows = measure(models[name], p, eps) if name in models else []
        if rows:
            print(common.table(rows), flush=True)
            yield rows


if __name__ == "__main__":
    main()
