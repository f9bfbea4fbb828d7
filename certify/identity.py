"""Which function a run is about, so that no other one can go on with it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import unanswered
from certify.contents import Contents, model_contents
from certify.denoising import behind_denoiser
from certify.errors import CertifyError, InvalidSetting
from certify.sampling.classifier import BaseClassifier

#: Fixed inputs whose labels are part of the identity.
_PROBES = 64


def identify(
    model: Any,
    classifier: BaseClassifier,
    *,
    shape: Sequence[int],
    bounds: tuple[float, float] | None,
    rows: Callable[[Tensor], Tensor] = lambda points: points,
) -> dict[str, Any]:
    """The digest of the weights (None for a plain callable), the class, and all else that decides answers.

    "labels" (a digest) and "scores" are the model's at 64 points drawn once and for all in the declared
    range (normal ones where there is none); ``rows`` turns points (n, *shape) into what the classifier takes.
    "code": digests of what the model is made of besides its weights (``certify.contents``), "unchecked":
    what of it cannot be read. What a call changes (counters, caches) is no content.
    """
    generator = torch.Generator().manual_seed(0)
    if bounds is None:
        points = torch.randn(_PROBES, *shape, generator=generator)
    else:
        low, high = bounds
        points = low + (high - low) * torch.rand(_PROBES, *shape, generator=generator)
    points = rows(points.to(classifier.device))
    try:
        labels, doubt = classifier.votes(points)  # also fills the caches that a first call fills
    except (CertifyError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model fails on a shape that is not its own with any error
        raise unanswered(points, error) from error
    made_of = [model_contents(classifier.model)]
    found = labels.tolist()
    for row in doubt.nonzero().flatten().tolist():
        found[row] = classifier.vote_alone(points[row : row + 1])
    classifier.logits_alone(points[:1])
    made_of.append(model_contents(classifier.model))
    scores = classifier.logits(points)
    made_of.append(model_contents(classifier.model))
    return named(model, found) | described(made_of, scores, classifier.rounding)


def named(model: Any, labels: Sequence[int]) -> dict[str, Any]:
    """Digest of weights, class, digest of the ``labels`` of fixed inputs; both parts of a denoised one."""
    from certify.checkpoints import model_digest

    kind = type(model) if isinstance(model, nn.Module) or not hasattr(model, "__qualname__") else model
    return {
        "digest": model_digest(model) if isinstance(model, nn.Module) else None,
        "function": f"{kind.__module__}.{kind.__qualname__}",
        "labels": hashlib.sha256(" ".join(map(str, labels)).encode()).hexdigest(),
        **({} if (parts := behind_denoiser(model)) is None else parts.described()),
    }


def described(made_of: Sequence[Contents], scores: Tensor, rounding: float) -> dict[str, Any]:
    """Digests of a model's parts, what could not be read, and its scores on the fixed inputs.

    ``made_of`` was read between calls: what a call changes is not content. One number per input is kept
    of the ``scores`` (n, ...), a fixed mean over the classes, with what ``rounding`` (relative to the
    largest score) may change of it. Bytecode differs between Python's versions: that is named, too.
    """
    found = made_of[0].constant(*made_of[1:])
    flat = scores.detach().double().cpu().flatten(1).nan_to_num(0.0, 0.0, 0.0)
    shares = torch.rand(flat.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "code": dict(found.parts),
        "unchecked": list(found.unchecked),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "scores": {
            "values": (flat @ (shares / shares.sum())).tolist(),
            "rounding": rounding * float(flat.abs().max()),
        },
    }


def same_function(stored: Mapping[str, Any], now: Mapping[str, Any], *, elsewhere: bool = False) -> bool:
    """Whether ``now`` is the function of a run, by all that the run says of it; see ``other_function``."""
    return other_function(stored, now, elsewhere=elsewhere) is None


def other_function(
    stored: Mapping[str, Any], now: Mapping[str, Any], *, elsewhere: bool = False
) -> str | None:
    """What shows that ``now`` is not the function of a run; None where nothing does.

    Scores are compared up to rounding. ``elsewhere``: on another kind of device, whose answers differ in
    their last bits, labels and scores say nothing.
    """
    from certify.store.settings import scores_apart

    if not {"digest", "function", "labels"} <= set(stored):
        return "the run does not say which model it certified"
    for key in ("digest", "function") if elsewhere else ("digest", "function", "labels"):
        if stored[key] != now[key]:
            return f"{_NAMES[key]} {_short(stored[key])} in the run and {_short(now[key])} here"
    if parts := other_code(stored, now):
        return f"of the model's code, {parts[0]!r} is another"
    if not elsewhere and {*stored} & {*now} >= {"scores"}:
        apart, limit = scores_apart(stored["scores"], now["scores"])
        if not apart <= limit:
            return f"scores on fixed inputs differ by {apart:.2g}, rounding explains {limit:.2g}"
    return None


def other_code(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parts of a model's code that differ, as far as both identities name them.

    Bytecode of another release of Python cannot be compared: then only the structure is.
    """
    said, ours = stored.get("code") or {}, now.get("code") or {}
    same_python = stored.get("python", now.get("python")) == now.get("python")
    shared = {*said} & {*ours} if same_python else {*said} & {*ours} & {"structure"}
    return sorted(part for part in shared if said[part] != ours[part])


#: In words, what a run knows its model by.
_NAMES = {
    "digest": "its weights hash to",
    "function": "its class is",
    "labels": "its labels on fixed inputs hash to",
}


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}..." if len(text) == 64 else text


def weights_digest(model: Any) -> str | None:
    """Digest of every parameter and buffer, also those that no checkpoint keeps; None for a callable."""
    from certify.checkpoints import tensor_digest

    if not isinstance(model, nn.Module):
        return None
    return tensor_digest({**dict(model.named_parameters()), **dict(model.named_buffers())})


def with_callers(described: dict[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A run's settings with the caller's beside them; what decides a record cannot be overwritten."""
    given = dict(given or {})
    model = dict(given.pop("model", {}))
    if model.get("digest") is None:
        model.pop("digest", None)
    clash = sorted(set(given) & set(described))
    wrong = [k for k in model if k in described["model"] and model[k] != described["model"][k]]
    if clash or wrong:
        raise InvalidSetting(
            f"the setting {(clash or wrong)[0]!r} belongs to the run",
            why="it is recorded from what was really done and cannot be given another value",
            remedy="leave it out of settings",
        )
    return described | given | {"model": described["model"] | model}
