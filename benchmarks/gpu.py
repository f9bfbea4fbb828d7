"""Everything that should be fast on a GPU, measured in one command; one JSON, with the hardware named.

    python benchmarks/gpu.py                          under 8 minutes on one GPU
    python benchmarks/gpu.py --device cpu --tiny      the same code on a laptop, seconds

A CIFAR-shaped residual network (3 x 32 x 32, ten classes) is trained on synthetic prototypes with
noise, so no data has to be downloaded. Then: bare forward passes (float32, bfloat16, compiled),
PGD-20 and the preset ``standard`` beside torchattacks and pyautoattack where they are installed,
certification in noisy samples per second against the bare forward pass of as many. A part that
cannot run says why in the JSON; it never has a figure.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import certify
from attacks import Budget, Threat, attack
from attacks.losses import cross_entropy
from attacks.oracle import Oracle
from attacks.pgd import pgd
from attacks.problem import Problem

try:
    import common
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks import common

SIGMA, EPS = 0.25, 8 / 255
PARTS = ("forward", "pgd", "certification", "autoattack")
NOT_COMPILED = {"skipped": "compilation takes longer than a tiny run"}


class Block(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)])
        self.skip = nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(h)) + self.skip(x))


def network(width: int, blocks: int) -> nn.Module:
    """A residual network for 3 x 32 x 32 inputs: three stages of ``blocks`` blocks."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.ReLU()]
    inside = width
    for stage in range(3):
        outside = width * 2**stage
        for block in range(blocks):
            layers.append(Block(inside, outside, 2 if stage and not block else 1))
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def prototypes(count: int, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy copies of ten smooth random images, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((10, 3, 4, 4), generator=generator)
    images = F.interpolate(coarse, size=32, mode="bilinear", align_corners=False)
    generator.manual_seed(seed)
    y = torch.randint(0, 10, (count,), generator=generator)
    x = (0.35 + 0.3 * images[y] + 0.15 * torch.randn((count, 3, 32, 32), generator=generator)).clamp(0, 1)
    return ((x * 255).round() / 255).to(device), y.to(device)


def train(model: nn.Module, steps: int, batch: int, device: torch.device) -> nn.Module:
    """A few hundred steps under the noise of the certificate."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        x, y = prototypes(batch, device, seed=step + 1)
        optimiser.zero_grad()
        F.cross_entropy(model(x + SIGMA * torch.randn_like(x)), y).backward()
        optimiser.step()
    return model.eval()


def seconds(run: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """Shortest of ``repeats`` runs after one warm-up, with the device's queue drained."""
    run()
    best = float("inf")
    for _ in range(repeats):
        _drain(device)
        began = time.perf_counter()
        run()
        _drain(device)
        best = min(best, time.perf_counter() - began)
    return best


def _drain(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- parts --------------------------------------------------------------------------------------


def bare_forward(model: nn.Module, x: Tensor, device: torch.device, compiled: bool) -> dict[str, Any]:
    """Inputs per second of the network alone."""
    out: dict[str, Any] = {"batch": len(x)}

    def timed(net: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
        with torch.inference_mode():
            return len(inputs) / seconds(lambda: net(inputs), device, 5)

    out["float32"] = attempt(lambda: timed(model, x))
    out["bfloat16"] = attempt(lambda: timed(copy.deepcopy(model).bfloat16(), x.bfloat16()))
    out["float32 compiled"] = attempt(lambda: timed(torch.compile(model), x)) if compiled else NOT_COMPILED
    return out


def gradient_attack(
    model: nn.Module, x: Tensor, y: Tensor, device: torch.device, steps: int
) -> dict[str, Any]:
    """Input-steps per second of PGD; the bare forward and backward pass is the ceiling."""
    n = len(x)

    def bare() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)

    def ours() -> None:
        problem = Problem.of(
            Oracle(model, n), x, y, eps=EPS, p=float("inf"), box=(0.0, 1.0), seed=0, classes=10, rows=n
        )
        pgd(problem, loss=cross_entropy, steps=steps)

    out: dict[str, Any] = {"inputs": n, "steps": steps, "unit": "input-steps per second"}
    out["forward and backward alone"] = attempt(lambda: n / seconds(bare, device))
    out["ours"] = attempt(lambda: n * steps / seconds(ours, device))
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        peer = torchattacks.PGD(model, eps=EPS, alpha=2.5 * EPS / steps, steps=steps)
        out["torchattacks"] = attempt(lambda: n * steps / seconds(lambda: peer(x, y), device))
    else:
        out["torchattacks"] = {"skipped": "not installed"}
    return out


def autoattack(model: nn.Module, x: Tensor, y: Tensor, device: torch.device, eps: float) -> dict[str, Any]:
    """Seconds and survivors of the preset ``standard`` and of pyautoattack's, one after the other."""
    out: dict[str, Any] = {"inputs": len(x), "eps": eps, "norm": "inf"}

    def ours() -> dict[str, Any]:
        _drain(device)
        began = time.perf_counter()
        run = attack(
            model, x.cpu(), y.cpu(), threat=Threat("inf", eps), preset="standard", seed=0,
            budget=Budget(batch_size=len(x), rows=4096),
        )  # fmt: skip
        _drain(device)
        return {"seconds": time.perf_counter() - began, "counts": run.counts(), "flags": run.flags}

    def peer() -> dict[str, Any]:
        import pyautoattack

        runner = pyautoattack.AutoAttack(
            model, norm="Linf", eps=eps, seed=0, version="standard", device=device
        )
        runner.verbose = False
        began = time.perf_counter()
        found, _ = runner.run_standard_evaluation(x.clone(), y, batch_size=len(x))
        _drain(device)
        spent = time.perf_counter() - began
        with torch.no_grad():
            return {"seconds": spent, "survived": int((model(found).argmax(1) == y).sum())}

    out["ours"] = attempt(ours)
    found = importlib.util.find_spec("pyautoattack") is not None
    out["pyautoattack"] = attempt(peer) if found else {"skipped": "not installed"}
    return out


def certification(
    model: nn.Module, x: Tensor, device: torch.device, n: int, forward: Any, compiled: bool
) -> dict[str, Any]:
    """Noisy samples per second, noise and counting included, as a share of the bare forward pass."""
    out: dict[str, Any] = {"inputs": len(x), "samples per input": n}
    variants = {
        "lattice, float32": {"noise": "lattice"},
        "gaussian, float32": {"noise": "gaussian"},
        "lattice, bfloat16": {"noise": "lattice", "dtype": "bf16"},
        "lattice, float32 compiled": {"noise": "lattice", "compiled": True},
    }
    if not compiled:
        variants.pop("lattice, float32 compiled")
        out["lattice, float32 compiled"] = NOT_COMPILED
    for name, options in variants.items():

        def measure(options: dict[str, Any] = options) -> dict[str, Any]:
            g = certify.Smoothed(model, SIGMA, num_classes=10, grid=1 / 255, device=device, **options)
            g.certify(x[:1].cpu(), mode="fixed", n0=100, n=n // 10, seed=0)  # tunes the batch, compiles
            _drain(device)
            began = time.perf_counter()
            run = g.certify(x.cpu(), mode="fixed", n0=100, n=n, seed=1)
            _drain(device)
            spent = time.perf_counter() - began
            rate = sum(r.samples for r in run) / spent
            share = rate / forward if isinstance(forward, float) else None
            return {"samples per second": rate, "share of the bare float32 forward": share,
                    "certified": sum(r.certified for r in run), "batch": g.batch_size}  # fmt: skip

        out[name] = attempt(measure)
    return out


def attempt(run: Callable[[], Any]) -> Any:
    """The result, or why there is none."""
    try:
        return run()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def hardware(device: torch.device) -> dict[str, Any]:
    facts = common.machine()
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda,
            "capability": list(torch.cuda.get_device_capability(device)),
        }  # fmt: skip
    return facts


SIZES = {"width": 64, "blocks": 3, "train": 400, "batch": 256, "pgd": 512, "aa": 256, "n": 100_000,
         "inputs": 8}  # fmt: skip
TINY = {"width": 8, "blocks": 1, "train": 20, "batch": 32, "pgd": 8, "aa": 4, "n": 200, "inputs": 2}


def measure(
    device: torch.device, *, tiny: bool, keep: Callable[[dict[str, Any]], None] = lambda report: None
) -> dict[str, Any]:
    """All parts in order; ``tiny`` shrinks every size so that a CPU finishes in seconds.

    ``keep`` gets the report after every part, so that an interrupted run leaves what it has measured.
    """
    torch.manual_seed(0)
    began = time.perf_counter()
    size = TINY if tiny else SIZES
    model = train(network(size["width"], size["blocks"]).to(device), size["train"], size["batch"], device)
    x, y = prototypes(max(size["pgd"], size["aa"]), device, seed=10_000)
    with torch.no_grad():
        labels = model(x).argmax(1)  # the attacks are timed on inputs that are all right to begin with
        accuracy = float((labels == y).float().mean())
    report: dict[str, Any] = {
        "benchmark": "gpu", "hardware": hardware(device), "device": device.type, "tiny": tiny, "sizes": size,
        "parameters": sum(p.numel() for p in model.parameters()), "clean accuracy": accuracy,
    }  # fmt: skip
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "forward": lambda: bare_forward(model, x[: size["pgd"]], device, not tiny),
        "pgd": lambda: gradient_attack(
            model, x[: size["pgd"]], labels[: size["pgd"]], device, 3 if tiny else 20
        ),
        "certification": lambda: certification(
            model, x[: size["inputs"]], device, size["n"], report["forward"]["float32"], not tiny
        ),
        "autoattack": lambda: autoattack(model, x[: size["aa"]], labels[: size["aa"]], device, EPS),
    }
    for name in PARTS:
        started = time.perf_counter()
        report[name] = parts[name]()
        report[name]["seconds of this part"] = time.perf_counter() - started
        report["seconds"] = time.perf_counter() - began
        keep(report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: a check that everything runs")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu-NAME.json")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: use --device cpu --tiny to check that the benchmark runs")
    device = torch.device(args.device)
    name = hardware(device).get("gpu", "cpu").lower().replace(" ", "-")
    out = args.out or common.RESULTS / f"gpu-{name}.json"
    report = measure(device, tiny=args.tiny, keep=lambda found: common.write(out, found))
    rows = [{"part": p, "what": k, "result": str(v)} for p in PARTS for k, v in report[p].items()]
    print(common.table(rows))
    print(f"written to {out} after {report['seconds']:.0f} s")


if __name__ == "__main__":
    main()
