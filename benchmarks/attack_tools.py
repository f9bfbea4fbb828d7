"""The other libraries' attacks behind one signature, on the input format that they take.

They expect images in [0, 1]. A fixture with vectors or another range is handed to them as images of one
pixel, rescaled; what they find is scaled back and, where rounding pushed it out, put back into the ball,
so that no break of theirs is lost to the detour. Below four classes the targeted DLR loss does not
exist: there they run what their libraries offer instead (``_few_classes``).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Threat
from attacks.geometry import inside
from attacks.judge import Judge

try:
    from attack_fixtures import Fixture
except ImportError:  # imported as a module of the benchmarks folder
    from benchmarks.attack_fixtures import Fixture

#: (model, x, y, norm name, eps, seed) -> adversarial inputs; the input itself where nothing was found.
Attack = Callable[[nn.Module, Tensor, Tensor, str, float, int], Tensor]


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


class UnitBox(nn.Module):
    """The model seen from images in [0, 1]."""

    def __init__(self, model: nn.Module, shape: torch.Size, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.model, self.shape, self.low, self.span = model, shape, bounds[0], bounds[1] - bounds[0]

    def forward(self, z: Tensor) -> Tensor:
        return self.model(self.back(z))

    def back(self, z: Tensor) -> Tensor:
        return (z * self.span + self.low).view(-1, *self.shape)

    def there(self, x: Tensor) -> Tensor:
        z = ((x - self.low) / self.span).clamp(0, 1)
        return z if z.dim() == 4 else z.flatten(1)[:, :, None, None]


# -- the libraries ------------------------------------------------------------------------------


def pyautoattack_standard(model, x, y, p, eps, seed) -> Tensor:
    import pyautoattack

    def runner(**how: Any):
        made = pyautoattack.AutoAttack(model, norm=cast(Any, f"L{p}"), eps=eps, seed=seed, **how)
        made.verbose = False
        return made

    classes = _classes(model, x)
    if classes >= 4:
        return runner(version="standard").run_standard_evaluation(x.clone(), y, batch_size=250)[0]
    parts = _few_classes(x, p, classes, names=("apgd-ce", "apgd-dlr", "fab-t", "square"))
    made = runner(version="custom", attacks=parts)
    made.fab.n_target_classes = classes - 1
    return made.run_standard_evaluation(x.clone(), y, batch_size=250)[0]


def torchattacks_at_strength(model, x, y, p, eps, seed) -> Tensor:
    """torchattacks' four components with the official numbers of steps, each on what is left."""
    import torchattacks as ta

    norm, classes = f"L{p}", _classes(model, x)
    ball = {"norm": norm, "eps": eps, "seed": seed}
    if classes >= 4:
        aimed = ta.APGDT(model, steps=100, n_classes=classes, **ball)
    else:
        aimed = ta.APGD(model, steps=100, loss="dlr", **ball)
    parts = {
        "apgd-ce": ta.APGD(model, steps=100, loss="ce", **ball),
        "apgd-dlr": aimed,
        "fab-t": ta.FAB(model, steps=100, n_restarts=1, multi_targeted=True, n_classes=classes, **ball),
        "square": ta.Square(model, n_queries=5000, **ball),
    }
    names = tuple(parts) if classes >= 4 else _few_classes(x, p, classes, names=tuple(parts))
    best = x.clone()
    for name in names:
        left = (model(best).argmax(1) == y).nonzero().squeeze(1)
        if len(left):
            best[left] = parts[name](x[left], y[left]).detach()
    return best


def torchattacks_autoattack(model, x, y, p, eps, seed) -> Tensor:
    """torchattacks' own AutoAttack, which takes 10 steps where the official one takes 100."""
    import torchattacks as ta

    classes = _classes(model, x)
    return ta.AutoAttack(model, norm=f"L{p}", eps=eps, version="standard", n_classes=classes, seed=seed)(x, y)


def foolbox_pgd(model, x, y, p, eps, seed) -> Tensor:
    """foolbox's PGD, 100 steps of 2.5 eps / 100, five restarts."""
    import foolbox

    attacks = foolbox.attacks
    kind = {"inf": attacks.LinfPGD, "2": attacks.L2PGD, "1": attacks.L1PGD}[p]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    torch.manual_seed(seed)
    best = x.clone()
    for _ in range(5):
        left = (model(best).argmax(1) == y).nonzero().squeeze(1)
        if len(left):
            found = kind(rel_stepsize=2.5 / 100, steps=100)(wrapped, x[left], y[left], epsilons=eps)[1]
            best[left] = found.detach()
    return best


def _classes(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return model(x[:1]).shape[1]


def _few_classes(x: Tensor, p: str, classes: int, *, names: tuple[str, ...]) -> list[str]:
    """The parts that run: untargeted DLR needs three classes, the l1 and l2 Square an image of 3 x 3."""
    wide = p == "inf" or min(x.shape[-2:]) >= 3
    return [n for n in names if (n != "apgd-dlr" or classes >= 3) and (n != "square" or wide)]


@dataclass(frozen=True)
class Tool:
    """A library's attack, the package it needs, and the norms it takes."""

    name: str
    package: str
    attack: Attack
    norms: tuple[str, ...]
    #: False for a weaker setting of another tool: run only where the presets were developed.
    strong: bool = True

    def takes(self, p: str) -> bool:
        return p in self.norms and importlib.util.find_spec(self.package) is not None


TOOLS = (
    Tool("pyautoattack", "pyautoattack", pyautoattack_standard, ("1", "2", "inf")),
    Tool("torchattacks, 100 steps", "torchattacks", torchattacks_at_strength, ("2", "inf")),
    Tool("torchattacks.AutoAttack", "torchattacks", torchattacks_autoattack, ("2", "inf"), strong=False),
    Tool("foolbox PGD-100 x 5", "foolbox", foolbox_pgd, ("1", "2", "inf")),
)


# -- one run of one tool, judged ----------------------------------------------------------------


@dataclass(frozen=True)
class Claims:
    """What a tool said and what the judge confirmed of it, per input."""

    claimed: np.ndarray
    broken: np.ndarray
    forwards: int
    backwards: int


def run(tool: Tool, fixture: Fixture, p: str, eps: float, seed: int = 0) -> Claims:
    """The tool on all inputs of the fixture, its claims judged like our own."""
    x, y, threat = fixture.x, fixture.y, Threat(p, eps, bounds=fixture.bounds)
    counted = Counted(fixture.model).eval()
    plain = fixture.bounds == (0.0, 1.0) and x.dim() == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if plain:
            found = tool.attack(counted, x, y, p, eps, seed)
        else:
            box = UnitBox(counted, x.shape[1:], fixture.bounds)
            found = box.back(tool.attack(box, box.there(x), y, p, eps / box.span, seed).detach())
            found = inside(x, found, torch.full((len(x),), eps), threat.p, threat.box)
    with torch.no_grad():
        clean = fixture.model(x).argmax(1) == y
        claimed = (clean & (fixture.model(found).argmax(1) != y)).numpy()
    at = torch.from_numpy(claimed.nonzero()[0])
    judge = Judge(fixture.model, p=threat.p, box=threat.box)
    verdicts = judge.verdicts(x[at], y[at], found[at], torch.full((len(at),), eps))
    broken = np.zeros(len(x), dtype=bool)
    broken[at.numpy()] = [v.broken for v in verdicts]
    return Claims(claimed, broken, counted.forwards, counted.backwards)
