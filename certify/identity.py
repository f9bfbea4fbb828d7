"""Which function a run is about, so that no other one can go on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from certify.contents import Contents, contents
from certify.contract import check_model
from certify.errors import InvalidModel, InvalidSetting
from certify.sampling.classifier import BaseClassifier
from certify.wrapping import Wrapped

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
    """The digest of the weights (None for a plain callable), the class, and a digest of fixed labels.

    ``rows`` turns points (n, *shape) into what the classifier takes. Labels are taken at 64 points
    drawn once and for all in the declared range (normal ones where there is none): digests of
    scores would differ between machines in the last bits. What is no torch module, alone or inside
    ``certify.wrap``, is also named as ``of_function`` says.
    """
    generator = torch.Generator().manual_seed(0)
    if bounds is None:
        points = torch.randn(_PROBES, *shape, generator=generator)
    else:
        low, high = bounds
        points = low + (high - low) * torch.rand(_PROBES, *shape, generator=generator)
    points = rows(points.to(classifier.device))
    made_of = function_contents(model)
    labels, doubt = classifier.votes(points)
    found = labels.tolist()
    for row in doubt.nonzero().flatten().tolist():
        found[row] = classifier.vote_alone(points[row : row + 1])
    scores = None if made_of is None else classifier.logits(points)
    return named(model, found) | of_function(model, made_of, scores, classifier.rounding)


def named(model: Any, labels: Sequence[int]) -> dict[str, Any]:
    """Digest of the weights, class, and digest of the ``labels`` of fixed inputs."""
    from certify.checkpoints import model_digest

    kind = type(model) if isinstance(model, nn.Module) or not hasattr(model, "__qualname__") else model
    return {
        "digest": model_digest(model) if isinstance(model, nn.Module) else None,
        "function": f"{kind.__module__}.{kind.__qualname__}",
        "labels": hashlib.sha256(" ".join(map(str, labels)).encode()).hexdigest(),
    }


def function_contents(model: Any) -> Contents | None:
    """What the plain functions of ``model`` are made of; None for a torch module that wraps none."""
    if not isinstance(model, nn.Module):
        return contents(model)
    parts: dict[str, str] = {}
    unchecked: list[str] = []
    for name, part in model.named_modules():
        if isinstance(part, Wrapped) and not isinstance(part.model, nn.Module):
            inside, at = contents(part.model), f"{name}: " if name else ""
            parts |= {f"{at}{key}": digest for key, digest in inside.parts.items()}
            parts[f"{at}wrap"] = part.extra_repr()
            unchecked += [f"{at}{what}" for what in inside.unchecked]
    return Contents(parts, tuple(unchecked)) if parts else None


def of_function(
    model: Any, before: Contents | None, scores: Tensor | None, rounding: float
) -> dict[str, Any]:
    """Digests of a function's parts, what could not be read, and its scores on the fixed inputs.

    ``before`` was read before the ``scores`` (n, ...) were computed: what a call changes is not content.
    One number per input is kept of the scores, a fixed mean over the classes, with what ``rounding``
    (relative to the largest score) may change of it. Nothing for a torch module.
    """
    if before is None or scores is None:
        return {}
    found = before.constant(function_contents(model) or before)
    flat = scores.detach().double().cpu().flatten(1).nan_to_num(0.0, 0.0, 0.0)
    shares = torch.rand(flat.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "code": dict(found.parts),
        "unchecked": list(found.unchecked),
        "scores": {
            "values": (flat @ (shares / shares.sum())).tolist(),
            "rounding": rounding * float(flat.abs().max()),
        },
    }


def same_function(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether ``now`` is the function of a run, by all that the run says of it; scores up to rounding."""
    from certify.store.settings import scores_apart

    if not {"digest", "function", "labels"} <= set(stored):
        return False
    said = {key: stored[key] for key in now if key in stored and key != "scores"}
    apart, limit = (
        scores_apart(stored["scores"], now["scores"]) if {*stored} & {*now} >= {"scores"} else (0, 0)
    )
    return all(now[key] == value for key, value in said.items()) and apart <= limit


def weights_digest(model: Any) -> str | None:
    """Digest of every parameter and buffer, also those that no checkpoint keeps; None for a callable."""
    from certify.checkpoints import tensor_digest

    if not isinstance(model, nn.Module):
        return None
    return tensor_digest({**dict(model.named_parameters()), **dict(model.named_buffers())})


def refuse_changed(model: Any, digest: str | None) -> None:
    """Raise InvalidModel where ``model`` is no longer what it was when its ``digest`` was taken.

    What was derived from it since (a copy in another dtype, a reduced first layer, Lipschitz bounds, the
    measured rounding) speaks about the model as it was.
    """
    if weights_digest(model) != digest:
        raise InvalidModel(
            "the model's weights have changed since its smoothed classifier was made",
            why="the certificate would be about a network that no longer exists",
            remedy="make a new smoothed classifier from the model as it is now",
        )
    check_model(model)


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
