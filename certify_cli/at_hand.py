"""Is the model at hand the one that was certified? By all that decides its answers, not its weights alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certify import Smoothed
    from certify.store import StoredRun
    from certify.verification import Check

#: How the parts of a model's identity are called in messages.
_WORDS = {
    "digest": "weights", "labels": "answers on 64 fixed inputs", "function": "class",
    "scores": "scores on 64 fixed inputs",
}  # fmt: skip
#: What may differ between two looks at one and the same model.
_ASIDE = ("path_name", "scores", "unchecked", "code", "python")
#: What the noise inside a network may differ by between two computations of its Lipschitz bounds.
_CLOSE = 1e-6


@dataclass(frozen=True)
class Likeness:
    """What speaks against the model at hand being the run's, and what keeps it from being told; else None."""

    against: str | None = None
    undecided: str | None = None


def likeness(stored: StoredRun, smoothed: Smoothed) -> Likeness:
    """Compare a run's model and noise with the smoothed classifier made from the model at hand."""
    from certify.identity import other_code

    said: dict[str, Any] = stored.settings.get("model") or {}
    now = _identity(smoothed, stored.settings["input_shape"])
    if missing := sorted({"digest", "function", "labels"} - set(said)):
        return Likeness(undecided=f"the run does not say its model's {', '.join(missing)}")
    other = [name for name in now if name in said and name not in _ASIDE and _differ(said[name], now[name])]
    if _scores_differ(said, now):
        other.append("scores")
    parts = other_code(said, now)
    if terms := _other_terms(stored.settings, smoothed):
        return Likeness(against=terms)
    if parts:
        return Likeness(against=f"it is another model: {', '.join(parts[:3])} of its code are not the run's")
    if not other:
        return Likeness()
    told = "; ".join(f"{_WORDS.get(n, n)}: {_short(said.get(n))} there, {_short(now[n])} here" for n in other)
    if other == ["function"]:
        return Likeness(undecided=f"weights and answers on 64 fixed inputs are the same, but not the {told}")
    here = str(smoothed.device.type)
    if {*other} <= {"labels", "scores"} and stored.settings.get("device") not in (None, here):
        return Likeness(
            undecided=f"on this device ({here}) the {told}; the run is about {stored.settings['device']}"
        )
    return Likeness(against=f"it is another model: {told}")


def same_model(
    stored: StoredRun, path: Path, *, arch: str | None, trust: bool, device: str, denoiser: Path | None = None
) -> Iterator[Check]:
    """The check "same model": the checkpoint at hand beside what the run says. Raises as ``certify.load``.

    Of a classifier behind a denoiser both are compared; ``denoiser``: its checkpoint, where it has moved.
    """
    from certify.checkpoints import read, tensor_digest
    from certify.errors import CertifyError
    from certify.verification import Check
    from certify_cli import denoisers
    from certify_cli.reopen import network_of, smoothed_like

    model = stored.settings.get("model") or {}
    said = (model.get("classifier") or model).get("digest")
    if said is None:
        yield Check("same model", None, "the run does not say which model it certified")
        return
    digest = said
    if not (stored.settings.get("model") or {}).get("normalise"):  # which is among the weights of the run
        with contextlib.suppress(CertifyError):
            digest = tensor_digest(read(path)[1])  # the weights alone: nothing is built
    if digest != said:
        yield Check(
            "same model", False, f"the run is about weights {said[:12]}..., here are {digest[:12]}..."
        )
        return
    network = network_of(stored, path, device, arch=arch, trust=trust)
    network = denoisers.again(network, stored.settings, denoiser)
    found = likeness(stored, smoothed_like(stored, network))
    if found.against or found.undecided:
        yield Check("same model", False if found.against else None, found.against or str(found.undecided))
    else:
        yield Check(
            "same model", True, f"weights {said[:12]}..., architecture, answers and noise are the run's"
        )


def refuse_other_model(stored: StoredRun, smoothed: Smoothed, path: Path) -> None:
    """Raise EvidenceFails where the model at hand is not the run's."""
    from certify.errors import EvidenceFails

    found = likeness(stored, smoothed)
    if found.against:
        raise EvidenceFails(
            f"{path} is not the model that {stored.path} certified",
            why=found.against,
            remedy="give the certified checkpoint with --model, or certify this one into another directory",
        )


def _identity(smoothed: Smoothed, shape: list[int]) -> dict[str, Any]:
    header = getattr(smoothed.model, "certify_header", None)
    named = {} if header is None else {
        "architecture": header.architecture, "arguments": dict(header.arguments),
    }  # fmt: skip
    return smoothed.identity(shape) | named


def _other_terms(settings: dict[str, Any], smoothed: Any) -> str | None:
    """Where the run claims more than the noise at hand gives: stages, bounds, sigma, its own error."""
    law, said = smoothed.noise.settings(), settings.get("noise_settings") or {}
    if settings.get("noise") == "internal":
        if law["sizes"] != said.get("sizes"):
            return f"its noise has the sizes {law['sizes']}, the run says {said.get('sizes')}"
        for name, sign in (("scales", 1), ("lipschitz", -1)):
            there = said.get(name) or []
            pairs = list(zip(law[name], there, strict=False))
            if len(there) != len(law[name]) or any(sign * (b - a) > _CLOSE * abs(a) for a, b in pairs):
                return f"its noise has {name} {_short(law[name])}, the run says {_short(there)}"
    if settings["sigma"] > smoothed.sigma_scale * (1 + _CLOSE):
        return f"its sigma is {smoothed.sigma_scale:.9g}, the run says {settings['sigma']:.9g}"
    least, tv = smoothed.noise.tv(settings["dim"]), (settings.get("mode_options") or {}).get("tv", 0.0)
    if tv < least * (1 - _CLOSE):
        return f"the noise's own error is {least:.3g}, the run allows for {tv:.3g}"
    header = getattr(smoothed.model, "certify_header", None)
    if header is not None and header.num_classes != settings["num_classes"]:
        return f"it tells {header.num_classes} classes apart, the run says {settings['num_classes']}"
    return None


def _scores_differ(said: dict[str, Any], now: dict[str, Any]) -> bool:
    from certify.store.settings import scores_apart

    if not said.get("scores") or not now.get("scores"):
        return False
    apart, limit = scores_apart(said["scores"], now["scores"])
    return not apart <= limit


def _differ(there: Any, here: Any) -> bool:
    from certify.canonical import canonical

    # Nothing is known of what was written as null: a plain function's weights, a checkpoint without a header.
    return there is not None and canonical(there) != canonical(here)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f"{text[:60]}..." if len(text) > 63 else text
