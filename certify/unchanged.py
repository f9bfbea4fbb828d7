"""Whether a smoothed classifier and its model are still what they were when it was made.

Copies of the model (in another dtype or layout, for other threads), a reduced first layer, noise scales
and Lipschitz bounds were derived from the model as it was; the probe measured it as it was. So weights,
structure, code, attributes and hooks are compared before every call, after every round of samples and before
every record. Attributes that a call itself changes (counters, caches) are left out once one did.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import first_answer
from certify.canonical import canonical
from certify.contents import Contents, model_contents
from certify.contract import check_model
from certify.errors import CertifyError, InvalidModel, InvalidSetting
from certify.identity import weights_digest

#: Between two looks at all of a model lies at least this many times what a look takes.
_PATIENCE = 30.0


class Unchanged:
    """Remembers a smoothed classifier's settings and its ``model``."""

    def __init__(self, smoothed: Any) -> None:
        self.smoothed = smoothed
        self.model = model = smoothed.model
        self._said = _settings(smoothed)
        self._weights = weights_digest(model)
        self._contents = self._last = model_contents(model)
        self._versions = _versions(model)
        self._moving: set[str] = set()
        self._asked: tuple[Tensor, Tensor] | None = None
        self._looked, self._took = time.perf_counter(), 0.0

    def refuse(self, x: Tensor | None = None) -> None:
        """Raise InvalidModel or InvalidSetting for what changed; looks at everything.

        ``x``: an input (*shape). With it, a difference that calls of the model make is no change.
        """
        began = time.perf_counter()
        for name, text in _settings(self.smoothed).items():
            if name == "num_classes" and self._said[name] == "null":  # counted in the first answer
                self._said[name] = text
            if text != self._said[name]:
                raise InvalidSetting(
                    f"{name} of the smoothed classifier was changed after it was made",
                    why="its noise, its copies of the model and its records rest on what it was made with",
                    remedy="make a new smoothed classifier with the value you want",
                )
        check_model(self.model)
        if weights_digest(self.model) != self._weights:
            raise _changed("the model's weights have changed")
        self._last = model_contents(self.model)
        if (changed := _apart(self._contents, self._last) - self._moving) and x is not None:
            self._moving |= self._moved_by_calls(x)
            changed -= self._moving
        if changed:
            raise _changed(f"the model has changed in its {sorted(changed)[0]}")
        if x is not None and self.smoothed.classifier.model is not self.model:
            self._refuse_other_answer(x)
        self._versions = _versions(self.model)
        self._looked = time.perf_counter()
        self._took = self._looked - began

    def watch(self) -> None:
        """As ``refuse``, no more often than is cheap; writes to weights that torch counts are always seen."""
        if self._versions != _versions(self.model):
            self.refuse()
        if time.perf_counter() - self._looked > _PATIENCE * self._took:
            self.refuse()

    def settle(self) -> None:
        """What changed since the last look was changed by calls of the model: no longer compared."""
        now = model_contents(self.model)
        self._moving |= _apart(self._last, now)
        self._last = now

    def _refuse_other_answer(self, x: Tensor) -> None:
        """Of a model whose copy is certified, the original is asked for its first answer again."""
        row = x if self._asked is None else self._asked[0]
        try:
            answer = first_answer(self.model, _as_taken(self.model, row[None]))
        except CertifyError:  # it need not be able to run where it lies; the copy is
            return
        if self._asked is None and isinstance(answer, Tensor):
            self._asked = row.clone(), answer.clone()
        elif self._asked is not None:
            then, rounding = self._asked[1].double(), self.smoothed.classifier.rounding
            apart = (answer.double() - then).abs().nan_to_num()
            if not bool((apart <= rounding * then.abs().nan_to_num().max()).all()):
                raise _changed("the model answers otherwise than it did")

    def _moved_by_calls(self, x: Tensor) -> set[str]:
        """Parts that are others after the model was called: counters, and what it keeps of its last input."""
        seen = [self._last]
        for rows in (x[None], torch.stack((x, x))):
            try:
                first_answer(self.model, _as_taken(self.model, rows))
            except CertifyError:  # it will be named where the model is asked in earnest
                return set()
            seen.append(model_contents(self.model))
        return _apart(seen[0], seen[1]) | _apart(seen[1], seen[2])


def _apart(one: Contents, other: Contents) -> set[str]:
    return {p for p in {*one.parts, *other.parts} if one.parts.get(p) != other.parts.get(p)}


def _as_taken(model: Any, rows: Tensor) -> Tensor:
    """Rows on the device and in the floating-point type of a model's own weights."""
    own = [*model.parameters()] if isinstance(model, nn.Module) else []
    return rows.to(own[0].device, own[0].dtype if own[0].is_floating_point() else rows.dtype) if own else rows


def _changed(what: str) -> InvalidModel:
    return InvalidModel(
        f"{what} since its smoothed classifier was made",
        why="the certificate would be about a network that no longer exists",
        remedy="make a new smoothed classifier from the model as it is now",
    )


def _settings(smoothed: Any) -> dict[str, str]:
    """What records and copies of the model rest on, as text: it may not change once they were made."""
    noise, view = smoothed.noise, getattr(smoothed, "_view", smoothed.classifier)
    found = {name: getattr(smoothed, name) for name in ("sigma", "norm", "grid", "bounds", "num_classes")}
    found["noise"] = [noise.name, noise.settings(), id(noise)]
    found |= {"model": id(smoothed.model), "first layer": id(getattr(smoothed, "reduced", None))}
    found |= {"classifier": smoothed.classifier.fixed(), "view": view.fixed()}
    return {name: canonical(value) for name, value in found.items()}


def _versions(model: Any) -> list[tuple[int, int, int]]:
    """Of every weight: which object, where its memory is, how often torch wrote to it."""
    if not isinstance(model, nn.Module):
        return []
    tensors = [*model.parameters(), *model.buffers()]
    return [(id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
