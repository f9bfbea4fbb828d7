"""Which function a run is about, so that no other one can go on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from certify.contract import check_model
from certify.errors import InvalidModel, InvalidSetting
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
    """The digest of the weights (None for a plain callable), the class, and a digest of fixed labels.

    ``rows`` turns points (n, *shape) into what the classifier takes. Labels are taken at 64 points
    drawn once and for all in the declared range (normal ones where there is none): digests of
    scores would differ between machines in the last bits.
    """
    from certify.checkpoints import model_digest

    generator = torch.Generator().manual_seed(0)
    if bounds is None:
        points = torch.randn(_PROBES, *shape, generator=generator)
    else:
        low, high = bounds
        points = low + (high - low) * torch.rand(_PROBES, *shape, generator=generator)
    points = rows(points.to(classifier.device))
    labels, doubt = classifier.votes(points)
    found = labels.tolist()
    for row in doubt.nonzero().flatten().tolist():
        found[row] = classifier.vote_alone(points[row : row + 1])
    kind = type(model) if isinstance(model, nn.Module) or not hasattr(model, "__qualname__") else model
    return {
        "digest": model_digest(model) if isinstance(model, nn.Module) else None,
        "function": f"{kind.__module__}.{kind.__qualname__}",
        "labels": hashlib.sha256(" ".join(map(str, found)).encode()).hexdigest(),
    }


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
