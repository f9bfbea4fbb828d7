"""Does a network inject the noise that it declares? One pass is followed operation by operation.

The effective sigma (``certify.inside.effective_sigma``) is proved for networks whose state is moved, stage
after stage, by g_k and then by isotropic noise on all of its coordinates. A stage that leaves out part of
the state, or a path around a stage, makes the declared sigma wrong. What can be seen of this is checked:
every stage is one addition ``state + scale * normals`` of full size, in the declared order, and every path
from the input to the logits passes all of them. That the Lipschitz bounds are bounds, from l2 to l2 and
from state to state, cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from certify.errors import InvalidModel
from certify.inside.effective_sigma import NoiseStage

_ROWS = 2
_ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__"}


@dataclass(frozen=True)
class _Origin:
    """Whether a value comes from the input, past at least ``passed`` injections, or from normals alone."""

    passed: int | None = None
    normals: bool = False


def check_injections(model: Any, stages: Sequence[NoiseStage], *, device: torch.device | None = None) -> None:
    """Raise InvalidModel where ``model`` injects its noise otherwise than ``stages`` declare.

    ``model``: a network with ``input_shape`` and ``noisy_logits`` (``certify.inside.internal_noise``).
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_ROWS, *model.input_shape, generator=generator).to(device)
    normals = torch.randn(_ROWS, sum(s.size for s in stages), generator=generator).to(device)
    trace = _Trace(normals, stages)
    trace.origins[id(x)], trace.origins[id(normals)] = _Origin(passed=0), _Origin(normals=True)
    with torch.no_grad(), trace:
        out = model.noisy_logits(x, normals)
    origin = trace.origins.get(id(out), _Origin())
    if trace.seen != len(stages):
        raise _refused(
            f"{trace.seen} of its {len(stages)} declared injections can be seen",
            "every stage adds its scaled normals to a whole state",
        )
    if origin.passed != len(stages):
        raise _refused(
            "its logits depend on the input by a path around an injection",
            "nothing may pass from before an injection to after it",
        )


class _Trace(TorchFunctionMode):
    """Follows the origins of tensors through every operation of one pass."""

    def __init__(self, normals: Tensor, stages: Sequence[NoiseStage]) -> None:
        super().__init__()
        sizes = [stage.size for stage in stages]
        self.parts = [stage.scale * part for stage, part in zip(stages, normals.split(sizes, 1), strict=True)]
        self.seen = 0
        self.origins: dict[int, _Origin] = {}
        self.alive: list[Any] = []  # an id belongs to one object only while that object lives

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = [self.origins.get(id(t), _Origin()) for t in _tensors((args, kwargs))]
        given = list(_tensors((args, kwargs)))
        # An operation in place would overwrite what it adds before that can be looked at.
        noise = [t.clone() for t, o in zip(given, before, strict=True) if o.normals]
        out = func(*args, **(kwargs or {}))
        passed = min((o.passed for o in before if o.passed is not None), default=None)
        if noise and passed is not None:
            scaled = [n * (kwargs or {}).get("alpha", 1) for n in noise]
            self._inject(getattr(func, "__name__", ""), given, before, scaled, passed)
            passed += 1
        found = _Origin(passed, normals=bool(noise) and passed is None)
        for tensor in _tensors(out):
            self.origins[id(tensor)] = found
            self.alive.append(tensor)
        return out

    def _inject(
        self, name: str, given: list[Tensor], before: list[_Origin], noise: list[Tensor], passed: int
    ) -> None:
        states = [t for t, o in zip(given, before, strict=True) if o.passed is not None]
        if name not in _ADDITIONS or len(given) != 2 or len(noise) != 1 or len(states) != 1:
            raise _refused(f"noise enters by {name}", "noise may only be added: state + scale * normals")
        if states[0].shape != noise[0].shape:
            sizes = [tuple(t.shape[1:]) for t in (noise[0], states[0])]
            raise _refused(
                f"noise of shape {sizes[0]} is added to a state of shape {sizes[1]}",
                "every coordinate of the state needs noise of its own",
            )
        if passed != self.seen or self.seen == len(self.parts):
            raise _refused(
                f"injection {self.seen + 1} is added where {passed} have been passed",
                "the stages are declared in the order from the input, and none may be passed by",
            )
        ours, theirs = (t.double().flatten(1).sort(1).values for t in (noise[0], self.parts[self.seen]))
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6):
            raise _refused(
                f"injection {self.seen + 1} is not its declared scale times its {theirs.shape[1]} normals",
                "noise must be isotropic, of the declared size and standard deviation",
            )
        self.seen += 1


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _refused(what: str, why: str) -> InvalidModel:
    return InvalidModel(
        f"the network does not inject the noise it declares: {what}",
        why=why,
        remedy="in noisy_logits add scale * normals to the whole state, in torch, once for every stage",
    )
